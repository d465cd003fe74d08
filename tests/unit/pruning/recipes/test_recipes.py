"""Recipes: what they fill in, what stays the user's, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from rayprune import PruningConfig
from rayprune.config import experiment_faults, load_experiment, to_yaml
from rayprune.errors import ConfigError
from rayprune.pruning.recipes import RECIPES, Recipe, register_recipe
from rayprune.run_recipe import given_blocks, recipe_line

RUN = {"name": "a", "algorithm": "PPO", "env": "CartPole-v1", "stop": {"env_steps": 120_000}}
RECOMMENDED = {"recipe": "recommended", "sparsity": 0.9}


def blocks(pruning: dict[str, Any], **others: Any) -> dict[str, Any]:
    return given_blocks({**RUN, **others, "pruning": {**RECOMMENDED, **pruning}})


def test_the_recommended_recipe_is_an_explicit_experiment():
    found = blocks({})
    assert found["pruning"] == {
        **RECOMMENDED,
        "criterion": "l1",
        "distribution": "erk",
        "schedule": {"kind": "cubic", "begin": 0.2, "end": 0.8, "every": 2000},
        "remedies": {"hold_deviation": True, "reconstruct": True},
        "max_kl": 0.05,
        "groups": {"value": {"sparsity": 0.0}},
    }
    assert found["normalise"] == {"observations": True}


def test_the_units_recipe_is_an_explicit_experiment():
    found = given_blocks({**RUN, "pruning": {"recipe": "units", "sparsity": 0.75}})
    assert found["pruning"] == {
        "recipe": "units",
        "sparsity": 0.75,
        "granularity": "neuron",
        "criterion": "l1",
        "distribution": "uniform",
        "schedule": {"kind": "cubic", "begin": 0.2, "end": 0.8, "every": 2000},
        "compact_every": 6000,
        "remedies": {"hold_deviation": True},
        "groups": {"value": {"sparsity": 0.0}},
    }
    assert found["normalise"] == {"observations": True}


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ({"criterion": "l2"}, {"criterion": "l2", "distribution": "erk"}),
        ({"schedule": {"end": 0.6}}, {"schedule.end": 0.6, "schedule.begin": 0.2}),
        ({"schedule": {"kind": "rigl"}}, {"schedule": {"kind": "rigl"}}),
        ({"groups": {}}, {"groups": {}}),
        ({"horizon": 6000}, {"schedule.every": 100}),
    ],
)
def test_what_the_user_says_is_kept(given, held):
    pruning = blocks(given)["pruning"]
    for path, value in held.items():
        block, _, key = path.partition(".")
        assert (pruning[block][key] if key else pruning[block]) == value


@pytest.mark.parametrize(
    "others",
    [
        {"normalise": {"observations": False}},
        {"start_from": "runs/policy"},
        {"rllib": {"env_runners": {"observation_filter": "NoFilter"}}},
        {"rllib": {"rl_module": {"model_config": {"conv_filters": [[16, 3, 1]]}}}},
        {"algorithm": "MARWIL", "stop": {"updates": 600}},
    ],
)
def test_inputs_are_left_alone_where_something_else_is_said_of_them(others):
    assert not blocks({}, **others).get("normalise", {}).get("observations")


def test_only_a_critic_that_stays_behind_is_left_dense():
    assert "groups" not in blocks({}, algorithm="DQN")["pruning"]
    assert "groups" in blocks({}, algorithm="SAC")["pruning"]


def test_a_resolved_experiment_reads_back_as_it_is(tmp_path):
    _, experiment = experiment_faults({**RUN, "pruning": RECOMMENDED})
    assert experiment is not None
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(experiment, {}), encoding="utf-8")
    again = load_experiment(path)
    assert again == experiment
    assert again.pruning.recipe == "recommended"
    assert again.pruning.schedule["every"] == 2000
    # What a person takes out of it stays out.
    assert load_experiment(path, ["pruning.groups={}"]).pruning.groups == {}


@pytest.mark.parametrize(
    ("pruning", "others", "bound"),
    [
        ({"max_kl": 0.01}, {}, 0.01),
        ({"max_kl": None}, {}, None),
        ({}, {"algorithm": "SAC"}, 0.05),
        ({}, {"algorithm": "DQN"}, None),
        ({"schedule": {"kind": "rigl"}}, {}, None),
        ({"schedule": {"kind": "lottery", "rounds": 2}}, {}, None),
        ({"operation": {"scale": 0.5, "steps": 2}}, {}, None),
    ],
)
def test_mask_updates_are_bounded_where_they_can_be(
    pruning: dict[str, Any], others: dict[str, Any], bound: float | None
) -> None:
    found = blocks(pruning, **others)
    assert found["pruning"].get("max_kl") == bound
    faults, _ = experiment_faults({**RUN, **others, "pruning": {**RECOMMENDED, **pruning}})
    assert not [fault for fault in faults if "max_kl" in fault]


def test_the_line_that_is_printed_has_what_is_in_force():
    _, experiment = experiment_faults({**RUN, "pruning": {**RECOMMENDED, "criterion": "l2"}})
    assert experiment is not None
    resolved = {**experiment.model_dump(), "pruning": experiment.pruning.to_dict()}
    assert recipe_line(resolved) == (
        "Recipe recommended: pruning.criterion=l2, pruning.distribution=erk, pruning.schedule="
        "{kind: cubic, begin: 0.2, end: 0.8, every: 2000}, "
        "pruning.remedies={hold_deviation: true, reconstruct: true}, "
        "pruning.groups={value: {sparsity: 0.0}}, pruning.max_kl=0.05, normalise.observations=true"
    )
    assert recipe_line({**resolved, "pruning": PruningConfig(sparsity=0.5).to_dict()}) is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"recipe": "recomended"}, "Did you mean 'recommended'?"),
        ({"granularity": "neuron"}, "`pruning.granularity` must be 'weight' with `pruning.recipe`"),
        ({"sparsity": None}, "`pruning.sparsity` is missing: `pruning.recipe` 'recommended' says"),
        ({"recipe": "units", "granularity": "weight"}, "Take recipe 'recommended' for single"),
        (
            {
                "recipe": "units",
                "sparsity": None,
                "granularity": "hybrid",
                "hybrid": {"neuron": 0.5, "weight": 0.8},
            },
            "units and nothing else, such as 'neuron'",
        ),
        ({"recipe": "units", "sparsity": None}, "`pruning.recipe` 'units' says how to prune"),
    ],
)
def test_what_a_recipe_does_not_go_with_is_told(changes, fault):
    faults, _ = experiment_faults({**RUN, "pruning": {**RECOMMENDED, **changes}})
    assert len(faults) == 1
    assert fault in faults[0]


def test_python_has_the_recipe_of_a_network_without_the_run():
    config = PruningConfig(**RECOMMENDED)
    assert (config.distribution, config.groups) == ("erk", {})
    assert config.without_pruning().recipe is None


def test_a_recipe_of_ones_own_obeys_the_same_rules(monkeypatch):
    monkeypatch.setattr(RECIPES, "_entries", dict(RECIPES))  # docs/reference has those shipped

    class Slow(Recipe):
        """Ends late."""

        pruning = {"schedule": {"kind": "linear", "end": 0.95}}  # noqa: RUF012

    register_recipe("slow", Slow)
    assert PruningConfig(recipe="slow", sparsity=0.5).schedule["end"] == 0.95
    with pytest.raises(ConfigError, match="exists already"):
        register_recipe("slow", Slow)
