"""Stopping and resuming equals not stopping, to the bit."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayprune.errors import CheckpointError, ConfigError
from rayprune.rllib.checkpoints.files import latest
from rayprune.tracking.record import read_rows
from rayprune.tracking.reporter import NullReporter
from tests.rllib import experiments

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]


class CrashError(Exception):
    """Stands for a process that dies between two checkpoints."""


class CrashAt(NullReporter):
    """Crashes the run once it has passed an env step."""

    def __init__(self, env_steps: int) -> None:
        self._at = env_steps

    def iteration(self, row: Mapping[str, Any]) -> None:
        if row["env_steps"] >= self._at:
            raise CrashError


@pytest.mark.parametrize(
    ("base", "crash_at"),
    [(experiments.PPO, 610), (experiments.DQN, 310), (experiments.SAC, 160)],
    ids=["ppo", "dqn", "sac"],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, base: Mapping[str, Any], crash_at: int
) -> None:
    what = experiments.experiment(base)
    whole = experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(crash_at))
    assert not (tmp_path / "cut" / "summary.json").exists()
    resumed = experiments.train(what, tmp_path / "cut", resume=True)

    check_same_run(tmp_path / "whole", tmp_path / "cut")
    assert _without_time(whole) == _without_time(resumed)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    short = {"stop": {"env_steps": 400}}
    runs = [
        experiments.train(experiments.experiment(experiments.PPO, **short, seed=s), tmp_path / n)
        for n, s in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert _without_time(runs[0]) == _without_time(runs[1])
    assert _rows(tmp_path / "a") == _rows(tmp_path / "b")
    assert _rows(tmp_path / "a") != _rows(tmp_path / "c")


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    what = experiments.experiment(experiments.PPO, stop={"env_steps": 400})
    first = experiments.train(what, tmp_path / "run")
    again = experiments.train(what, tmp_path / "run", resume=True, reporter=CrashAt(0))
    assert again == first


def test_a_finished_run_goes_on_when_its_stop_is_raised(tmp_path: Path) -> None:
    short = experiments.experiment(experiments.PPO, stop={"env_steps": 400})
    experiments.train(short, tmp_path / "run")
    longer = experiments.experiment(experiments.PPO, stop={"env_steps": 800})
    summary = experiments.train(longer, tmp_path / "run", resume=True)
    assert summary["env_steps"] >= 800
    steps = [row["env_steps"] for row in read_rows(tmp_path / "run" / "results.jsonl")]
    assert steps == sorted(set(steps))


def test_another_experiment_is_not_resumed_and_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    what = experiments.experiment(experiments.PPO, stop={"env_steps": 400})
    experiments.train(what, tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    other = experiments.experiment(
        experiments.PPO, stop={"env_steps": 400}, seed=5, pruning={"sparsity": 0.7}
    )
    with pytest.raises(ConfigError) as caught:
        experiments.train(other, tmp_path / "run", resume=True)
    assert "`seed` was 3" in str(caught.value)
    assert "`pruning.sparsity` was 0.8" in str(caught.value)
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    what = experiments.experiment(experiments.PPO, stop={"env_steps": 400})
    experiments.train(what, tmp_path / "run")
    newest = latest(tmp_path / "run")
    assert newest is not None
    (newest / "rayprune.json").write_text('{"env_steps": 4')
    longer = experiments.experiment(experiments.PPO, stop={"env_steps": 800})
    with pytest.raises(CheckpointError, match="is damaged"):
        experiments.train(longer, tmp_path / "run", resume=True)


def check_same_run(one: Path, other: Path) -> None:
    """Assert that two runs ended in the same state, to the bit, and recorded the same rows."""
    differing = [
        path
        for path, first, second in _pairs(_state(one), _state(other))
        if not _equal(first, second)
    ]
    assert differing == []
    assert _rows(one) == _rows(other)


def _state(run: Path) -> dict[str, Any]:
    """Return all that RLlib and rayprune saved of the Learner, but for its timers."""
    newest = latest(run)
    assert newest is not None
    learner = newest / "learner_group" / "learner"
    state = pickle.loads((learner / "state.pkl").read_bytes())
    state.pop("metrics_logger", None)
    weights = pickle.loads(
        (learner / "rl_module" / "default_policy" / "module_state.pkl").read_bytes()
    )
    assert state["optimizer"]
    assert state["rayprune"]["modules"]
    return {"learner": state, "weights": weights, "name": newest.name}


def _pairs(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in first.keys() | second.keys():
            yield from _pairs(first.get(key), second.get(key), f"{path}/{key}")
    elif isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            yield path, first, second
        for i, (a, b) in enumerate(zip(first, second, strict=False)):
            yield from _pairs(a, b, f"{path}/{i}")
    else:
        yield path, first, second


def _equal(first: Any, second: Any) -> bool:
    if hasattr(first, "shape") or hasattr(second, "shape"):
        return np.array_equal(np.asarray(first), np.asarray(second))
    return bool(first == second)


def _rows(run: Path) -> list[dict[str, Any]]:
    return [_without_time(row) for row in read_rows(run / "results.jsonl")]


def _without_time(row: Mapping[str, Any]) -> dict[str, Any]:
    timed = {"time_s", "wall_time_s", "learner"}
    return {key: value for key, value in row.items() if key not in timed}
