"""TAR against a slow loop: a sparser static mask, one revival by chance, fixed from then on."""

import itertools

import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.pruning.update.regrowth import random_growth

AT = 100


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def pruner_of(seed=0, sparsity=0.8, **schedule):
    schedule = {"kind": "revive", "begin": AT, "reserve": 0.25, **schedule}
    return Pruner(net(), PruningConfig(sparsity=sparsity, schedule=schedule), seed=seed)


def slowly_revived(name, weight, mask, sparsity, seed):
    """Let the highest draws of the weights that are off come alive, one after the other."""
    kept = weight.numel() - round(sparsity * weight.numel())
    draws = random_growth(weight, seed, name, 1)
    alive = mask.clone()
    while int(alive.sum()) < kept:
        off = [i for i in itertools.product(*map(range, mask.shape)) if not alive[i]]
        alive[max(off, key=lambda index: float(draws[index]))] = True
    return alive


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_the_revival_equals_a_slow_loop_and_comes_once(sparsity):
    pruner = pruner_of(seed=3, sparsity=sparsity)
    pruner.start()
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    held_back = 1 - (1 - sparsity) * 0.75
    for mask in before.values():
        assert int(mask.sum()) == mask.numel() - round(held_back * mask.numel())
    assert pruner.update(AT - 1) is None
    with torch.no_grad():
        for name, weight in pruner.parameters.items():
            weight.copy_(weight + before[name])
    weights = {name: weight.detach().clone() for name, weight in pruner.parameters.items()}
    change = pruner.update(AT + 7)
    for name, mask in pruner.masks.items():
        assert torch.equal(
            mask, slowly_revived(name, weights[name], before[name], sparsity, seed=3)
        )
        assert torch.equal(change.regrown[name], mask & ~before[name])
        assert torch.equal(pruner.parameters[name], weights[name])  # what is revived is zero
    assert pruner.finished(AT + 7)
    assert all(pruner.update(step) is None for step in (AT + 8, 10 * AT))


def test_a_resumed_run_revives_the_same_and_another_seed_something_else():
    pruner, resumed, other = pruner_of(), pruner_of(), pruner_of(seed=1)
    pruner.start()
    for one in (resumed, other):
        one.load_state_dict(pruner.state_dict())
    revived = [one.update(AT).regrown for one in (pruner, resumed, other)]
    assert all(torch.equal(fresh, revived[1][name]) for name, fresh in revived[0].items())
    assert not any(torch.equal(fresh, revived[2][name]) for name, fresh in revived[0].items())


def test_a_target_of_zero_is_dense_from_the_start():
    assert pruner_of(sparsity=0.0).start().pruned == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reserve": 1}, "`schedule.reserve` must be in (0, 1), a share of what is left"),
        ({"reserve": 0.0}, "`schedule.reserve` must be in (0, 1)"),
        ({"begin": 0}, "`schedule.begin` must be above 0"),
        ({"begin": 1.0}, "`schedule.begin` must be before the run's end"),
        ({"reserv": 0.1}, "Did you mean 'reserve'?"),
    ],
)
def test_what_can_not_be_is_refused(changes, told):
    block = {"sparsity": 0.5, "schedule": {"kind": "revive", **changes}}
    assert told in "\n".join(PruningConfig.faults_of(block, prefix=""))
