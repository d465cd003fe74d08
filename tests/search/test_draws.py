"""What each trial of a sweep begins with is drawn by the experiment's seed."""

from __future__ import annotations

from typing import Any

import cloudpickle
import pytest
from ray.tune.experiment import Experiment

from rayprune.search.methods import METHODS, SearchTask
from rayprune.search.objectives import Objectives
from rayprune.search.space import Space

KEYS = {
    "pruning.sparsity": {"uniform": [0.3, 0.95]},
    "pruning.criterion": {"choice": ["l1", "random"]},
    "rllib.training.lr": {"loguniform": [1e-4, 1e-3]},
    "rllib.training.num_epochs": {"randint": [1, 9]},
}
TRIALS = 4


def drawn(method: str, seed: int, *, killed_before: int | None = None) -> list[dict[str, Any]]:
    """Return the values of all trials, as Tune asks for them."""
    space = Space.from_dict(KEYS)
    task = SearchTask(
        fields=None,  # type: ignore[arg-type]  # no method of these asks for them
        space=space,
        objectives=Objectives.from_dict({"return": "max"}),
        interval=100,
        env_steps=400,
        seed=seed,
        synch=False,
        at_once=2,
        on_exploit=lambda row: None,
    )
    values = METHODS[method].drawn(space)
    generator = METHODS[method].searcher(task)
    generator.add_configurations([Experiment("sweep", print, config=values, num_samples=TRIALS)])
    found = []
    for trial in range(TRIALS):
        if trial == killed_before:
            held = cloudpickle.loads(cloudpickle.dumps(generator.get_state()))
            generator = METHODS[method].searcher(task)
            generator.set_state(held)
        found.append(generator.next_trial().config)
    return found


@pytest.mark.parametrize("method", ["random", "asha", "mo_asha", "pbt", "mo_pbt", "pb2"])
def test_the_seed_says_what_the_trials_begin_with(method: str) -> None:
    first = drawn(method, 3)
    assert first == drawn(method, 3) != drawn(method, 4)
    assert len({str(values) for values in first}) == TRIALS


def test_a_driver_that_was_killed_draws_what_it_would_have_drawn() -> None:
    assert drawn("random", 3) == drawn("random", 3, killed_before=2)
