"""What a recipe can't know of a run's inputs: are they readings, and what did its policy see?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

from rayprune.config import experiment_faults
from rayprune.errors import CheckpointError, StorageError
from rayprune.reasons import RAISED
from rayprune.rllib.checkpoints.files import fetch
from rayprune.rllib.connectors.encoding import has_readings
from rayprune.rllib.connectors.filter_state import filter_state
from rayprune.rllib.connectors.pipelines import MAKERS
from rayprune.rllib.environments.environment import guarded_env
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.run_recipe import followed_policy, normalises_unasked

_OBSERVE: Final = MAKERS[0]
_ENV_KEYS: Final = ("algorithm", "env", "env_config", "imports", "normalise", "rllib")
_ANY_RUN: Final = {
    "name": "name",
    "stop": {"env_steps": 1_000_000},
    "pruning": {"sparsity": 0.0},
}
"""What an experiment must have, and an environment doesn't depend on."""


def with_known_inputs(raw: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment that says what of its inputs only environment and checkpoint tell.

    A recipe has readings normalised where the experiment says nothing of them. Choices (FrozenLake)
    and images are none: ``normalise.observations: false``. A policy to go on with, or to learn
    from, may have seen them normalised: ``true``. What a recipe stands for stays explicit, so it
    is written into the experiment.

    Args:
        raw: as the YAML has it; it may be wrong in itself, which its checks will tell.
    """
    followed = followed_policy(raw)
    if followed is not None:
        return _normalised(raw, True) if _saw_normalised(followed) else raw
    if not normalises_unasked(raw) or _observes_by_its_own(raw):
        return raw
    without = _normalised(raw, False)
    space = _observed(without)
    return raw if space is None or has_readings(space) else without


def _normalised(raw: Mapping[str, Any], observations: bool) -> dict[str, Any]:
    return {**raw, "normalise": {**(raw.get("normalise") or {}), "observations": observations}}


def _saw_normalised(policy: str) -> bool:
    """Whether a checkpoint holds statistics of observations."""
    try:
        return filter_state(fetch(policy, module_will_do=True)) is not None
    except (CheckpointError, StorageError):  # the checks meet it again, and tell it
        return False


def _observes_by_its_own(raw: Mapping[str, Any]) -> bool:
    """Whether a user's connector stands before the statistics, and may make readings."""
    blocks = raw.get("rllib")
    runners = blocks.get("env_runners") if isinstance(blocks, Mapping) else None
    return isinstance(runners, Mapping) and runners.get(_OBSERVE) is not None


def _observed(raw: Mapping[str, Any]) -> Any:
    """Return what the environment observes, None where there is a fault in its way."""
    part = {key: raw[key] for key in _ENV_KEYS if key in raw}
    _, experiment = experiment_faults({**_ANY_RUN, **part}, check_paths=False)
    if experiment is None:
        return None
    try:
        with closing(guarded_env(base_config(experiment))) as env:
            return env.observation_space
    except RAISED:  # the checks meet it again, and tell it
        return None
