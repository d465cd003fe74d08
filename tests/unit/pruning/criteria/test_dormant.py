"""Criterion ``dormant`` against the figure that plasticity measures, and a slow loop."""

import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.pruning.evidence.objectives import ANY_GROUP, Actions, Objective
from rayprune.pruning.measures.plasticity import TAU, dormant_share


def net():
    torch.manual_seed(0)
    layers = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
    module = nn.Sequential(*layers)
    with torch.no_grad():
        module[0].bias[:3] = -9.0  # never active
        module[2].weight[1], module[2].bias[1] = 0.0, 1e-3
    return module


def pruner_of(module=None, heads=("4",), **config):
    config = {"criterion": "dormant", "granularity": "neuron", "sparsity": 0.5, **config}
    return Pruner(module or net(), PruningConfig(**config), heads=heads)


def test_scores_equal_a_slow_loop_over_the_papers_formula():
    module, batches = net(), [torch.randn(16, 4), torch.randn(8, 4)]
    scores = pruner_of(module).scores(batch=batches)
    rows = torch.cat(batches)
    first = torch.relu(module[0](rows)).detach()
    second = torch.tanh(module[2](first)).detach()
    for name, hidden in {"0.weight": first, "2.weight": second}.items():
        activity = [sum(abs(float(h)) for h in hidden[:, i]) / len(rows) for i in range(8)]
        for unit, score in enumerate(scores[name][:, 0]):
            assert float(score) == pytest.approx(activity[unit] / (sum(activity) / 8), abs=1e-5)


def test_a_threshold_of_tau_prunes_what_plasticity_counts_as_dormant():
    module, batch = net(), torch.randn(64, 4)
    hidden = {"0.weight": torch.relu(module[0](batch))}
    hidden["2.weight"] = torch.tanh(module[2](hidden["0.weight"]))
    shares = {name: dormant_share(rows.detach()) for name, rows in hidden.items()}
    pruner = pruner_of(module, sparsity=None, threshold={"absolute": TAU})
    pruner.prune_to(batch=batch)
    gone = {name: float((~mask.any(1)).float().mean()) for name, mask in pruner.masks.items()}
    assert gone == shares
    assert shares["0.weight"] == 3 / 8


def test_filters_are_active_by_size_and_padding_counts_for_nothing():
    conv = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1))
    with torch.no_grad():
        conv[0].weight.copy_(torch.tensor([1.0, 0.5]).view(2, 1, 1, 1))
    # Signs that cancel over the positions, and a row that is padding.
    batch = torch.tensor([[1.0, -1.0, 1.0, -1.0], [9.0] * 4]).view(2, 1, 2, 2)
    valid = torch.tensor([True, False])

    def actions(module, x):
        return {ANY_GROUP: Actions(module(x), valid=valid)}

    loss = Objective(lambda module, x: module(x).mean(), actions)
    scores = pruner_of(conv, heads=["3"]).scores(batch=batch, loss=loss)["0.weight"].flatten()
    sizes = torch.tanh(torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(scores, sizes / sizes.mean())


def test_recurrent_units_have_an_activity_and_a_silent_layer_is_all_dormant():
    class Memory(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTM(4, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.head(self.cell(x)[0])

    torch.manual_seed(0)
    module, x = Memory(), torch.randn(5, 2, 4)
    scores = pruner_of(module, heads=["head"]).scores(batch=x)["cell.weight_ih_l0"]
    sizes = module.cell(x)[0].abs().mean((0, 1)).detach()
    torch.testing.assert_close(scores[:3, 0], sizes / sizes.mean())
    with torch.no_grad():
        for weight in module.cell.parameters():
            weight.zero_()
    assert not pruner_of(module, heads=["head"]).scores(batch=x)["cell.weight_ih_l0"].any()
