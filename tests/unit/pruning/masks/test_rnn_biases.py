"""Hidden units of LSTMs and GRUs that lose all incoming weights lose their biases too."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig, compact
from rayprune.pruning.layers.masked import MaskedLSTM
from rayprune.pruning.masks.rnn_biases import silent_biases

KINDS = [nn.LSTM, nn.GRU]


class Memory(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.cell = kind(3, 8, batch_first=True, **options)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lstm = isinstance(self.cell, nn.LSTM)
        out, after = self.cell(x, (state if lstm else state[0]) if state else None)
        return (self.head(out), *(after if lstm else (after,)))


def pruned(kind: type[nn.RNNBase], sparsity: float = 0.5) -> tuple[Memory, Pruner]:
    torch.manual_seed(0)
    net = Memory(kind)
    pruner = Pruner(net, PruningConfig(granularity="neuron", sparsity=sparsity), exempt=["head"])
    pruner.prune_to(sparsity)
    return net, pruner


def silent(net: Memory) -> torch.Tensor:
    """Return by a loop which units have no incoming weight."""
    size = net.cell.hidden_size
    both = torch.cat([net.cell.weight_ih_l0, net.cell.weight_hh_l0], 1)
    return torch.tensor([not both[unit::size].any() for unit in range(size)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_pruned_hidden_units_biases_are_zero_in_every_gate_and_others_stay(kind):
    net, _ = pruned(kind)
    gone = silent(net)
    assert gone.sum() == 4
    for bias in (net.cell.bias_ih_l0, net.cell.bias_hh_l0):
        by_gate = bias.unflatten(0, (-1, 8))
        assert not by_gate[:, gone].any()
        assert by_gate[:, ~gone].all()


def test_a_unit_that_one_weight_still_reaches_keeps_its_biases():
    lstm = MaskedLSTM(2, 2)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        lstm.masks[name] = torch.zeros_like(lstm.get_parameter(name), dtype=torch.bool)
    lstm.masks["weight_hh_l0"][5, 0] = True  # unit 1, third gate
    assert silent_biases(lstm)["bias_ih_l0"].tolist() == [False, True] * 4


def test_strands_are_silent_each_by_itself():
    lstm = MaskedLSTM(2, 2, bidirectional=True)
    for name in ("weight_ih_l0_reverse", "weight_hh_l0_reverse"):
        lstm.masks[name] = torch.zeros_like(lstm.get_parameter(name), dtype=torch.bool)
    assert set(silent_biases(lstm)) == {"bias_ih_l0_reverse", "bias_hh_l0_reverse"}
    assert silent_biases(MaskedLSTM(2, 2, bias=False)) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_training_leaves_silent_units_silent(kind):
    net, pruner = pruned(kind)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)
    gone = silent(net)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(4, 5, 3))[0].square().mean().backward()
        gradients = {p: p.grad for p in net.parameters()}
        pruner.mask_gradients(gradients)
        assert not net.cell.bias_ih_l0.grad.unflatten(0, (-1, 8))[:, gone].any()
        optimizer.step()
        pruner.mask_weights()
    assert pruner.violations() == {}
    assert not net.cell.bias_hh_l0.unflatten(0, (-1, 8))[:, gone].any()
    with torch.no_grad():
        net.cell.bias_hh_l0 += 1
    assert pruner.violations() == {"cell.bias_hh_l0": 4 * (4 if kind is nn.LSTM else 3)}


def test_moments_and_targets_follow_by_name():
    _, pruner = pruned(nn.LSTM)
    moment = torch.ones(32)
    pruner.mask_tensors({"cell.bias_ih_l0": moment})
    assert moment.sum() == 16
    assert "cell.bias_ih_l0" in pruner.masked_parameters
    assert "cell.bias_ih_l0" not in pruner.parameters  # prunable are weights alone


def test_a_restored_pruner_silences_what_its_masks_say():
    net, pruner = pruned(nn.GRU)
    other = Memory(nn.GRU)
    again = Pruner(other, pruner.config, exempt=["head"])
    again.load_state_dict(copy.deepcopy(pruner.state_dict()))
    assert torch.equal(other.cell.bias_ih_l0 == 0, net.cell.bias_ih_l0 == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stateful", [False, True])
def test_a_cell_pruned_by_neurons_is_compacted_to_what_is_left(kind, stateful):
    net, _ = pruned(kind, 0.75)
    states = [torch.zeros(1, 2, 8)] * (2 if kind is nn.LSTM else 1)
    example = (torch.randn(2, 4, 3), *(states if stateful else ()))
    small = compact(net, example, shrink_states=True)
    assert {r.layer: r.units for r in small.removed} == ({"cell": 6} if stateful else {})
    if stateful:
        assert small.module.cell.hidden_size == 2
        assert small.module.head.in_features == 2
        ours, theirs = net(*example)[0], small.module(*small.example_input)[0]
        assert torch.allclose(ours, theirs, atol=1e-6)
