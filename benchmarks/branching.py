"""Runs that go on from one checkpoint, arm by arm: they differ by what an arm does alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray.rllib.algorithms.algorithm import Algorithm

from benchmarks.commands import ROOT
from rayprune.config import ExperimentConfig, load_experiment
from rayprune.rllib.actors.learners import foreach_learner, policy_of
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.learner.optimizers import forget_state
from rayprune.rllib.training import rows
from rayprune.rllib.training.failures import build
from rayprune.tracking.record import Record, read_rows

MODULE: Final = "default_policy"
RUNS: Final = ROOT / "runs" / "branches"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a run goes on from the checkpoint."""

    prefix: str
    overrides: Sequence[str] = ()
    """As ``--set`` takes them."""
    forgets_moments: bool = False
    """Whether Adam's moments of all weights are zeroed after each mask update."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms of one config file, with the checkpoints that they go on from."""

    config: Path
    begin: int
    """Env steps of the checkpoint."""
    prefixes: Mapping[str, Sequence[str]]
    """Name -> overrides of the run up to the checkpoint, which its arms have, too."""
    rows: Path
    """JSON lines, one a run."""
    validate_every: int | None = None
    """Env steps between validations (greedy, ten episodes), the first at the checkpoint."""

    def experiment(self, overrides: Sequence[str], seed: int) -> ExperimentConfig:
        """Return the config of a run."""
        return load_experiment(self.config, [*overrides, f"seed={seed}"])

    def prefix(self, name: str, seed: int) -> Path:
        """Train to the checkpoint, unless that is done; return where it is."""
        home = RUNS / f"{name}-{seed}"
        if not (home / checkpoints.META_FILE).is_file():
            experiment = self.experiment(self.prefixes[name], seed)
            algorithm = build(build_config(experiment))
            batch = algorithm.config.train_batch_size_per_learner
            steps, iteration, told = 0, 0, None
            while steps < self.begin - batch:
                iteration += 1
                row = rows.row_of(algorithm.train(), iteration, 0.0, experiment)
                steps, told = row["env_steps"], _return_of(row, told)
            meta = {"env_steps": steps, "pruning": rows.pruning_meta(algorithm), "return": told}
            checkpoints.save(algorithm, home, None, meta)
            algorithm.stop()
        return home

    def run(self, arm: Arm, seed: int, until: int) -> dict[str, Any]:
        """Go on from a checkpoint with one arm to so many env steps; return its figures."""
        start = self.prefix(arm.prefix, seed)
        experiment = self.experiment([*self.prefixes[arm.prefix], *arm.overrides], seed)
        algorithm = build(build_config(experiment))
        before = float(checkpoints.restore(algorithm, start)["return"])
        validations = _Validations(algorithm, experiment, self.validate_every, self.begin)
        curve: list[list[Any]] = []
        updates: list[dict[str, Any]] = []
        groups: Mapping[str, float] = {}
        moved: list[float] = []
        while not curve or curve[-1][0] < until:
            row = rows.row_of(algorithm.train(), len(curve) + 1, 0.0, experiment)
            told = _return_of(row, curve[-1][1] if curve else before)
            curve.append([row["env_steps"], told, row["sparsity"]])
            groups = row["groups"]
            updates += row.get("mask_updates", [])
            moved.append(row["learner"]["mean_kl_loss"])
            if arm.forgets_moments and row["mask_churn"] > 0:
                foreach_learner(algorithm, lambda learner: forget_state(learner, MODULE))
            validations.at(row["env_steps"])
        validations.close()
        algorithm.stop()
        came_to = figures(before, curve, updates, moved)
        return {**came_to, "groups": groups, "validations": validations.found}

    def done(self) -> list[dict[str, Any]]:
        """Return the rows that there are."""
        return read_rows(self.rows) if self.rows.is_file() else []

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        with Record.open(self.rows) as record:
            record.append(row)


class _Validations:
    """Greedy returns of a run, on the same ten episodes each time."""

    def __init__(
        self, algorithm: Algorithm, experiment: ExperimentConfig, every: int | None, begin: int
    ) -> None:
        self.found: list[list[float]] = []
        """Env steps and mean return of each."""
        self._algorithm, self._every, self._next = algorithm, every, begin
        self._seed = experiment.evaluation.validation_seed
        self._evaluator = Evaluator(build_config(experiment)) if every else None
        self.at(begin)

    def at(self, env_steps: int) -> None:
        """Validate, if it is time to."""
        if self._evaluator is not None and self._every and env_steps >= self._next:
            self._evaluator.load(policy_of(self._algorithm))
            self.found.append([env_steps, self._evaluator.evaluate(self._seed, 10)["mean"]])
            self._next += self._every

    def close(self) -> None:
        """Close the environments."""
        if self._evaluator is not None:
            self._evaluator.close()


def _return_of(row: Mapping[str, Any], before: float | None) -> float | None:
    """Return an iteration's return; the one before where no episode ended in it."""
    return before if row["return_mean"] is None else row["return_mean"]


def figures(
    before: float,
    curve: Sequence[Sequence[float]],
    updates: Sequence[Mapping[str, Any]],
    moved: Sequence[float],
) -> dict[str, Any]:
    """Return what a run came to.

    Args:
        before: the return at the checkpoint.
        curve: env steps, return and sparsity of each iteration.
        updates: the mask updates.
        moved: KL of PPO's updates, one an iteration.
    """
    # The mean of the last 20 episodes is the old policy's for an iteration or two.
    lowest = min(curve[2:], key=lambda point: point[1])
    told = [update for update in updates if update["pruned"]]
    return {
        "before": before,
        "lowest": lowest[1],
        "lowest_at": lowest[0],
        "sparsity_at_lowest": lowest[2],
        "last": statistics.mean(point[1] for point in curve[-5:]),
        "sparsity": curve[-1][2],
        "kl": [update["kl"] for update in told],
        "value_change": [update["value_change"] for update in told],
        "taken": [update["taken"] for update in told if "taken" in update],
        "ppo_kl": statistics.median(moved),
        "curve": curve,
    }


def spread(values: Sequence[float]) -> str:
    """Return the median, and all of them where they are several.

    >>> spread([3.0, 1.0, 2.0]), spread([5.0])
    ('2 (1, 2, 3)', '5')
    """
    middle = f"{statistics.median(values):.0f}"
    every = ", ".join(f"{value:.0f}" for value in sorted(values))
    return middle if len(values) == 1 else f"{middle} ({every})"


def largest(values: Sequence[float]) -> str:
    """Return median and largest; a dash for none."""
    return f"{statistics.median(values):.4f} ({max(values):.3f})" if values else "-"
