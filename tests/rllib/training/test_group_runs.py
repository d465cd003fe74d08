"""Whole runs whose groups have choices of their own under a schedule of the whole network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayprune.tracking.record import read_rows
from tests.rllib import experiments
from tests.rllib.training.test_resume import CrashAt, CrashError, check_same_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.timeout(600),
]

GROUPS = {"policy": {"criterion": "l2", "sparsity": 0.6}, "value": {"criterion": "random"}}
SCHEDULES: dict[str, dict[str, Any]] = {
    "lottery": {"kind": "lottery", "rounds": 2, "rewind_to": 200, "round_steps": 400},
    # No policy of CartPole earns less than 8: every step is accepted.
    "gated": {"kind": "gated", "begin": 300, "step": 0.3, "floor": 1.0, "reference": 8.0},
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_groups_inherit_what_acts_on_the_whole_network(kind: str, tmp_path: Path) -> None:
    pruning = {"sparsity": 0.8, "schedule": SCHEDULES[kind], "groups": GROUPS}
    base = {**experiments.PPO, "evaluation": {"every": 200, "episodes": 3}}
    what = experiments.experiment(base, pruning=pruning)
    whole = experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(810))
    resumed = experiments.train(what, tmp_path / "cut", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "cut")
    assert whole["sparsity"] == resumed["sparsity"]
    rows = read_rows(tmp_path / "whole" / "results.jsonl")
    reached = [row["groups"] for row in rows]
    if kind == "lottery":
        assert reached[-1] == pytest.approx({"policy": 0.6, "value": 0.8}, abs=0.02)
        assert any(0 < groups["policy"] < 0.55 for groups in reached)
    else:
        assert [groups["value"] for groups in reached] == sorted(g["value"] for g in reached)
        assert reached[-1]["value"] > 0.2 < reached[-1]["policy"]
