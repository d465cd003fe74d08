"""Asks Learners and EnvRunners, remote ones too, what of their work RLlib's own code does."""

from __future__ import annotations

from typing import Any, Final

from ray.rllib.algorithms.algorithm import Algorithm

from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.settings.kept_parts import keep, kept_parts

_PATIENCE_S: Final = 10.0


def kept_everywhere(algorithm: Algorithm) -> dict[str, str]:
    """Return the reasons by part, of this process and of all actors that answer."""
    group: Any = algorithm.env_runner_group
    answers = list(foreach_learner(algorithm, _asked))
    if group is not None and group.num_remote_env_runners():
        answers += group.foreach_env_runner(
            _asked, local_env_runner=False, timeout_seconds=_PATIENCE_S
        )
    for answer in answers:
        for part, reason in answer.items():
            if part not in kept_parts():
                # Its debug line was in an actor's process, where nobody reads it.
                keep(part, reason)
    return kept_parts()


def _asked(_: Any) -> dict[str, str]:
    return kept_parts()
