"""A fit's file: what it makes of an experiment, and what it refuses before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayprune.errors import ConfigError
from rayprune.fit.fit_spec import load_fit, space_of
from rayprune.fit.untrained import Networks
from rayprune.search.config import SearchConfig
from tests.rllib import experiments

FIT = {"parameters": 500, "widths": [1, 0.5], "sparsities": [0.5]}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**experiments.PPO, "fit": FIT, **changes}))  # JSON is YAML too
    return path


def test_options_win_over_the_file_and_candidates_are_experiments(tmp_path: Path) -> None:
    fit = load_fit(write(tmp_path / "c.yaml"), options={"parameters": "200", "return": 0.9})
    assert fit.config.budgets.limits == {"parameters": 200.0}
    assert fit.config.return_ == 0.9
    assert fit.interval == experiments.PPO["stop"]["env_steps"] // 8
    halved = next(one for one in fit.candidates if one.name == "8x8-neuron-50")
    experiment = fit.experiment_of(halved)
    assert experiment.rllib["rl_module"]["model_config"]["fcnet_hiddens"] == [8, 8]
    assert experiment.pruning.granularity == "neuron"
    assert experiment.pruning.compact_every == fit.interval
    # What a wave's sweep is asked for.
    points = [one.values for one in fit.candidates]
    SearchConfig.from_raw(
        {
            "method": "listed",
            "space": space_of(fit.candidates),
            "points": points,
            "objectives": {"parameters": "min"},
        }
    )


def test_what_is_left_of_a_network_is_counted_between_units_that_live(tmp_path: Path) -> None:
    fit, networks = load_fit(write(tmp_path / "c.yaml")), Networks()
    left = {one.name: networks.left(fit.experiment_of(one)) for one in fit.candidates}
    # Four observations, two actions; the critic acts on nothing.
    assert left["16x16-dense"].weights == 4 * 16 + 16 * 16 + 16 * 2
    assert left["16x16-neuron-50"] == left["8x8-dense"]
    assert left["8x8-dense"].parameters == 4 * 8 + 8 * 8 + 8 * 2 + 8 + 8 + 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stop": {"env_steps": 800, "return": 400}}, "`stop.return` can't be used in a fit"),
        ({"fit": {**FIT, "interval": 5000}}, "`fit.interval` must be at most"),
        ({"fit": {**FIT, "energy": "5uJ"}}, "`fit.energy` can't be measured on target 'host'"),
        (
            {"pruning": {"sparsity": 0.5, "schedule": {"kind": "gated", "step": 0.1}}},
            "finds a sparsity itself",
        ),
        ({"algorithm": "BC", "stop": {"updates": 9}}, "`algorithm` can't be BC in a fit"),
    ],
)
def test_what_no_fit_can_be_made_of_is_refused_with_a_way_out(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_fit(write(tmp_path / "c.yaml", **changes))
    assert any(told in fault for fault in error.value.faults), error.value.faults
