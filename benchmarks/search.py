"""Search methods at equal total steps, on a problem whose best front is known in closed form.

    python benchmarks/search.py [--seeds 5] [--out runs/search.jsonl]
    pip install rayprune[bench]    # for Optuna's NSGA-II; without it those rows are left out

No Ray and no network: the methods run in one process, on the decision code that `MultiObjectivePBT`
runs on (`Objectives.tails`, `Space.perturb`). Each (problem, method, seed) appends one row to the
JSONL; a second call runs only what is missing. Ends with a table of the hypervolume as a share of
the best front's, exact, with 95 % bootstrap intervals over the seeds: of the policies that the
trials end with, which is what a sweep hands over, and of everything that was ever seen, which would
take a checkpoint of every trial at every interval.

The problem is a pruned learner in miniature. A trial has a skill k in [0, 1) and a sparsity m, and
returns ``k * (1 - m ** p)``; each step the skill gains ``rate * (1 - k)``. The rate is best at a
learning rate that falls as the skill grows, so no constant one is good throughout and a schedule
has to be found on the way. Pruning is a ratchet (`on_clone: hold`): m never falls. Sparser learners
learn more slowly, and the criterion sets p, where only one of three is good. The best there is: the
best learning rate, dense until the last step, then one cut, which gives the front in closed form.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayprune.search import pareto
from rayprune.search.objectives import Objectives
from rayprune.search.space import Space

POPULATION = 16
STEPS = 60  # of one full trial
INTERVAL = 4  # steps between decisions
TOTAL = POPULATION * STEPS
SPARSEST = 0.98
RATE = 0.06
CRITERIA = {"good": 12.0, "fair": 4.0, "poor": 1.5}
REFERENCE = (0.0, 0.0)
RESAMPLES = 2000

SPACE = Space.from_dict(
    {
        "pruning.sparsity": {"uniform": [0.0, SPARSEST]},
        "pruning.criterion": {"choice": list(CRITERIA)},
        "rllib.training.lr": {"loguniform": [1e-5, 1e-1]},
    }
)
SPREAD = Objectives(directions={"return": "max", "sparsity": "max"})
# With a floor of a fifth of the highest return under what is copied.
FLOORED = Objectives(directions=SPREAD.directions, reference=(0.2, 0.0))
GREEDY = Objectives(directions={"return": "max"})

Config = dict[str, Any]


@dataclass
class Trial:
    """One learner."""

    config: Config
    skill: float = 0.0
    sparsity: float = 0.0

    def step(self) -> None:
        """Learn for one step at this config."""
        self.sparsity = max(self.sparsity, self.config["pruning.sparsity"])
        lr = math.log10(self.config["rllib.training.lr"])
        match = math.exp(-(((lr - best_lr(self.skill)) / 0.5) ** 2))
        self.skill += rate(self.sparsity) * match * (1.0 - self.skill)

    @property
    def result(self) -> dict[str, float]:
        """What the trial is worth, exactly."""
        power = CRITERIA[self.config["pruning.criterion"]]
        return {"return": self.skill * (1.0 - self.sparsity**power), "sparsity": self.sparsity}


def best_lr(skill: float) -> float:
    """Return the decadic logarithm of the learning rate at which a skill grows fastest."""
    return -2.0 - 2.0 * skill


def rate(sparsity: float) -> float:
    """Return the share of what is missing that one step adds, at the best learning rate."""
    return RATE * (1.0 - 0.5 * sparsity)


def best_hypervolume() -> float:
    """Integrate the best front: dense and at the best rate but for the last step, then one cut."""
    before = 1.0 - (1.0 - RATE) ** (STEPS - 1)
    sparsity = np.linspace(0.0, SPARSEST, 200_001)
    skill = before + RATE * (1.0 - 0.5 * sparsity) * (1.0 - before)
    heights = skill * (1.0 - sparsity ** max(CRITERIA.values()))
    # The return only falls along it, so the area under it is what it dominates.
    return float(np.trapezoid(heights, sparsity))


class Seen:
    """What a method came by within its budget, as exact points."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        """At every decision."""
        self.ends: list[tuple[float, float]] = []
        """Of each trial at its end: the policies that it hands over."""

    def add(self, trials: Iterable[Trial], ended: bool) -> None:
        """Add the trials as they are now."""
        points = [(t.result["return"], t.result["sparsity"]) for t in trials]
        self.points += points
        self.ends += points if ended else []


def measured(trial: Trial, noise: float, rng: random.Random) -> dict[str, float]:
    """Return the result as a search sees it: the return with noise on it."""
    result = trial.result
    return {**result, "return": result["return"] + noise * rng.gauss(0.0, 1.0)}


def population_based(objectives: Objectives, rng: random.Random, noise: float) -> Seen:
    """Train a population that copies and explores at each interval."""
    seen = Seen()
    trials = [Trial(SPACE.sample(rng)) for _ in range(POPULATION)]
    for step in range(1, STEPS + 1):
        for trial in trials:
            trial.step()
        if step % INTERVAL:
            continue
        seen.add(trials, ended=step == STEPS)
        results = [measured(trial, noise, rng) for trial in trials]
        best, worst = objectives.tails(results)
        for index in worst if step < STEPS else []:
            donor = trials[rng.choice(best)]
            config = SPACE.perturb(donor.config, rng)
            trials[index] = Trial(config, donor.skill, donor.sparsity)
    return seen


def random_search(rng: random.Random, noise: float) -> Seen:
    """Train full trials of constant configs, drawn at random."""
    del noise  # it measures, but chooses nothing by it
    seen = Seen()
    trials = [Trial(SPACE.sample(rng)) for _ in range(POPULATION)]
    for step in range(1, STEPS + 1):
        for trial in trials:
            trial.step()
        if step % INTERVAL == 0:
            seen.add(trials, ended=step == STEPS)
    return seen


def nsga2(steps: int, population: int, rng: random.Random, noise: float) -> Seen:
    """Train trials of constant configs that Optuna's NSGA-II asks for, of some steps each."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.NSGAIISampler(population_size=population, seed=rng.randrange(2**31))
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    seen = Seen()
    for _ in range(TOTAL // steps):
        asked = study.ask()
        trial = Trial(
            {
                "pruning.sparsity": asked.suggest_float("sparsity", 0.0, SPARSEST),
                "pruning.criterion": asked.suggest_categorical("criterion", list(CRITERIA)),
                "rllib.training.lr": asked.suggest_float("lr", 1e-5, 1e-1, log=True),
            }
        )
        for step in range(1, steps + 1):
            trial.step()
            if step % INTERVAL == 0 or step == steps:
                seen.add([trial], ended=step == steps)
        result = measured(trial, noise, rng)
        study.tell(asked, [result["return"], result["sparsity"]])
    return seen


METHODS: Mapping[str, Callable[[random.Random, float], Seen]] = {
    "mo_pbt": functools.partial(population_based, SPREAD),
    "mo_pbt floored": functools.partial(population_based, FLOORED),
    "pbt": functools.partial(population_based, GREEDY),
    "random": random_search,
    "nsga2 full": functools.partial(nsga2, STEPS, 4),
    "nsga2 half": functools.partial(nsga2, STEPS // 2, 8),
    "nsga2 quarter": functools.partial(nsga2, STEPS // 4, 16),
}
NOISES = {"exact": 0.0, "noisy": 0.03}


def run(problem: str, method: str, seed: int) -> dict[str, Any]:
    """Run one method once; return its row."""
    seen = METHODS[method](random.Random(f"{problem} {seed}"), NOISES[problem])
    best = best_hypervolume()
    return {
        "problem": problem,
        "method": method,
        "seed": seed,
        "steps": TOTAL,
        "seen": pareto.hypervolume(seen.points, REFERENCE) / best,
        "ends": pareto.hypervolume(seen.ends, REFERENCE) / best,
        "best_return": max(point[0] for point in seen.points),
    }


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % percentile-bootstrap interval."""
    array, rng = np.asarray(values), np.random.default_rng(0)
    means = array[rng.integers(len(array), size=(RESAMPLES, len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(array.mean()), float(low), float(high)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows there are; a line that a kill cut short counts for nothing."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the methods by what they hand over at the end, best first."""
    print(f"\nhypervolume as a share of the best front's ({best_hypervolume():.4f}), mean [95 %]")
    for problem in NOISES:
        table = []
        for method in METHODS:
            own = [row for row in rows if (row["problem"], row["method"]) == (problem, method)]
            if own:
                columns = [interval([row[key] for row in own]) for key in ("ends", "seen")]
                table.append((method, len(own), *columns))
        print(f"\n{problem}: {TOTAL} steps each")
        print(f"{'method':15s} {'seeds':>5s}  {'policies at the end':22s} all that was ever seen")
        for method, count, *columns in sorted(table, key=lambda entry: -entry[2][0]):
            shown = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in columns]
            print(f"{method:15s} {count:5d}  {shown[0]:22s} {shown[1]}")


def main() -> int:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/search.jsonl"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["problem"], row["method"], row["seed"]) for row in read(args.out)}
    left_out = set()
    with args.out.open("a", encoding="utf-8") as file:
        for problem in NOISES:
            for seed in range(args.seeds):
                for method in METHODS:
                    if (problem, method, seed) in done or method in left_out:
                        continue
                    try:
                        row = run(problem, method, seed)
                    except ModuleNotFoundError as error:
                        left_out.add(method)
                        print(f"{method} is left out: {error}", file=sys.stderr)
                        continue
                    file.write(json.dumps(row) + "\n")
                    file.flush()
    print_table(read(args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
