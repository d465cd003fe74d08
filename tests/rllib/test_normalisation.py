"""Observations and rewards normalised by running statistics, wherever the policy goes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.rllib import experiments
from tests.rllib.test_resume import CrashAt, CrashError, check_same_run

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]


def filtered(base: Mapping[str, Any], **runners: Any) -> dict[str, Any]:
    """Return an experiment that normalises observations and rewards."""
    result = copy.deepcopy(dict(base))
    result["rllib"]["env_runners"].update(observation_filter="MeanStdFilter", **runners)
    result["normalise"] = {"rewards": True}
    return result


@pytest.mark.parametrize(
    ("base", "crash_at"),
    [
        (filtered(experiments.PPO, num_env_runners=2), 610),
        (filtered(experiments.DQN), 310),
        (filtered(experiments.SAC), 160),
    ],
    ids=["ppo-two-runners", "dqn", "sac"],
)
def test_a_resumed_run_that_normalises_equals_the_uninterrupted_one(
    tmp_path: Path, base: Mapping[str, Any], crash_at: int
) -> None:
    what = experiments.experiment(base)
    experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(crash_at))
    experiments.train(what, tmp_path / "cut", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "cut")
