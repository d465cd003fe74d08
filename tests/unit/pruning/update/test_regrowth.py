"""Dynamic sparse training: what is dropped, what regrows, and what a state holds of it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import InputError, NonFiniteError
from rayprune.pruning.evidence.gradients import WindowMean
from rayprune.pruning.schedules import RiglSchedule
from rayprune.pruning.update.regrowth import drop_and_regrow, drop_count
from tests.unit.pruning.update.regrowing import (
    GROW,
    RIGL,
    SET,
    active,
    copies,
    give_gradients,
    net,
    pruner_of,
)

# By hand


def test_rigl_on_a_two_by_three_layer_by_hand():
    layer = nn.Linear(3, 2, bias=False)
    pruner = Pruner(layer, PruningConfig(sparsity=0.5, schedule={**RIGL, "begin": 0}))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[5.0, 0.0, 1.0], [0.0, 3.0, 0.0]]))
    pruner.start()
    state = pruner.state_dict()
    state["masks"] = {"weight": np.packbits([True, False, True, False, True, False])}
    pruner.load_state_dict(state)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[5.0, 0.0, 1.0], [0.0, 3.0, 0.0]]))
    pruner.gather_gradients({layer.weight: torch.tensor([[0.1, 0.2, 0.3], [-9.0, 0.4, 8.0]])})
    # cos(pi * 0.1): 49 % of three active weights are one, the smallest.
    change = pruner.update(100)
    assert pruner.masks["weight"].tolist() == [[True, False, False], [True, True, False]]
    assert layer.weight.tolist() == [[5.0, 0.0, 0.0], [0.0, 3.0, 0.0]]
    assert (change.pruned, change.grown, change.sparsity) == (1, 1, 0.5)
    assert change.churn == pytest.approx(2 / 6)
    assert change.regrown["weight"].tolist() == [[False, False, False], [True, False, False]]


def test_a_dropped_weight_of_the_largest_gradient_stays_as_it_was():
    mask = torch.tensor([True, True, False])
    after = drop_and_regrow(
        mask, torch.tensor([1.0, 2.0, 0.0]), torch.tensor([9.0, 0.0, 1.0]), fraction=0.5
    )
    assert after.tolist() == [True, True, False]


def test_a_static_mask_is_there_from_the_start_and_never_changes():
    pruner = pruner_of({"kind": "static"})
    assert pruner.sparsity() == pytest.approx(0.7, abs=0.005)
    before = copies(pruner)
    for step in (1, 100, 10_000):
        assert pruner.update(step) is None
    assert all(torch.equal(before[name], mask) for name, mask in pruner.masks.items())
    assert pruner.finished(1)
    assert pruner.violations() == {}


@pytest.mark.parametrize(
    "values",
    [
        {"granularity": "neuron", "sparsity": 0.5},
        {"granularity": "block", "sparsity": 0.5},
        {"granularity": "2:4", "sparsity": None},
        {"granularity": "hybrid", "sparsity": None, "hybrid": {"neuron": 0.25, "weight": 0.5}},
    ],
)
def test_a_static_mask_may_be_of_any_granularity(values):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32))
    pruner = pruner_of({"kind": "static"}, module=module, **values)
    assert pruner.sparsity() == pytest.approx(0.5, abs=0.01)
    assert pruner.violations() == {}
    assert pruner.update(1) is None


# Laws


@given(
    st.floats(0.05, 0.95),
    st.floats(0.05, 1.0),
    st.sampled_from(["set", "rigl"]),
    st.sampled_from(["uniform", "erk", "global"]),
)
def test_every_layer_keeps_its_number_of_weights_and_what_is_regrown_is_zero(
    sparsity, fraction, kind, distribution
):
    pruner = pruner_of(
        {**RIGL, "kind": kind, "drop_fraction": fraction},
        sparsity=sparsity,
        distribution=distribution,
    )
    before, counts = copies(pruner), active(pruner)
    for step in (100, 200, 300):
        give_gradients(pruner, seed=step)
        change = pruner.update(step)
        assert active(pruner) == counts
        assert change.pruned == change.grown
        for name, mask in pruner.masks.items():
            fresh = mask & ~before[name]
            assert int(fresh.sum()) == int(change.regrown.get(name, torch.zeros(1)).sum())
            assert not bool(pruner.parameters[name][fresh].any())
        assert pruner.violations() == {}
        before = copies(pruner)
        with torch.no_grad():  # what is active learns
            for name, mask in pruner.masks.items():
                pruner.parameters[name].add_(mask * 0.1)


def test_what_something_else_wrote_to_a_masked_weight_is_gone_when_it_regrows():
    pruner = pruner_of(SET)
    with torch.no_grad():
        for name, mask in pruner.masks.items():
            pruner.parameters[name].masked_fill_(~mask, 0.25)
    change = pruner.update(100)
    assert all(not bool(pruner.parameters[n][fresh].any()) for n, fresh in change.regrown.items())


@given(st.integers(0, 5), st.sampled_from([SET, RIGL]))
def test_masks_depend_on_nothing_but_seed_and_gradients(seed, schedule):
    runs = [pruner_of(schedule, seed=seed) for _ in range(2)]
    other = pruner_of(schedule, seed=seed + 1)
    for pruner in (*runs, other):
        torch.rand(seed)  # the global generator plays no part
        give_gradients(pruner)
        pruner.update(100)
    first, second = (pruner.masks for pruner in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other.masks[name]) for name in first)


def test_protected_layers_never_grow():
    module = net()
    config = PruningConfig(sparsity=0.5, protect=["0"], schedule=SET, distribution="uniform")
    with pytest.raises(Exception, match="at most"):
        Pruner(module, config)
    pruner = Pruner(module, config.replace(sparsity=0.2))
    pruner.start()
    assert pruner.update(100).regrown.keys() == {"2.weight"}
    assert "0.weight" not in pruner.held_masks


def test_a_raised_target_prunes_by_the_criterion_and_a_lowered_one_holds():
    pruner = pruner_of(SET)
    pruner.config = pruner.config.replace(sparsity=0.8)
    pruner.update(0)
    assert pruner.sparsity() == pytest.approx(0.8, abs=0.005)
    pruner.config = pruner.config.replace(sparsity=0.6)
    pruner.update(100)
    assert pruner.sparsity() == pytest.approx(0.8, abs=0.005)


# Oracles


def slow_rigl(weight, mask, gradient, fraction):
    """Algorithm 1 of the paper, weight by weight, over the flattened layer."""
    on = [i for i in range(len(mask)) if mask[i]]
    k = math.floor(fraction * len(on) + 1e-9)
    dropped = sorted(on, key=lambda i: (abs(weight[i]), -i))[:k]
    kept = [i for i in on if i not in dropped]
    others = [i for i in range(len(mask)) if i not in kept]
    grown = sorted(others, key=lambda i: (-abs(gradient[i]), i))[:k]
    return [i in kept or i in grown for i in range(len(mask))]


@given(st.floats(0.1, 0.9), st.integers(0, 1000))
def test_rigl_equals_a_slow_loop_over_the_papers_algorithm(sparsity, seed):
    pruner = pruner_of(RIGL, module=net(seed), sparsity=sparsity, seed=seed)
    before, gradients = copies(pruner), give_gradients(pruner, seed)
    weights = {name: weight.detach().clone() for name, weight in pruner.parameters.items()}
    pruner.update(400)
    fraction = 0.5 / 2 * (1 + math.cos(math.pi * (400 - 100) / (1000 - 100)))
    for name, mask in pruner.masks.items():
        rows = (x[name].flatten().tolist() for x in (weights, before, gradients))
        assert mask.flatten().tolist() == slow_rigl(*rows, fraction)


@given(st.floats(0.01, 1.0), st.integers(1, 1200))
def test_the_drop_fraction_decays_as_a_cosine_and_ends(initial, step):
    schedule = RiglSchedule(final=0.9, begin=100, end=1000, drop_fraction=initial)
    due = initial / 2 * (1 + math.cos(math.pi * (step - 100) / 900)) if 100 <= step < 1000 else 0
    assert schedule.drop_fraction_at(step) == pytest.approx(due)
    assert schedule.grows_at(step) == (due > 0)


def test_set_chooses_what_regrows_evenly():
    # Of 100 weights 50 are off; each of them is as likely to grow as any other.
    grown = torch.zeros(2500)
    for seed in range(40):
        module = nn.Linear(50, 50, bias=False)
        with torch.no_grad():
            module.weight.fill_(1.0)
        pruner = pruner_of(SET, module=module, sparsity=0.5, seed=seed)
        change = pruner.update(100)
        grown += change.regrown["weight"].flatten()
    # A binomial share per row of 50 weights: within five deviations of the same for all.
    rows = grown.view(50, 50).sum(1)
    mean = float(rows.mean())
    assert float((rows - mean).abs().max()) < 5 * math.sqrt(mean)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.integers(1, 30))
def test_the_mean_gradient_is_plain_up_to_the_window_and_exponential_beyond(values, window):
    dense, mean = WindowMean(), 0.0
    for index, value in enumerate(values, start=1):
        dense.add({"w": torch.tensor([value], dtype=torch.float64)}, window)
        mean += (value - mean) / min(index, window)
    assert float(dense.mean("w")) == pytest.approx(mean, abs=1e-9)
    if len(values) <= window:
        assert mean == pytest.approx(sum(values) / len(values), abs=1e-9)


@pytest.mark.parametrize(("active", "fraction", "count"), [(100, 0.29, 29), (7, 0.3, 2), (0, 1, 0)])
def test_the_number_of_dropped_weights_is_rounded_down(active, fraction, count):
    assert drop_count(active, fraction) == count


# Gradients are gathered in time, and only then


def test_gradients_are_awaited_only_shortly_before_weights_grow():
    pruner = pruner_of({**RIGL, "minibatches": 4})
    assert not pruner.awaits_growth(50, per_minibatch=10)  # the tick at 100 is five minibatches off
    assert pruner.awaits_growth(60, per_minibatch=10)
    assert pruner.awaits_growth(50, per_minibatch=math.inf)  # no telling how far off the next is
    give_gradients(pruner)
    pruner.update(100)
    assert not pruner.awaits_growth(110, per_minibatch=10)
    assert pruner.awaits_growth(160, per_minibatch=10)
    assert not pruner.awaits_growth(2000, per_minibatch=10)  # the end has come
    assert not pruner_of(SET).awaits_growth(100, per_minibatch=10)
    assert not pruner_of({"kind": "static"}).awaits_growth(100, per_minibatch=10)


def test_rigl_without_gradients_says_how_to_give_them_and_changes_nothing():
    pruner = pruner_of(RIGL)
    before = copies(pruner)
    with pytest.raises(InputError, match="gather_gradients"):
        pruner.update(100)
    assert all(torch.equal(before[name], mask) for name, mask in pruner.masks.items())


def test_gradients_are_used_once():
    pruner = pruner_of(RIGL)
    give_gradients(pruner)
    pruner.update(100)
    with pytest.raises(InputError, match="gather_gradients"):
        pruner.update(200)


def test_nothing_is_dropped_before_anything_is_learnt():
    pruner = pruner_of({**SET, "begin": 0})
    pruner.config = pruner.config.replace(sparsity=0.8)
    assert pruner.update(10).grown == 0
    assert pruner.sparsity() == pytest.approx(0.8, abs=0.005)


def test_a_nan_gradient_changes_nothing():
    pruner = pruner_of(RIGL)
    before = copies(pruner)
    pruner.gather_gradients({p: torch.full_like(p, math.nan) for p in pruner.parameters.values()})
    with pytest.raises(NonFiniteError, match=r"0\.weight"):
        pruner.update(100)
    assert all(torch.equal(before[name], mask) for name, mask in pruner.masks.items())


# What was ever active


def test_coverage_counts_every_weight_that_was_ever_active():
    pruner = pruner_of(SET)
    seen = copies(pruner)
    for step in range(100, 1000, 100):
        pruner.update(step)
        seen = {name: seen[name] | mask for name, mask in pruner.masks.items()}
    total = sum(mask.numel() for mask in seen.values())
    coverage = pruner.coverage()
    assert coverage["all"] == pytest.approx(sum(int(m.sum()) for m in seen.values()) / total)
    assert coverage["layers"]["2"] == pytest.approx(float(seen["2.weight"].float().mean()))
    assert coverage["all"] > 0.6 > 1 - pruner.sparsity()
    assert pruner_of({"kind": "linear"}).coverage() is None


# State


@pytest.mark.parametrize("schedule", [SET, RIGL, GROW])
def test_a_restored_pruner_goes_on_as_if_it_had_not_stopped(schedule):
    def go_on(pruner):
        give_gradients(pruner, seed=7)
        for step in (200, 300):
            give_gradients(pruner, seed=step)
            pruner.update(step)
        return pruner

    whole = pruner_of(schedule, sparsity=0.6)
    give_gradients(whole)
    whole.update(100)
    give_gradients(whole, seed=5)
    state = whole.state_dict()
    again = pruner_of(schedule, sparsity=0.6)
    again.load_state_dict(state)
    with torch.no_grad():
        for name, weight in again.parameters.items():
            weight.copy_(whole.parameters[name])
    assert again.start() is None
    go_on(whole), go_on(again)
    assert all(torch.equal(again.masks[name], mask) for name, mask in whole.masks.items())
    assert again.coverage() == whole.coverage()


def test_a_state_from_before_regrowth_loads():
    pruner = pruner_of(SET)
    state = {key: value for key, value in pruner.state_dict().items() if key != "dynamics"}
    pruner.load_state_dict(state)
    assert pruner.coverage() is None
    assert pruner.update(100).grown > 0


def test_weights_from_elsewhere_are_pruned_by_the_criterion():
    pruner = pruner_of(SET)
    with torch.no_grad():
        for weight in pruner.parameters.values():
            weight.copy_(torch.arange(1.0, weight.numel() + 1).view_as(weight))
    pruner.restart()
    assert pruner.sparsity() == 0
    assert pruner.parameters["0.weight"].min() == 1
    pruner.update(1)
    assert not bool(pruner.masks["0.weight"].flatten()[:140].any())
    assert bool(pruner.masks["0.weight"].flatten()[140:].all())


# Bad input


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": {"kind": "rigl", "drop_fraction": 0}}, "`schedule.drop_fraction` must be a"),
        ({"schedule": {"kind": "set", "drop_fraction": 1.5}}, "in (0, 1], but is 1.5."),
        ({"schedule": {"kind": "rigl", "minibatches": 0}}, "`schedule.minibatches` must be an int"),
        ({"schedule": {"kind": "grow", "regrow": "gradint"}}, "Did you mean 'gradient'?"),
        ({"schedule": {"kind": "grow", "start": 0.4}}, "`schedule.start` must not be below"),
        ({"schedule": {"kind": "cubic", "drop_fraction": 0.3}}, "is not a known key"),
        ({"schedule": {"kind": "set", "end": 0.1, "begin": 0.5}}, "must not be less than `begin`"),
        (
            {"schedule": {"kind": "set"}, "granularity": "neuron"},
            "or n:m, such as '2:4', but is 'neu",
        ),
        ({"on_clone": "regrow", "granularity": "neuron"}, "'regrow' grows single weights"),
        ({"on_clone": "regrow", "operation": {"scale": 0.5, "steps": 2}}, "leave `on_clone` at"),
        (
            {"schedule": {"kind": "rigl"}, "operation": {"scale": 0.5, "steps": 2}},
            "`operation` must be 'zero' with `schedule.kind` 'rigl'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_way_out(values, message):
    (fault,) = PruningConfig.faults_of({"sparsity": 0.5, **values}, prefix="")
    assert message in fault


@pytest.mark.parametrize("values", [{"schedule": {"kind": "set"}}, {"on_clone": "regrow"}])
def test_a_threshold_is_no_target_to_grow_to(values):
    (fault,) = PruningConfig.faults_of({"threshold": {"absolute": 0.1}, **values}, prefix="")
    assert "Give `sparsity`" in fault


def test_defaults_follow_the_kind_and_survive_a_round_trip():
    config = PruningConfig(sparsity=0.9, schedule={"kind": "rigl", "end": 0.1})
    assert config.schedule == {
        "kind": "rigl",
        "begin": 0.0,
        "end": 0.1,
        "every": 1000,
        "drop_fraction": 0.3,
        "minibatches": 100,
    }
    assert PruningConfig.from_dict(config.to_dict()) == config
