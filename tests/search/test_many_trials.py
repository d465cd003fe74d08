"""What keeps a driver of many trials going: hand-overs side by side, and little that is held."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from rayprune.search import MultiObjectivePBT, Objectives, Space
from rayprune.search.sweep import _environment


class Waiting:
    """A paused trial, and how far it is."""

    status = Trial.PAUSED

    def __init__(self, clock: float) -> None:
        self.clock = clock

    def is_finished(self) -> bool:
        return False


def population(synch: bool, *clocks: float) -> tuple[Any, Any, list[Any]]:
    scheduler: Any = MultiObjectivePBT(
        objectives=Objectives(directions={"return": "max"}),
        space=Space.from_dict({"pruning.sparsity": {"uniform": [0.0, 0.98]}}),
        perturbation_interval=10,
        synch=synch,
    )
    trials: list[Any] = [Waiting(clock) for clock in clocks]
    scheduler._trial_state = {t: SimpleNamespace(last_train_time=t.clock) for t in trials}
    return scheduler, SimpleNamespace(get_trials=lambda: trials, _resetting_trials=set()), trials


@pytest.mark.parametrize("synch", [False, True])
def test_the_next_is_handed_its_actor_while_the_last_behind_is_still_being_reset(
    synch: bool,
) -> None:
    scheduler, controller, trials = population(synch, 4, 2, 2, 6)
    assert scheduler.choose_trial_to_run(controller) is trials[1]
    controller._resetting_trials.add(trials[1])
    assert scheduler.choose_trial_to_run(controller) is trials[2]
    controller._resetting_trials.update(trials)
    assert scheduler.choose_trial_to_run(controller) is None


def test_a_synchronous_round_is_waited_for() -> None:
    scheduler, controller, trials = population(True, 10, 8, 10)
    assert scheduler.choose_trial_to_run(controller) is trials[1]
    trials[1].status = Trial.RUNNING
    assert scheduler.choose_trial_to_run(controller) is None


def test_the_scheduler_holds_no_rows_of_a_trial() -> None:
    scheduler, _, (trial,) = population(False, 0)
    result = {"return": 1.0, "env_steps": 10, "rows": [{"env_steps": 5}, {"env_steps": 10}]}
    state = SimpleNamespace()
    scheduler._save_trial_state(state, 10, result, trial)
    assert state.last_result == {"return": 1.0, "env_steps": 10}
    assert len(result["rows"]) == 2


@pytest.mark.parametrize(("trials", "seconds"), [(8, "0"), (32, "0"), (512, "5.12"), (1000, "10")])
def test_tunes_state_is_written_the_less_often_the_more_trials_there_are(
    trials: int, seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "7")
    with _environment(trials):
        assert os.environ["TUNE_GLOBAL_CHECKPOINT_S"] == seconds
    assert os.environ["TUNE_GLOBAL_CHECKPOINT_S"] == "7"
