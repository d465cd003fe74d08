"""MO-ASHA: by hand, against a slow loop of the paper's rule, and under a real Tune."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune
from ray.tune import RunConfig, TuneConfig, Tuner

from rayprune.errors import ConfigError
from rayprune.search import MultiObjectiveASHA, Objectives
from tests.doubles.climbers import Climber, Rows, read

BOTH = {"return": "max", "sparsity": "max"}


class Population:
    """Trials that report to a scheduler in a given order."""

    def __init__(self, **options: Any) -> None:
        self.options = {"objectives": BOTH, "max_t": 100, "reduction_factor": 2, **options}
        self.scheduler = MultiObjectiveASHA(**self.options)
        self.trials: dict[str, Any] = {}

    def report(self, name: str, clock: float, **scores: Any) -> str:
        trial = self.trials.setdefault(
            name, SimpleNamespace(trial_id=name, run_metadata=SimpleNamespace())
        )
        result = {"training_iteration": clock, **scores}
        return self.scheduler.on_trial_result(None, trial, result)

    def restored(self) -> Population:
        """Return what a later driver has of it: metadata that went through JSON."""
        later = Population(**self.options)
        for name, trial in self.trials.items():
            held = json.loads(json.dumps(vars(trial.run_metadata)))
            later.trials[name] = SimpleNamespace(
                trial_id=name, run_metadata=SimpleNamespace(**held)
            )
            later.scheduler.on_trial_add(None, later.trials[name])
        return later


def test_a_rung_by_hand() -> None:
    population = Population()
    told = [
        population.report(name, 1, **{"return": value, "sparsity": sparsity})
        for name, value, sparsity in [
            ("first", 5.0, 0.5),  # alone: it goes on
            ("worse", 4.0, 0.4),  # one of two goes on, and the first dominates it
            ("sparse", 1.0, 0.9),  # one of three: the front is first and sparse, return comes first
            ("best", 6.0, 0.95),  # two of four: it dominates all
            ("nan", math.nan, 0.99),
        ]
    ]
    assert told == ["CONTINUE", "STOP", "STOP", "CONTINUE", "STOP"]
    # Between rungs nobody is judged; at the end all stop.
    assert population.report("first", 1.5, **{"return": 0.0, "sparsity": 0.0}) == "CONTINUE"
    assert population.report("best", 100, **{"return": 0.0, "sparsity": 0.0}) == "STOP"


def test_a_step_over_several_rungs_is_judged_at_the_last_and_counts_at_all() -> None:
    population = Population()
    assert population.report("far", 5, **{"return": 1.0, "sparsity": 0.5}) == "CONTINUE"
    assert population.report("late", 1, **{"return": 0.0, "sparsity": 0.4}) == "STOP"


def test_constraints_come_before_objectives() -> None:
    bound = {"sparsity": "max", "subject_to": {"flops_at_most": 10}}
    population = Population(objectives=Objectives.from_dict(bound))
    assert population.report("kept", 1, sparsity=0.1, flops=9) == "CONTINUE"
    assert population.report("broken", 1, sparsity=0.9, flops=11) == "STOP"


REPORTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30
)


@settings(max_examples=40, deadline=None)
@given(REPORTS, st.integers(2, 3), st.data())
def test_each_decision_is_the_papers_also_after_a_restore(
    reports: list[tuple[int, int, int]], factor: int, data: st.DataObject
) -> None:
    population = Population(max_t=9, reduction_factor=factor)
    kill = data.draw(st.integers(0, len(reports)))
    rungs: dict[int, dict[int, tuple[int, int]]] = {}
    clocks: dict[int, int] = {}
    stopped: set[int] = set()
    for number, (trial, first, second) in enumerate(reports):
        if number == kill:
            population = population.restored()
        if trial in stopped:
            continue
        clock = clocks[trial] = clocks.get(trial, 0) + 1
        told = population.report(str(trial), clock, **{"return": first, "sparsity": second})
        wanted = clock < 9
        if wanted and clock in {factor**k for k in range(4)}:
            members = rungs.setdefault(clock, {})
            members[trial] = (first, second)
            order = farthest_first_by_front(list(members.values()))
            place = order.index(list(members).index(trial))
            wanted = place < max(1, len(members) // factor)
        assert (told == "CONTINUE") == wanted
        stopped |= set() if wanted else {trial}


def farthest_first_by_front(points: list[tuple[int, int]]) -> list[int]:
    """Order points as the paper does, slowly: peel fronts, spread inside each."""

    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a != b and a[0] >= b[0] and a[1] >= b[1]

    spans = [max(p[i] for p in points) - min(p[i] for p in points) or 1 for i in (0, 1)]

    def apart(a: int, b: int) -> float:
        return sum(((points[a][i] - points[b][i]) / spans[i]) ** 2 for i in (0, 1))

    order: list[int] = []
    left = set(range(len(points)))
    while left:
        front = sorted(i for i in left if not any(beats(points[j], points[i]) for j in left))
        left -= set(front)
        for objective in (0, 1) if not order else ():
            # The best of each objective; of equals the better one in the other, then the first.
            best = max(front, key=lambda i: (points[i][objective], points[i][1 - objective], -i))
            order += [best] if best not in order else []
        while rest := [i for i in front if i not in order]:
            order.append(max(rest, key=lambda i: (min(apart(i, j) for j in order), -i)))
    return order


def test_one_that_was_told_to_stop_before_the_driver_died_stops() -> None:
    population = Population()
    population.report("good", 1, **{"return": 2.0, "sparsity": 0.5})
    assert population.report("bad", 1, **{"return": 1.0, "sparsity": 0.5}) == "STOP"
    later = population.restored()
    assert later.report("bad", 2, **{"return": 9.0, "sparsity": 0.9}) == "STOP"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"grace_period": 101}, "`grace_period` must lie in"),
        ({"reduction_factor": 1}, "`reduction_factor` must be at least 2"),
        ({"objectives": {"return": "maximise"}}, "maximise"),
    ],
)
def test_faults_show_at_construction(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        Population(**options)


def test_an_objective_that_is_never_reported_is_refused_and_a_late_one_waited_for() -> None:
    with pytest.raises(ConfigError, match=r"'return' is in no result\. Did you mean 'retrun'"):
        Population().report("a", 1, retrun=1.0, sparsity=0.5)
    with pytest.raises(ConfigError, match="`time_attr` 'steps'"):
        Population(time_attr="steps").report("a", 1)
    population = Population(require_attrs=False)
    assert population.report("a", 1, sparsity=0.5) == "CONTINUE"
    assert population.report("b", 1, **{"return": 1.0, "sparsity": 0.5}) == "CONTINUE"
    # What was missed at the rung is judged by the next result.
    assert population.report("a", 1.5, **{"return": 0.0, "sparsity": 0.5}) == "STOP"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_tune_brings_the_rungs_back(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    trainable = tune.with_resources(Climber, {"cpu": 2.0})
    space = {"sparsity": tune.grid_search([0.1, 0.3, 0.5, 0.7, 0.9, 0.95])}
    tuner = Tuner(
        trainable,
        param_space={"pruning": space, "log": str(tmp_path / "log.jsonl")},
        tune_config=TuneConfig(
            scheduler=MultiObjectiveASHA(
                objectives={"sparsity": "min"}, max_t=9, reduction_factor=2
            ),
            reuse_actors=True,
            trial_name_creator=str,
        ),
        run_config=RunConfig(
            name="sweep",
            storage_path=str(tmp_path),
            stop={"training_iteration": 9},
            verbose=0,
            callbacks=[Rows(tmp_path / "rows.jsonl", crash_after=12)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
        ),
    )
    with pytest.raises(Exception, match="the driver is gone"):
        tuner.fit()
    results = Tuner.restore(
        str(tmp_path / "sweep"), trainable, resume_unfinished=True, resume_errored=True
    ).fit()
    assert not results.errors
    ends = {row["trial"]: row for row in read(tmp_path / "rows.jsonl")}.values()
    reached = {row["sparsity"]: row["training_iteration"] for row in ends}
    # The densest came first and is the best, before the driver was gone and after it.
    assert reached[0.1] == 9
    # One that Tune had not yet ended when it was killed trains on to its next result.
    assert all(reached[s] in (1, 2) for s in (0.5, 0.7, 0.9, 0.95))
