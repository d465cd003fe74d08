"""One member of a population: a Tune Trainable around a pruning algorithm.

A step trains for one interval and measures the policy on the validation seeds. The trial writes
nothing but checkpoints: its rows go to the driver with each result, and the driver keeps the
record (see `rayprune.search.trials.journal`).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ray import tune

from rayprune.config import ExperimentConfig, experiment_faults, import_modules, to_yaml
from rayprune.errors import ConfigError
from rayprune.rllib.actors.learners import policy_of
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.checkpoints.barrier import cross_barrier
from rayprune.rllib.cluster.resources import learner_gpus, resolve_gpus
from rayprune.rllib.diagnostics import Diagnostics
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.export.latency import policy_latency
from rayprune.rllib.learner.extensions.signals import begin_if_reached
from rayprune.rllib.training import rows
from rayprune.rllib.training.failures import build, check_loss
from rayprune.rllib.training.warm_start import start_from
from rayprune.search.objectives import LATENCY, Objectives
from rayprune.search.space import Space
from rayprune.tracking.versions import versions

RAW: Final = "experiment"
"""Key of a trial's config: the sweep's experiment as JSON, its search block too."""

CHECKPOINT: Final = "rayprune"
"""Name of our directory in one of Tune's checkpoints."""


class PruningTrial(tune.Trainable):
    """Trains one interval a step; its config is the experiment and the space's values in it.

    A result holds ``return`` (validation IQM), ``sparsity``, ``flops``, ``parameters``, where it is
    an objective ``latency``, ``env_steps``, ``values`` (of the space's keys), ``rows`` (of the
    record), and where those rows belong: ``token`` names the state after them, ``since`` the
    ``[trial, token]`` of the checkpoint that the trial last went on from (None: from nothing), and
    ``before`` counts its rows since.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Build the algorithm of this trial's values.

        Raises:
            ConfigError: the values make no valid experiment.
        """
        raw = json.loads(config[RAW])
        space = Space.from_dict(raw["search"]["space"])
        self._values = space.read(config)
        self._experiment = experiment_of(raw, space, self._values)
        self._interval = int(raw["search"]["interval"])
        objectives = raw["search"].get("objectives")
        self._timed = bool(objectives) and LATENCY in Objectives.from_dict(objectives).keys
        self._yaml = to_yaml(self._experiment, versions())
        self._env_steps, self._updates, self._iterations, self._wall_time_s = 0, 0, 0, 0.0
        self._since: list[str] | None = None
        self._diagnostics = Diagnostics()
        self._before = 0
        self._state = [str(self.trial_id), ""]
        algorithm_config = resolve_gpus(
            build_config(self._experiment), learner_gpus(self._experiment.rllib)
        )
        self._evaluator = Evaluator(algorithm_config)
        self._algorithm = build(algorithm_config)
        if self._experiment.start_from is not None:
            start_from(
                self._algorithm,
                Path(self._experiment.start_from),
                partly=self._experiment.transfer is not None,
                masks=not self._experiment.pruning.dense,
            )
        cross_barrier(self._algorithm, self._experiment.seed, 0)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial in the same process: far cheaper than a new actor."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one interval and measure.

        Raises:
            NonFiniteError: a loss became NaN or infinite.
        """
        done: list[dict[str, Any]] = []
        until = (self._env_steps // self._interval + 1) * self._interval
        while self._env_steps < until:
            done.append(self._iterate())
        done[-1].update(self._measure())
        self._state = [str(self.trial_id), uuid.uuid4().hex]
        result = {**self._result(done[-1]), "before": self._before, "rows": done}
        self._before += len(done)
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write all that this trial, or a clone of it, needs to go on."""
        meta = {
            "owner": self._state[0],
            "token": self._state[1],
            "env_steps": self._env_steps,
            "updates": self._updates,
            "iteration": self._iterations,
            "wall_time_s": self._wall_time_s,
            "pruning": rows.pruning_meta(self._algorithm),
        }
        checkpoints.save(self._algorithm, Path(checkpoint_dir) / CHECKPOINT, self._yaml, meta)
        without_rows(self._last_result)
        cross_barrier(self._algorithm, self._experiment.seed, self._env_steps)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from an own checkpoint, or from a donor's, with this trial's own config."""
        meta = checkpoints.restore(self._algorithm, Path(checkpoint) / CHECKPOINT)
        self._env_steps, self._iterations = meta["env_steps"], meta["iteration"]
        self._wall_time_s, self._updates = meta["wall_time_s"], meta.get("updates", 0)
        # Saved before the next step, it is still the state that it was.
        self._since = self._state = [meta["owner"], meta["token"]]
        self._before = 0
        cross_barrier(self._algorithm, self._experiment.seed, self._env_steps)

    def cleanup(self) -> None:
        """Stop the algorithm."""
        self._algorithm.stop()
        self._evaluator.close()

    def _iterate(self) -> dict[str, Any]:
        started, before = time.monotonic(), self._updates
        result = self._algorithm.train()
        self._iterations += 1
        self._wall_time_s += time.monotonic() - started
        row = rows.row_of(result, self._iterations, self._wall_time_s, self._experiment)
        self._env_steps, self._updates = row["env_steps"], row["updates"]
        way_out = "Bound `rllib.training.lr` in `search.space` from above."
        check_loss(row, before, self._algorithm, f"env step {self._env_steps}", "", way_out)
        return row

    def _measure(self) -> dict[str, Any]:
        evaluation = self._experiment.evaluation
        self._evaluator.load(policy_of(self._algorithm))
        seed = evaluation.validation_seed
        validation = self._evaluator.evaluate(seed, evaluation.episodes)
        schedule = self._experiment.pruning.schedule
        begin_if_reached(self._algorithm, schedule, validation["iqm"], self._env_steps)
        timed = {LATENCY: policy_latency(self._evaluator, seed)} if self._timed else {}
        return {
            "validation": validation,
            **timed,
            **rows.diagnostics_of(self._algorithm, self._evaluator, seed, self._diagnostics),
        }

    def _result(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what schedulers judge by, and where the step's rows belong."""
        return {
            "return": row["validation"]["iqm"],
            "sparsity": row["sparsity"],
            "flops": row["flops"]["sparse"] if "flops" in row else None,
            "parameters": row["parameters"]["nonzero"],
            **({LATENCY: row[LATENCY]} if self._timed else {}),
            "env_steps": self._env_steps,
            "values": dict(self._values),
            "token": self._state[1],
            "since": self._since,
        }


def without_rows(result: dict[str, Any] | None) -> None:
    """Take the rows out of what Tune keeps with a trial's checkpoint: the driver has them by now.

    Tune (Ray 2.60) holds the last result with each checkpoint that it knows of, and writes all of
    them into its state of the experiment, again and again.
    """
    (result or {}).pop("rows", None)


def experiment_of(
    raw: Mapping[str, Any], space: Space, values: Mapping[str, Any]
) -> ExperimentConfig:
    """Return the experiment that a trial's values make of the sweep's.

    Raises:
        ConfigError: they make no valid one.
    """
    import_modules(raw.get("imports"))
    applied = {**space.apply(raw, values), "search": None}
    faults, experiment = experiment_faults(applied, check_paths=False)
    if experiment is None:
        raise ConfigError(faults)
    return experiment
