"""What an exported file says of its source: the checkpoint, and what its inputs mean."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rayprune.deploy.policy.element_facts import few
from rayprune.deploy.policy.interface import Array
from rayprune.rllib.connectors.encoding import Path, Space, leaves
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.export.fingerprint import now, portable
from rayprune.tracking.record import to_json
from rayprune.tracking.versions import versions


def source_of(policy: OpenPolicy, *, sample: bool) -> dict[str, Any]:
    """Return what a file says of the policy that it was made of; JSON only.

    Args:
        policy: a checkpoint's.
        sample: whether the file draws its actions.
    """
    saved, config = policy.saved, policy.config
    observation, action = policy.evaluator.spaces[INPUT_ENV_SINGLE_SPACES]
    return {
        "checkpoint": portable(saved.directory),
        "weights_sha256": saved.sha256(),
        "compacted_in_training": bool(saved.origins),
        "algorithm": type(config).__name__.removesuffix("Config"),
        "env": str(config.env),
        "env_config": json.loads(to_json(dict(config.env_config))),
        "versions": versions(),
        "exported": now(),
        "spaces": {"observation": str(observation), "action": str(action)},
        "inputs": _inputs(observation),
        "outputs": _outputs(action),
        "action": "sampled" if sample else "greedy",
    }


def _inputs(space: Space) -> dict[str, dict[str, Any]]:
    """Return the names and bounds of each observation's elements, by the input's name."""
    return {
        ".".join(["obs", *map(str, path)]): _told([(path, leaf)], "obs")
        for path, leaf in leaves(space)
    }


def _outputs(space: Space) -> dict[str, dict[str, Any]]:
    """Return the names and bounds of the action's elements, its parts one behind another."""
    return {"action": _told([*leaves(space)], "action")}


def _told(parts: Sequence[tuple[Path, Space]], name: str) -> dict[str, Any]:
    bounds = [_bounds(leaf) for _, leaf in parts]
    low, high = (np.concatenate([pair[side] for pair in bounds]) for side in (0, 1))
    names = [one for path, leaf in parts for one in _names(path, leaf, name)]
    return {"names": names, "low": few(low), "high": few(high)}


def _names(path: Path, leaf: Space, name: str) -> list[str]:
    inside = ".".join(map(str, path)) or name
    count = math.prod(leaf.shape or ())
    own = getattr(leaf, "names", None)
    if own is not None and len(own) == count:
        return list(map(str, own))
    return [f"{inside}[{i}]" if leaf.shape else inside for i in range(count)]


def _bounds(space: Space) -> tuple[Array, Array]:
    """Return the least and the largest value of each element, shape ``(elements,)``."""
    low: Any
    high: Any
    if isinstance(space, gym.spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, gym.spaces.Discrete):
        low = np.array(int(space.start))
        high = low + int(space.n) - 1
    elif isinstance(space, gym.spaces.MultiDiscrete):
        low = np.asarray(space.start, np.int64)
        high = low + np.asarray(space.nvec, np.int64) - 1
    else:
        count = math.prod(space.shape or ())
        low, high = np.zeros(count), np.ones(count)
    return low.astype(np.float64).reshape(-1), high.astype(np.float64).reshape(-1)
