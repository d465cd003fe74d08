"""Stopping and resuming equals not stopping, to the bit."""

from __future__ import annotations

import pickle
import shutil
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
from tests.rllib.offline import recordings

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]


class CrashError(Exception):
    """Stands for a process that dies between two checkpoints."""


class CrashAt(NullReporter):
    """Crashes the run once it has passed an env step, or an update."""

    def __init__(self, at: int, clock: str = "env_steps") -> None:
        self._at, self._clock = at, clock

    def iteration(self, row: Mapping[str, Any]) -> None:
        if row[self._clock] >= self._at:
            raise CrashError


def _in_fragments(base: Mapping[str, Any]) -> dict[str, Any]:
    """Four env steps to an update, not one: updates are what these runs take long for."""
    runners = {**base["rllib"]["env_runners"], "rollout_fragment_length": 4}
    return {**base, "rllib": {**base["rllib"], "env_runners": runners}}


def _with_remedies(base: Mapping[str, Any]) -> dict[str, Any]:
    """Minibatches are kept for the next cut, and log-stds are held."""
    remedies = {"hold_deviation": True, "reconstruct": True}
    return {**base, "pruning": {**base["pruning"], "remedies": remedies}}


@pytest.mark.parametrize(
    ("base", "crash_at"),
    [
        (_with_remedies(experiments.PPO), 610),
        (_in_fragments(experiments.DQN), 310),
        (_in_fragments(experiments.SAC), 160),
        pytest.param(
            {**_in_fragments(experiments.SAC), "algorithm": "TQC"}, 160, marks=pytest.mark.slow
        ),
    ],
    ids=["ppo", "dqn", "sac", "tqc"],
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


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["BC", "MARWIL", "CQL", "IQL"])
def test_a_resumed_run_on_recorded_steps_equals_the_uninterrupted_one(
    tmp_path: Path, algorithm: str
) -> None:
    rows = recordings.steps(recordings.env_of(algorithm))
    base = recordings.raw(algorithm, recordings.write(rows, tmp_path / "data"))
    what = experiments.experiment({**base, "evaluation": {"every": 10, "episodes": 2}})
    whole = experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(15, "updates"))
    resumed = experiments.train(what, tmp_path / "cut", resume=True)

    check_same_run(tmp_path / "whole", tmp_path / "cut")
    assert _without_time(whole) == _without_time(resumed)


SHORT: dict[str, Any] = {"stop": {"env_steps": 400}}


@pytest.fixture(scope="module")
def trained(
    ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A run that has come to its end, and its summary."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return out, experiments.train(experiments.experiment(experiments.PPO, **SHORT), out)


@pytest.fixture
def finished(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of it, to be gone on with and damaged."""
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    first, summary = trained
    again, _ = [
        experiments.train(experiments.experiment(experiments.PPO, **SHORT, seed=s), tmp_path / n)
        for n, s in (("b", 3), ("c", 4))
    ]
    assert _without_time(summary) == _without_time(again)
    assert _rows(first) == _rows(tmp_path / "b")
    assert _rows(first) != _rows(tmp_path / "c")


def test_a_finished_run_is_not_trained_again(
    trained: tuple[Path, dict[str, Any]], finished: Path
) -> None:
    what = experiments.experiment(experiments.PPO, **SHORT)
    again = experiments.train(what, finished, resume=True, reporter=CrashAt(0))
    assert again == trained[1]


def test_a_finished_run_goes_on_when_its_stop_is_raised(finished: Path) -> None:
    longer = experiments.experiment(experiments.PPO, stop={"env_steps": 800})
    summary = experiments.train(longer, finished, resume=True)
    assert summary["env_steps"] >= 800
    steps = [row["env_steps"] for row in read_rows(finished / "results.jsonl")]
    assert steps == sorted(set(steps))


def test_another_experiment_is_not_resumed_and_leaves_the_run_as_it_was(finished: Path) -> None:
    before = (finished / "config.yaml").read_text()
    other = experiments.experiment(experiments.PPO, **SHORT, seed=5, pruning={"sparsity": 0.7})
    with pytest.raises(ConfigError) as caught:
        experiments.train(other, finished, resume=True)
    assert "`seed` was 3" in str(caught.value)
    assert "`pruning.sparsity` was 0.8" in str(caught.value)
    assert (finished / "config.yaml").read_text() == before


def test_a_damaged_checkpoint_is_named(finished: Path) -> None:
    newest = latest(finished)
    assert newest is not None
    (newest / "rayprune.json").write_text('{"env_steps": 4')
    longer = experiments.experiment(experiments.PPO, stop={"env_steps": 800})
    with pytest.raises(CheckpointError, match="is damaged"):
        experiments.train(longer, finished, resume=True)


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
