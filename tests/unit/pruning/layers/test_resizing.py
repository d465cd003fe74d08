"""What went of a network that was compacted in mid-training still counts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.deploy.compaction.live import TrainedNetwork, plan_live
from rayprune.deploy.compaction.plan import apply_plan
from rayprune.pruning.layers.resizing import fit_to, shapes_of

SCHEDULE = {"kind": "linear", "begin": 0, "end": 100, "every": 10}


def pruner_of(granularity: str = "neuron", **changes: object) -> Pruner:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    targets = (
        {"hybrid": {"neuron": 0.5, "weight": 0.6}} if granularity == "hybrid" else {"sparsity": 0.5}
    )
    config = PruningConfig(
        granularity=granularity, schedule=SCHEDULE, **(targets | {"compact_every": 10} | changes)
    )
    return Pruner(net, config, heads=["4"])


def compact(pruner: Pruner, clock: float) -> None:
    module = pruner.module
    merge = pruner.config.granularity == "neuron"
    plan = plan_live(
        TrainedNetwork(module, torch.zeros(2, 3), lambda m, x: m(x), pruner.masks, (), merge)
    )
    before = shapes_of(module)
    apply_plan(module, plan)
    pruner.compacted(clock, before, plan.kept, plan.pick)


def test_sparsity_shapes_and_totals_stay_those_of_the_whole_network():
    pruner = pruner_of()
    pruner.update(100.0)
    counted = [(x.shape, x.total, x.sparsity) for x in pruner.layer_counts()]
    assert pruner.sparsity() == 0.5
    compact(pruner, 100.0)
    assert shapes_of(pruner.module)["2.weight"] == (4, 4)
    assert [(x.shape, x.total, x.sparsity) for x in pruner.layer_counts()] == counted
    assert pruner.sparsity() == 0.5
    assert pruner.violations() == {}


@pytest.mark.parametrize("granularity", ["neuron", "hybrid"])
def test_a_schedule_reaches_its_target_through_compactions(granularity):
    live, masked = pruner_of(granularity), pruner_of(granularity)
    for clock in range(0, 101, 10):
        live.update(float(clock))
        masked.update(float(clock))
        if live.compaction_due(float(clock)):
            compact(live, float(clock))
    assert shapes_of(live.module)["0.weight"] == (4, 3)
    wanted = masked.sparsity()
    if granularity == "neuron":
        assert live.sparsity() == wanted == 0.5
    else:
        # Weights that went with a unit are pruned too, where weights are what is pruned.
        assert live.sparsity() >= wanted
    assert sum(p.numel() for p in live.module.parameters()) < 0.5 * sum(
        p.numel() for p in masked.module.parameters()
    )


def test_compaction_is_due_once_a_period_and_only_after_a_mask_update():
    pruner = pruner_of(compact_every=20)
    assert not pruner.compaction_due(40.0)  # nothing was pruned yet
    pruner.update(10.0)
    assert not pruner.compaction_due(10.0)  # the first period isn't over
    assert pruner.compaction_due(20.0)
    compact(pruner, 20.0)
    pruner.update(30.0)
    assert not pruner.compaction_due(30.0)
    assert pruner.compaction_due(40.0)
    compact(pruner, 40.0)
    assert not pruner.compaction_due(60.0)  # no mask has changed since


def test_a_pruner_of_the_small_network_goes_on_from_its_state():
    pruner = pruner_of()
    pruner.update(50.0)
    compact(pruner, 50.0)
    state, weights = pruner.state_dict(), copy.deepcopy(pruner.module.state_dict())
    other = pruner_of()
    other.update(100.0)  # its own masks, of other shapes, are in the way
    fit_to(other.module, weights)
    other.module.load_state_dict(weights)
    other.load_state_dict(state)
    assert other.sparsity() == pruner.sparsity()
    for one in (pruner, other):
        one.update(100.0)
    assert other.sparsity() == pruner.sparsity() == 0.5
    assert all(torch.equal(other.masks[name], mask) for name, mask in pruner.masks.items())


@pytest.mark.parametrize("granularity", ["neuron", "hybrid"])
def test_inflated_weights_compute_the_same_under_inflated_masks(granularity):
    pruner = pruner_of(granularity)
    pruner.update(100.0)
    x = torch.randn(5, 3)
    with torch.no_grad():
        compact(pruner, 100.0)
        small = pruner.module(x)
        whole = pruner_of(granularity)
        weights = pruner.origins.inflate(pruner.module.state_dict())
        whole.module.load_state_dict(weights)
        torch.testing.assert_close(whole.module(x), small, rtol=0, atol=1e-6)
    shapes = {name: tuple(weight.shape) for name, weight in pruner.parameters.items()}
    masks = pruner.origins.inflate_masks(pruner.masks, shapes)
    kept = sum(int(mask.sum()) for mask in masks.values())
    total = sum(weight.numel() for weight in whole.parameters.values())
    assert 1 - kept / total == pytest.approx(pruner.sparsity())
    for name, mask in masks.items():
        assert torch.all(weights[name][~mask] == 0)


def test_fading_weights_and_sums_shrink_with_the_network():
    pruner = pruner_of(operation={"scale": 0.5, "steps": 3}, criterion="movement")
    gradients = {weight: torch.ones_like(weight) for weight in pruner.module.parameters()}
    pruner.observe_gradients(gradients)
    for clock in (30.0, 60.0, 80.0):
        pruner.update(clock)
    compact(pruner, 80.0)
    shapes = shapes_of(pruner.module)
    assert shapes["0.weight"][0] < 8
    sums = pruner.accumulated.movement()
    assert {name: tuple(total.shape) for name, total in sums.items()} == {
        name: shapes[name] for name in sums
    }
    pruner.observe_gradients({w: torch.ones_like(w) for w in pruner.module.parameters()})
    pruner.update(90.0)
