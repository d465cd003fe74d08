import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import InputError
from rayprune.pruning.evidence.evidence import ACCUMULATED
from rayprune.pruning.evidence.gradients import GradientMeans

LOSS = {"objective": "loss"}


def net():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def train(pruner, optimizer, steps):
    """A plain loop; returns each step's weights and dense gradients."""
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        pruner.module(torch.randn(16, 4)).square().mean().backward()
        gradients = {parameter: parameter.grad for parameter in pruner.module.parameters()}
        history.append(
            {n: (w.detach().clone(), w.grad.clone()) for n, w in pruner.parameters.items()}
        )
        pruner.observe_gradients(gradients)
        pruner.mask_gradients(gradients)
        optimizer.step()
        pruner.mask_weights()
    return history


def trained(criterion, steps=5, **config):
    module = net()
    pruner = Pruner(
        module, PruningConfig(sparsity=0.5, criterion=criterion, evidence=LOSS, **config)
    )
    return pruner, train(pruner, torch.optim.SGD(module.parameters(), lr=0.1), steps)


def test_movement_is_minus_the_sum_of_weight_times_gradient_over_the_training():
    pruner, history = trained("movement")
    for name, score in pruner.scores().items():
        slow = torch.zeros_like(score)
        for step in history:
            weight, gradient = step[name]
            slow -= weight * gradient
        torch.testing.assert_close(score, slow)


def test_a_shrinking_weight_moves_negatively():
    sums = GradientMeans()
    # Descent takes a positive weight with a positive gradient towards zero.
    sums.add({"w": torch.tensor([0.5])}, {"w": torch.tensor([2.0])}, ACCUMULATED)
    assert sums.movement()["w"].item() == -1.0


def test_dense_gradients_are_averaged_until_the_next_mask_update():
    pruner, history = trained("snip", schedule={"kind": "one_shot", "begin": 0, "every": 1})
    for name, score in pruner.scores().items():
        mean = torch.stack([step[name][1] for step in history]).mean(0)
        torch.testing.assert_close(score, (pruner.parameters[name] * mean).detach().abs())
    assert pruner.update(1) is not None
    with pytest.raises(InputError, match="needs `gradient`"):
        pruner.scores()


def test_nothing_is_summed_up_for_a_criterion_that_reads_weights_only():
    pruner, _ = trained("l1")
    assert pruner.accumulated.gradients() == {} == pruner.accumulated.movement()


@pytest.mark.parametrize("criterion", ["movement", "taylor"])
def test_a_saved_pruner_goes_on_to_the_same_masks(criterion):
    pruner, _ = trained(criterion)
    other = Pruner(net(), pruner.config)
    other.module.load_state_dict(pruner.module.state_dict())
    other.load_state_dict(pruner.state_dict())
    pruner.prune_to(0.5)
    other.prune_to(0.5)
    for name, mask in pruner.masks.items():
        assert torch.equal(mask, other.masks[name])
        assert 0 < int(mask.sum()) < mask.numel()


def test_a_criterion_without_its_data_says_what_to_pass():
    pruner = Pruner(net(), PruningConfig(sparsity=0.5, criterion="movement"))
    with pytest.raises(InputError, match=r"'movement' needs `movement`.*observe_gradients"):
        pruner.prune_to()
    pruner.config = pruner.config.replace(criterion="snip")
    with pytest.raises(InputError, match=r"'snip' needs `gradient`.*batch=.*loss="):
        pruner.prune_to()
