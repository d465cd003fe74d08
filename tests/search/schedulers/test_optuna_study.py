"""Optuna's samplers as a searcher of Tune's: values, constraints, repeats, and killed drivers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rayprune.errors import ConfigError
from rayprune.search import Objectives, Space

optuna = pytest.importorskip("optuna", reason="the extra `optuna`")

from optuna.trial import TrialState  # noqa: E402

from rayprune.search.schedulers.optuna_study import (  # noqa: E402
    OptunaStudy,
    StudiedTrials,
    distribution_of,
)

SPACE = Space.from_dict(
    {
        "pruning.sparsity": {"uniform": [0.0, 0.9]},
        "pruning.schedule": {"choice": [{"kind": "cubic"}, {"kind": "one_shot"}]},
        "pruning.protect": {"choice": [[], ["pi"]]},
        "pruning.fade": {"choice": [True, 1, None, "no"]},
        "rllib.training.lr": {"loguniform": [1e-4, 1e-2]},
        "rllib.training.num_epochs": {"randint": [1, 9]},
        "env_config.grid": {"quniform": [0.1, 0.5, 0.1]},
    }
)
LEAN = Objectives.from_dict(
    {"return": "max", "flops": "min", "subject_to": {"flops_at_most": 40, "sparsity_at_least": 0.1}}
)


def study(at_once: int = 1, sampler: Any = None, space: Space = SPACE, **objectives: Any) -> Any:
    return OptunaStudy(
        space=space,
        objectives=Objectives.from_dict(objectives) if objectives else LEAN,
        sampler=sampler or optuna.samplers.NSGAIISampler(population_size=4, seed=0),
        at_once=at_once,
    )


def run(study: Any, names: range, worth: Any) -> list[dict[str, Any]]:
    """Let trials run one after the other; return their values."""
    found = []
    for name in names:
        config = study.suggest(str(name))
        study.add(str(name), config)
        found.append(SPACE.read(config))
        study.on_trial_complete(str(name), worth(found[-1]))
    return found


def worth(values: dict[str, Any]) -> dict[str, float]:
    sparsity = values["pruning.sparsity"]
    return {"return": 1 - sparsity**4, "flops": 100 * (1 - sparsity), "sparsity": sparsity}


@pytest.mark.parametrize("kind", ["nsga2", "tpe"])
def test_values_lie_in_the_space_and_follow_the_seed(kind: str) -> None:
    def sampler() -> Any:
        if kind == "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=4, seed=3)
        return optuna.samplers.NSGAIISampler(population_size=4, seed=3)

    found = run(study(sampler=sampler()), range(12), worth)
    assert found == run(study(sampler=sampler()), range(12), worth)
    for values in found:
        assert all(SPACE[key].holds(value) for key, value in values.items())
        assert isinstance(values["rllib.training.num_epochs"], int)
        assert round(values["env_config.grid"] * 10) / 10 == values["env_config.grid"]
    # Nothing is trained twice.
    assert len({repr(values) for values in found}) == 12


def test_what_breaks_a_constraint_is_told_as_that() -> None:
    asked = study(at_once=3)
    for name, flops, sparsity in [
        ("kept", 40, 0.1),
        ("broken", 60, 0.05),
        ("nan", float("nan"), 1),
    ]:
        asked.add(name, asked.suggest(name))
        asked.on_trial_complete(name, {"return": 1.0, "flops": flops, "sparsity": sparsity})
    kept, broken, failed = asked._ot_study.trials
    assert kept.constraints == {"flops <= 40": 0.0, "sparsity >= 0.1": 0.0}
    assert broken.constraints == {"flops <= 40": 0.5, "sparsity >= 0.1": pytest.approx(0.5)}
    assert broken.values == [1.0, 60.0]
    assert failed.state == TrialState.FAIL


def test_no_trial_is_asked_for_before_it_has_a_place() -> None:
    asked = study(at_once=2)
    for name in ("a", "b"):
        asked.add(name, asked.suggest(name))
    assert asked.suggest("c") is None
    asked.on_trial_complete("a", error=True)
    assert asked.suggest("c") is not None


def test_a_space_of_few_values_ends_all_the_same() -> None:
    small = Space.from_dict({"pruning.criterion": {"choice": ["l1"]}})
    asked = study(space=small, **{"return": "max"})
    for name in ("a", "b"):
        config = asked.suggest(name)
        asked.add(name, config)
        asked.on_trial_complete(name, {"return": 1.0})
        assert config == {"pruning": {"criterion": "l1"}}


class Controller:
    """Tune's, as far as `StudiedTrials` looks at it."""

    def __init__(self, asked: Any) -> None:
        self._search_alg = SimpleNamespace(searcher=asked, _counter=0)
        self._trials: list[Any] = []

    def get_trials(self) -> list[Any]:
        return self._trials

    def add(self, name: str, config: Any, status: str = "PENDING", **last_result: Any) -> None:
        finished = status in ("TERMINATED", "ERROR")
        trial = SimpleNamespace(
            trial_id=name,
            config=config,
            status=status,
            last_result=last_result,
            is_finished=lambda: finished,
        )
        self._trials.append(trial)
        StudiedTrials().on_trial_add(self, trial)


def test_study_and_trials_agree_after_a_kill_whichever_was_written_last(tmp_path: Path) -> None:
    before = study(at_once=4)
    configs = {name: before.suggest(name) for name in ("ended", "runs", "lost")}
    before.save(str(tmp_path / "state.pkl"))
    later = study(at_once=4)
    later.restore(str(tmp_path / "state.pkl"))
    controller = Controller(later)
    controller.add("ended", configs["ended"], "TERMINATED", **worth({"pruning.sparsity": 0.5}))
    controller.add("runs", configs["runs"])
    # One that the study was too old to know, of values that it didn't suggest.
    unknown = SPACE.apply({}, {**SPACE.read(configs["runs"]), "pruning.sparsity": 0.25})
    controller.add("unknown", unknown)
    assert controller._search_alg._counter == 3
    controller.add("next", later.suggest("next"))
    assert later.suggest("more") is not None
    later.add("more", configs["lost"])
    assert later.suggest("none") is None  # runs, unknown, next, more
    states = [trial.state for trial in later._ot_study.trials]
    assert states[:3] == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL]
    assert later._ot_study.trials[3].params["pruning.sparsity"] == 0.25
    later.on_trial_complete("unknown", worth({"pruning.sparsity": 0.25}))
    assert later._ot_study.trials[3].state == TrialState.COMPLETE


def test_a_function_is_no_domain_of_optunas() -> None:
    space = Space.from_tune({"a": lambda: 3})
    with pytest.raises(ConfigError, match="must be a range or a choice"):
        distribution_of("a", space["a"])
