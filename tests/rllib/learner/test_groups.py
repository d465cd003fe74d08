"""A Learner whose groups have schedules, criteria and granularities of their own."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from tests.doubles.learners import Plain
from tests.rllib.learner.test_final_masks import learner_with, not_zero, spaces_only, update

SCHEDULE = {"begin": 0, "end": 4000, "every": 1000}
GROUPS = {
    "policy": {"schedule": {"kind": "static"}, "sparsity": 0.5},
    "value": {"schedule": {"kind": "rigl", **SCHEDULE, "drop_fraction": 0.5}},
}
OWN = {
    **GROUPS,
    "value": {"criterion": "taylor", "granularity": "neuron", "evidence": {"objective": "value"}},
}


def learner_of(groups: Any = GROUPS, **changes: Any) -> Any:
    return learner_with(Plain, schedule={"kind": "linear", **SCHEDULE}, groups=groups, **changes)


def masks_of(learner: Any) -> dict[str, Any]:
    masks: dict[str, Any] = learner.masks()[DEFAULT_MODULE_ID]
    return masks


def is_policy(name: str) -> bool:
    return "actor" in name or name.startswith("pi")


def test_each_group_follows_its_own_schedule_with_exact_zeros() -> None:
    learner = learner_of()
    first = masks_of(learner)
    update(learner, step=2000)
    update(learner, step=3000, seed=1)
    assert not not_zero(learner)
    last, report = masks_of(learner), learner.pruning_report()[DEFAULT_MODULE_ID]
    assert all(torch.equal(first[name], last[name]) is is_policy(name) for name in first)
    told = {name: own["schedule"] for name, own in report["own_groups"].items()}
    assert told == {"policy": "static", "value": "rigl"}
    assert report["own_groups"]["policy"]["finished"]
    assert not report["finished"]
    assert report["groups"] == pytest.approx({"policy": 0.5, "value": 0.8}, abs=0.01)
    counts = {layer.name: int(layer.sparsity * layer.total) for layer in report["layers"]}
    total = sum(layer.total for layer in report["layers"])
    assert report["sparsity"] == pytest.approx(sum(counts.values()) / total, abs=1e-3)
    assert 0.2 < report["itop"]["all"] < 1


def test_dormant_units_of_one_group_go_while_another_is_revived() -> None:
    value = {"criterion": "dormant", "granularity": "neuron", "sparsity": 0.5}
    policy = {"schedule": {"kind": "revive", "begin": 2500, "reserve": 0.2}}
    learner = learner_of({"policy": policy, "value": value})
    held_back = masks_of(learner)
    for seed, step in enumerate((2000, 3000, 4000)):
        update(learner, step=step, seed=seed)
    report = learner.pruning_report()[DEFAULT_MODULE_ID]
    assert report["groups"] == pytest.approx({"policy": 0.8, "value": 0.5}, abs=0.03)
    for name, mask in masks_of(learner).items():
        if is_policy(name):
            assert bool((mask | ~held_back[name]).all())
            assert int(mask.sum()) > held_back[name].sum()
    assert not not_zero(learner)


def test_a_group_may_be_pruned_at_its_initialisation() -> None:
    start = {"kind": "at_init", "minibatches": 3}
    snip = {"schedule": start, "criterion": "snip", "evidence": {"objective": "loss"}}
    learner = learner_of({"value": snip})
    first = {name: p.clone() for name, p in learner.pruners[DEFAULT_MODULE_ID].parameters.items()}
    update(learner, step=100, num_epochs=1)  # two minibatches
    assert learner.pruners[DEFAULT_MODULE_ID].held_masks == {}
    moved = learner.pruners[DEFAULT_MODULE_ID].parameters
    assert all(torch.equal(moved[name], held) for name, held in first.items())
    update(learner, step=200, seed=1, num_epochs=1)
    groups = learner.pruning_report()[DEFAULT_MODULE_ID]["groups"]
    assert groups == pytest.approx({"policy": 0.0, "value": 0.8}, abs=0.01)


def test_evidence_is_gathered_for_the_group_that_asks_for_it_and_is_due() -> None:
    learner = learner_of(OWN)
    update(learner, step=4000)
    report = learner.pruning_report()[DEFAULT_MODULE_ID]
    assert not not_zero(learner)
    rows = {name: mask for name, mask in masks_of(learner).items() if not is_policy(name)}
    assert rows
    for mask in rows.values():
        assert torch.equal(mask.any(1), mask.all(1))
    assert report["own_groups"]["value"] == {
        "schedule": "linear",
        "criterion": "taylor",
        "granularity": "neuron",
        "target": 0.8,
        "sparsity": pytest.approx(0.8, abs=0.03),
        "finished": True,
    }
    assert not any("critic" in name for name in learner.diagnostics()[DEFAULT_MODULE_ID]["scores"])


def test_a_restored_learner_goes_on_as_one_that_never_stopped() -> None:
    whole, resumed = learner_of(), learner_of()
    update(whole, step=1000)
    resumed.set_state(copy.deepcopy(whole.get_state()))
    for learner in (whole, resumed):
        update(learner, step=2000, seed=1)
    one, other = masks_of(whole), masks_of(resumed)
    assert all(torch.equal(mask, other[name]) for name, mask in one.items())
    weights = [learner.get_state("rl_module")["rl_module"] for learner in (whole, resumed)]
    for name, value in weights[0][DEFAULT_MODULE_ID].items():
        np.testing.assert_array_equal(value, weights[1][DEFAULT_MODULE_ID][name])


def test_a_clone_prunes_on_by_the_targets_of_its_own_groups() -> None:
    donor, clone = learner_of(), learner_of({**GROUPS, "policy": {"criterion": "l2"}})
    update(donor, step=4000)
    held = clone.config.learner_config_dict["rayprune"]
    # What a population-based scheduler does: the donor's state, under a config of its own.
    policy = {"schedule": {"kind": "static"}, "sparsity": 0.75}
    clone.config.learner_config_dict["rayprune"] = {**held, "groups": {**GROUPS, "policy": policy}}
    clone.set_state(donor.get_state())
    update(clone, step=5000, seed=1)
    report = clone.pruning_report()[DEFAULT_MODULE_ID]
    assert report["groups"] == pytest.approx({"policy": 0.75, "value": 0.8}, abs=0.01)
    assert not not_zero(clone)


def test_all_groups_are_cut_at_once_and_dead_units_of_all_go_live() -> None:
    unit = {"granularity": "neuron", "schedule": {"kind": "one_shot", "begin": 0}, "sparsity": 0.5}
    groups = {"policy": {**unit, "criterion": "l2"}, "value": {**unit, "sparsity": 0.75}}
    learner = learner_with(Plain, spaces_only(), **unit, groups=groups, compact_every=1)
    update(learner, step=1000)
    update(learner, step=2000, seed=1)
    report = learner.pruning_report()[DEFAULT_MODULE_ID]
    assert report["groups"] == pytest.approx({"policy": 0.5, "value": 0.75}, abs=0.01)
    assert report["parameters"]["held"] < 0.5 * report["parameters"]["total"]
    state = copy.deepcopy(learner.get_state())
    again = learner_with(Plain, spaces_only(), **unit, groups=groups, compact_every=1)
    again.set_state(state)
    assert again.pruning_report()[DEFAULT_MODULE_ID]["groups"] == report["groups"]
