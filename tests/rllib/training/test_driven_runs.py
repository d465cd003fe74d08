"""Runs whose pruning waits for validations: they begin, roll back, end and resume as decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.errors import ConfigError
from rayprune.rllib import prune
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.experiment.experiment_checks import load_checked
from rayprune.rllib.settings.keys import STATE_KEY
from rayprune.tracking.record import read_rows
from rayprune.tracking.reporter import NullReporter
from tests.rllib import configs, experiments
from tests.rllib.training.test_resume import (
    CrashAt,
    CrashError,
    _equal,
    _pairs,
    _rows,
    _state,
    _without_time,
)

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
# A greedy policy of CartPole earns 8 at the least: a floor above it fails once too much is gone.
GATED = {
    "schedule": {
        "kind": "gated",
        "begin": 300,
        "step": 0.9,
        "least_step": 0.4,
        "floor": 1.0,
        "reference": 8.0,
        "patience": 200,
    }
}
STOP = {"env_steps": 3000}
EVALUATION = {"every": 200, "episodes": 3}


class Scripted:
    """Stands for the validations: returns by the number of the validation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, returns: list[float]) -> None:
        from rayprune.rllib.evaluation.evaluator import Evaluator

        self.returns = returns
        own = Evaluator.evaluate
        self.policies: list[dict[str, Any]] = []

        def scripted(evaluator: Any, first_seed: int, episodes: int) -> dict[str, Any]:
            result = own(evaluator, first_seed, episodes)
            if first_seed != 10_000:
                return result
            module = evaluator.module
            self.policies.append({n: p.numpy().copy() for n, p in module.state_dict().items()})
            value = self.returns[min(len(self.policies), len(self.returns)) - 1]
            return {**result, "iqm": value, "mean": value, "ci95": [value, value]}

        monkeypatch.setattr(Evaluator, "evaluate", scripted)


def gated(**changes: Any) -> Any:
    pruning = {**GATED, **changes.pop("pruning", {})}
    given = {"pruning": pruning, "stop": STOP, "evaluation": EVALUATION, **changes}
    return experiments.experiment(experiments.PPO, **given)


