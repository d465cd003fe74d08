"""Times one trial of a sweep for a few seconds, on the resources that the sweep would give it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rayprune.rllib.actors.learners import policy_of
from rayprune.rllib.evaluation.evaluator import AT_ONCE
from rayprune.search.planning.forecast import Calibration
from rayprune.search.planning.placement import Placement
from rayprune.search.sweep_spec import Sweep
from rayprune.search.trials.trial import RAW, PruningTrial
from rayprune.tracking.record import to_json

LEAST_S: Final = 5.0
"""Of training that is timed, after the first iteration, which is slower than the others."""
MOST_S: Final = 60.0
"""Of training in all, whatever has been seen by then."""
WAIT_S: Final = 60.0
"""How long a busy cluster may take to free the resources of one trial."""


class CalibrationTrial(PruningTrial):
    """A trial that times its own parts instead of being a member."""

    def measure(self) -> dict[str, Any]:
        """Train for some seconds, evaluate once, save and restore; return `Calibration`'s fields.

        ``start_s`` is left to the caller, who has waited for it.
        """
        step_s = self._time_training()
        self._evaluator.load(policy_of(self._algorithm))
        evaluation_s, longest_s = self._time_evaluation()
        with tempfile.TemporaryDirectory() as place:
            save_s = _seconds(lambda: self.save_checkpoint(place))
            restore_s = _seconds(lambda: self.load_checkpoint(place))
        return {
            "step_s": step_s,
            "env_steps": self._env_steps,
            "evaluation_s": evaluation_s,
            "longest_evaluation_s": longest_s,
            "save_s": save_s,
            "restore_s": restore_s,
        }

    def _time_training(self) -> float:
        """Return seconds per env step, from when it learns on: at first a buffer is filled."""
        begun, row = time.monotonic(), self._iterate()
        while not row["updates"] and time.monotonic() - begun < MOST_S:
            row = self._iterate()
        timed, steps = 0.0, self._env_steps
        while timed < LEAST_S and (not timed or time.monotonic() - begun < MOST_S):
            timed += _seconds(self._iterate)
        return timed / (self._env_steps - steps)

    def _time_evaluation(self) -> tuple[float, float | None]:
        evaluation, batches = self._experiment.evaluation, 0

        def count(_: object) -> None:
            nonlocal batches
            batches += 1

        seconds = _seconds(
            lambda: self._evaluator.returns(
                evaluation.validation_seed, evaluation.episodes, watch=count
            )
        )
        env = self._evaluator.make_env()
        limit = env.spec.max_episode_steps if env.spec is not None else None
        env.close()
        if limit is None:
            return seconds, None
        waves = -(-evaluation.episodes // AT_ONCE)
        return seconds, seconds / batches * waves * limit


def calibrate(sweep: Sweep, placement: Placement) -> Calibration | None:
    """Time one trial on the cluster that Ray is on.

    Args:
        sweep: whose trial; its first values of the space are taken.
        placement: what the trial reserves.

    Returns:
        None where the cluster has no room for it at the moment.

    Raises:
        RaypruneError: the trial itself failed, as the sweep's would.
    """
    group = placement.factory()()
    try:
        if not group.wait(WAIT_S):
            return None
        return _timed(sweep, group)
    finally:
        remove_placement_group(group)


def _timed(sweep: Sweep, group: Any) -> Calibration:
    first = group.bundle_specs[0]
    strategy = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )
    remote: Any = ray.remote(
        num_cpus=first.get("CPU", 0), num_gpus=first.get("GPU", 0), scheduling_strategy=strategy
    )
    begun = time.monotonic()
    actor = remote(CalibrationTrial).remote(_config(sweep))
    try:
        ray.get(actor.get_auto_filled_metrics.remote())
        start_s = time.monotonic() - begun
        measured = ray.get(actor.measure.remote())
    finally:
        _stop(actor)
    return Calibration(start_s=start_s, **measured)


def _stop(actor: Any) -> None:
    # One that failed can't be asked; what it left goes with its placement group.
    with contextlib.suppress(RayError):
        ray.get(actor.stop.remote(), timeout=10)
    ray.kill(actor)


def _config(sweep: Sweep) -> dict[str, Any]:
    """Return a trial's config: the experiment, with what it holds at the space's keys."""
    raw = {**sweep.raw, "search": sweep.search.model_dump()}
    return {RAW: to_json(raw), **sweep.space.apply({}, sweep.space.read(sweep.raw))}


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
