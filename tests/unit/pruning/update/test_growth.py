"""Nets that grow from sparse to denser, and clones whose target is below what they have."""

import pytest
import torch

from rayprune.pruning.schedules import GrowSchedule
from tests.unit.pruning.update.regrowing import GROW, RIGL, SET, copies, give_gradients, pruner_of


@pytest.mark.parametrize("regrow", ["gradient", "random"])
def test_a_net_grows_from_its_start_to_its_target(regrow):
    pruner = pruner_of({**GROW, "regrow": regrow}, sparsity=0.5)
    assert pruner.sparsity() == pytest.approx(0.9, abs=0.005)
    held, seen = copies(pruner), []
    for step in (100, 200, 300, 400, 500, 600):
        give_gradients(pruner, seed=step)
        pruner.update(step)
        assert all(bool((held[name] & ~mask).sum() == 0) for name, mask in pruner.masks.items())
        held = copies(pruner)
        seen.append(round(pruner.sparsity(), 2))
    assert seen == [0.9, 0.8, 0.7, 0.6, 0.5, 0.5]
    assert pruner.violations() == {}


def test_growth_takes_the_largest_gradients():
    pruner = pruner_of(GROW, sparsity=0.5, distribution="global")
    before, gradients = copies(pruner), give_gradients(pruner)
    change = pruner.update(300)
    size = torch.cat([gradients[name].abs()[~before[name]] for name in before])
    fresh = torch.cat([change.regrown[name][~before[name]] for name in before])
    assert float(size[fresh].min()) > float(size[~fresh].max())


def test_a_target_of_zero_is_dense_from_the_start():
    pruner = pruner_of(GROW, sparsity=0.0)
    assert pruner.sparsity() == 0
    assert GrowSchedule(final=0.0, start=0.9, end=100).sparsity_at(0) == 0


# A clone of a sparser donor


@pytest.mark.parametrize("schedule", [{"kind": "linear", "begin": 100, "end": 500}, SET, RIGL])
def test_a_lowered_target_regrows_where_that_is_asked_for(schedule):
    held, regrown = pruner_of(schedule), pruner_of(schedule, on_clone="regrow")
    for pruner in (held, regrown):
        give_gradients(pruner)
        pruner.update(600)
        pruner.config = pruner.config.replace(sparsity=0.4)
        give_gradients(pruner)
        pruner.update(700)
    assert held.sparsity() == pytest.approx(0.7, abs=0.005)
    assert regrown.sparsity() == pytest.approx(0.4, abs=0.005)
    assert regrown.violations() == {}
    give_gradients(regrown)
    later = regrown.update(800)
    assert later is None or later.pruned == later.grown


def test_a_ramp_that_will_prune_again_lets_nothing_grow_beyond_its_end():
    schedule = {"kind": "linear", "begin": 100, "end": 500, "every": 100}
    pruner = pruner_of(schedule, sparsity=0.5, on_clone="regrow")
    pruner.update(500)
    pruner.config = pruner.config.replace(
        sparsity=0.9, schedule={**schedule, "begin": 500, "end": 900}
    )
    pruner.update(600)  # a quarter of the way to 90 %: 22.5 % are due, and 50 % are gone
    assert pruner.sparsity() == pytest.approx(0.5, abs=0.005)