def test_a_try_that_fails_goes_back_to_the_weights_that_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Iterations of 200: dense holds at 400; 90 % fails at 600; 45 % holds; 69.8 % fails twice.
    script = Scripted(monkeypatch, [9.0, 9.0, 5.0, 9.0, 5.0, 5.0])
    summary = experiments.train(gated(), tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    verdicts = [row["gate"]["verdict"] for row in rows]
    assert verdicts == ["wait", "accept", "roll_back", "accept", "end"]
    assert [round(row["sparsity"], 2) for row in rows] == [0, 0, 0.9, 0.45, 0.7]
    # Iterations may be a step or two longer than was asked for.
    assert [row["env_steps"] // 100 for row in rows] == [2, 4, 6, 8, 10]
    gate = summary["gate"]
    assert (gate["rollbacks"], gate["ended"]) == (2, "the smallest step did not hold")
    assert summary["sparsity"]["prunable"] == pytest.approx(0.45, abs=0.01)
    assert summary["checkpoint"] == f"checkpoints/{rows[3]['env_steps']:09d}"
    # What was validated after the roll-back descends from the dense policy, not from the 90 %.
    dense, bare, again = script.policies[1], script.policies[2], script.policies[3]
    name = max(dense, key=lambda n: dense[n].size)
    assert np.count_nonzero(bare[name]) < 0.2 * bare[name].size
    assert np.count_nonzero(again[name]) > 0.5 * again[name].size
    assert np.abs(again[name] - dense[name])[again[name] != 0].max() < 0.1


def test_the_steps_in_vain_are_counted_and_the_learners_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, [9.0, 9.0, 5.0, 9.0, 9.0, 9.0])
    experiments.train(gated(stop={"env_steps": 1000}), tmp_path / "run")
    newest = checkpoints.latest(tmp_path / "run")
    assert newest is not None
    meta = checkpoints.read_meta(newest)
    assert meta["discarded_env_steps"] == pytest.approx(200, abs=5)
    step = _state(tmp_path / "run")["learner"][STATE_KEY]["step"]
    assert step == meta["env_steps"] - meta["discarded_env_steps"]
    assert meta["updates"] > _state(tmp_path / "run")["learner"][STATE_KEY]["updates"]


def test_a_gate_that_the_dense_policy_never_passes_prunes_nothing(tmp_path: Path) -> None:
    told: list[str] = []

    class Listener(NullReporter):
        def message(self, text: str) -> None:
            told.append(text)

    schedule = {**GATED["schedule"], "reference": 1000.0}
    what = gated(pruning={"schedule": schedule}, stop={"env_steps": 600})
    summary = experiments.train(what, tmp_path / "run", reporter=Listener())
    assert summary["sparsity"]["prunable"] == 0
    assert summary["gate"]["level"] is None
    assert any("never held the floor" in text for text in told)


def test_a_search_goes_on_from_the_sparsity_that_it_starts_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = {"sparsity": 0.5, "schedule": {"kind": "one_shot", "begin": 0, "every": 1}}
    pruned = experiments.experiment(experiments.PPO, pruning=cut, stop={"env_steps": 200})
    experiments.train(pruned, tmp_path / "pruned")
    Scripted(monkeypatch, [9.0, 9.0])
    schedule = {**GATED["schedule"], "begin": 0, "step": 0.5}
    what = gated(
        start_from=str(tmp_path / "pruned"),
        pruning={"schedule": schedule},
        stop={"env_steps": 400},
    )
    summary = experiments.train(what, tmp_path / "run")
    held = [one["sparsity"] for one in summary["gate"]["tries"]]
    assert held == [pytest.approx(0.5, abs=0.01), pytest.approx(0.75, abs=0.01)]
    assert summary["sparsity"]["prunable"] == pytest.approx(0.75, abs=0.01)


def test_at_sparsity_zero_a_gate_is_a_dense_run(tmp_path: Path) -> None:
    what = gated(pruning={"sparsity": 0.0}, stop={"env_steps": 600})
    summary = experiments.train(what, tmp_path / "run")
    assert summary["sparsity"]["prunable"] == 0
    assert "gate" not in summary
    assert summary["env_steps"] >= 600
    assert summary["target_reached"] is True


def test_pruning_begins_at_the_first_validation_that_reaches_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch, [7.0, 9.0, 7.0])
    schedule = {"kind": "linear", "begin": {"return": 8.0}, "end": 400, "every": 1}
    what = gated(
        pruning={"sparsity": 0.8, "schedule": schedule},
        stop={"env_steps": 1200},
    )
    summary = experiments.train(what, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert summary["pruning_began"] == rows[1]["env_steps"]
    # The ramp's clock starts at 400 and takes 400 steps.
    assert [round(row["sparsity"], 1) for row in rows] == [0, 0, 0.4, 0.8, 0.8, 0.8]


def test_without_a_driver_the_training_return_counts() -> None:
    schedule = {"kind": "one_shot", "begin": {"return": 1.0}, "every": 1}
    algo = configs.build(prune(configs.ppo(), configs.pruning(schedule=schedule)))
    try:
        first, second = (algo.train()["rayprune"][DEFAULT_MODULE_ID] for _ in range(2))
        assert first["sparsity"] == 0
        assert second["sparsity"] == pytest.approx(0.8, abs=0.01)
    finally:
        algo.stop()


def test_a_gate_without_a_driver_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a driver"):
        prune(configs.ppo(), configs.pruning(schedule={"kind": "gated"}))


LAWS: dict[str, Mapping[str, Any]] = {
    "iterative": {"schedule": {"kind": "iterative", "begin": 0.1, "end": 0.8, "every": 200}},
    "lottery": {"schedule": {"kind": "lottery", "rounds": 3, "rewind_to": 200}},
    "gated": {**GATED, "sparsity": None, "distillation": {"weight": 0.5}},
    "bounded": {
        "schedule": {"kind": "cubic", "begin": 0.1, "end": 0.4, "every": 200},
        "max_kl": 1e-4,
    },
    "gated and bounded": {**GATED, "sparsity": None, "max_kl": 1e-3},
    "waiting": {"schedule": {"kind": "cubic", "begin": {"return": 8.0}, "end": 0.4, "every": 200}},
}


@pytest.mark.parametrize(
    ("kind", "crash_at"),
    [
        # Its steps are the lottery's without the way back.
        pytest.param("iterative", 500, marks=pytest.mark.slow),
        ("lottery", 900),
        ("gated", 500),
        pytest.param("gated", 700, marks=pytest.mark.slow),  # after a roll-back
        pytest.param("waiting", 700, marks=pytest.mark.slow),
        pytest.param("bounded", 700, marks=pytest.mark.slow),
        pytest.param("gated and bounded", 700, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, crash_at: int
) -> None:
    what = experiments.experiment(
        experiments.PPO,
        pruning={"sparsity": 0.8, **LAWS[kind]},
        stop={"env_steps": 1600},
        evaluation=EVALUATION if "gated" in kind else {"every": 400, "episodes": 3},
    )
    # Which tries hold is decided by the policy itself, the same for the same bits.
    by_weights(monkeypatch)
    whole = experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(crash_at))
    resumed = experiments.train(what, tmp_path / "cut", resume=True)
    pairs = _pairs(_state(tmp_path / "whole"), _state(tmp_path / "cut"))
    assert [path for path, first, second in pairs if not _equal(first, second)] == []
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "cut")
    assert _without_time(whole) == _without_time(resumed)
    if kind == "gated":
        assert whole["gate"]["rollbacks"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shipped_gate_finds_a_sparse_policy_that_holds_and_rolls_back(tmp_path: Path) -> None:
    overrides = ["pruning.schedule.patience=8000", "tracking.wandb=off"]
    what = load_checked("ppo_cartpole_gated", overrides)
    assert what.pruning.sparsity is None
    summary = experiments.train(what, tmp_path / "run")
    assert summary["sparsity"]["prunable"] >= 0.9
    assert summary["returns"]["test"]["iqm"] >= 475
    assert summary["gate"]["rollbacks"] >= 1
    assert summary["gate"]["ended"] is not None
    held = [one["sparsity"] for one in summary["gate"]["tries"] if one["held"]]
    assert held == sorted(held)


def by_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every policy earn 9 that is less than 60 % sparse, and others 5."""
    from rayprune.rllib.evaluation.evaluator import Evaluator

    own = Evaluator.evaluate

    def judged(evaluator: Any, first_seed: int, episodes: int) -> dict[str, Any]:
        result = own(evaluator, first_seed, episodes)
        weights = [p for n, p in evaluator.module.named_parameters() if n.endswith("weight")]
        zeros = sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)
        value = 9.0 if zeros < 0.6 else 5.0
        return {**result, "iqm": value, "mean": value, "ci95": [value, value]}

    monkeypatch.setattr(Evaluator, "evaluate", judged)
