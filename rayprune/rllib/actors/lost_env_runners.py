"""Why EnvRunners were lost: what they leave behind when they end, and when to give up.

RLlib restarts a remote EnvRunner that raises or dies, and goes on; the driver learns only that it
died. An environment that fails at every try would be restarted for ever.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any, Final

import ray
from ray.experimental import internal_kv
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from rayprune.errors import EnvError, RunError

TRIES: Final = 3
"""Failures in a row, without a step sampled by anyone, that end a run."""
PATIENCE_S: Final = 600.0
"""Seconds without a step sampled by anyone that end a run."""
_POLL_S: Final = 0.5
_KEY: Final = "rayprune/lost/"


def report(reason: str) -> None:
    """Leave word, in an EnvRunner that is about to end, of why."""
    actor = ray.get_runtime_context().get_actor_id()
    if actor is None:
        return
    key = _key(actor)
    held = json.loads(internal_kv._internal_kv_get(key) or "[]")
    internal_kv._internal_kv_put(key, json.dumps([*held, reason][-TRIES:]).encode(), overwrite=True)


def wait_for_env_runners(algorithm: Any, lost: LostEnvRunners) -> None:
    """Let IMPALA and APPO wait where every EnvRunner is lost, as RLlib's other algorithms do.

    RLlib 2.60 has the driver's own EnvRunner sample then, which has no environment: ValueError.
    """
    sample = getattr(algorithm, "_sample_and_get_connector_states", None)
    group = algorithm.env_runner_group
    if sample is None or group is None or not group.num_remote_env_runners():
        return

    def sample_or_wait() -> Any:
        if group.num_healthy_remote_workers():
            return sample()
        lost.look(algorithm)  # one iteration lasts until one is back
        time.sleep(_POLL_S)
        return [], [], [], set()  # as where none of them is ready

    algorithm._sample_and_get_connector_states = sample_or_wait


class LostEnvRunners:
    """What a driver hears of its EnvRunners' ends."""

    def __init__(self) -> None:
        self._steps, self._since = -1, 0.0
        self._failures = 0
        self._healthy, self._restarts = math.inf, 0
        self._untold: list[str] = []

    def look(self, algorithm: Algorithm) -> None:
        """Take in what EnvRunners have left behind.

        Raises:
            EnvError: an environment has failed `TRIES` times in a row, without a step between.
            RunError: nothing has been sampled for `PATIENCE_S`.
        """
        group: Any = algorithm.env_runner_group
        if group is None or not group.num_remote_env_runners():
            return
        assert algorithm.metrics is not None
        self._note_progress(int(algorithm.metrics.peek(_STEPS, default=0)))
        healthy, restarts = group.num_healthy_remote_workers(), group.num_remote_worker_restarts()
        if healthy < group.num_remote_env_runners() or restarts != self._restarts:
            reasons = _reasons(group)
            self._failures += len(reasons)
            self._untold += reasons
            if not reasons and healthy < self._healthy:
                self._untold.append(_DIED.format(healthy, group.num_remote_env_runners()))
        self._healthy, self._restarts = healthy, restarts
        self._check(healthy, group.num_remote_env_runners())

    def take(self) -> list[str]:
        """Return the reasons that are new since the last call."""
        told, self._untold = self._untold, []
        return told

    def _note_progress(self, steps: int) -> None:
        if steps != self._steps:
            self._steps, self._since, self._failures = steps, time.monotonic(), 0

    def _check(self, healthy: int, number: int) -> None:
        if self._failures >= TRIES:
            raise EnvError(
                f"{self._untold[-1].rstrip('.')}. This was failure {self._failures} in a row, "
                "without an env step in between."
            )
        if time.monotonic() - self._since > PATIENCE_S:
            raise RunError(
                f"No env step has been sampled for {PATIENCE_S / 60:.0f} minutes; {healthy} of "
                f"{number} EnvRunners are alive. An environment that hangs does that, or one whose "
                "constructor fails. If steps take that long, raise "
                "`rllib.env_runners.sample_timeout_s`."
            )


_STEPS: Final = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
_DIED: Final = "EnvRunners died, {} of {} are left; RLlib restarts what died, and the run goes on."


def _reasons(group: Any) -> list[str]:
    return [
        f"EnvRunner {index}: {reason}"
        for index, actor in group._worker_manager.actors().items()
        for reason in _taken(actor)
    ]


def _taken(actor: Any) -> list[str]:
    key = _key(actor._actor_id.hex())
    held = internal_kv._internal_kv_get(key)
    if not held:
        return []
    internal_kv._internal_kv_del(key)
    return [str(reason) for reason in json.loads(held)]


def _key(actor: str) -> bytes:
    return f"{_KEY}{actor}".encode()
