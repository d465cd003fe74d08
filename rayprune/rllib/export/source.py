"""What an exported file says of its source: the checkpoint, and what its inputs mean."""

from __future__ import annotations

import json
import math
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rayprune.deploy.policy.input_facts import few
from rayprune.rllib.connectors.encoding import leaves
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
        "action": "sampled" if sample else "greedy",
    }


def _inputs(space: gym.Space[Any]) -> dict[str, dict[str, Any]]:
    """Return the names and bounds of each observation's elements, by the input's name."""
    told: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves(space):
        inside = ".".join(map(str, path))
        count = math.prod(leaf.shape or ())
        own = getattr(leaf, "names", None)
        plain = [f"{inside or 'obs'}[{i}]" if leaf.shape else inside or "obs" for i in range(count)]
        low, high = _bounds(leaf)
        told[".".join(["obs", *map(str, path)])] = {
            "names": list(map(str, own)) if own is not None and len(own) == count else plain,
            "low": low,
            "high": high,
        }
    return told


def _bounds(space: gym.Space[Any]) -> tuple[Any, Any]:
    """Return the least and the largest value of each element; JSON, infinities None."""
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
        low, high = np.array(0), np.array(1)
    return few(low.astype(np.float64).reshape(-1)), few(high.astype(np.float64).reshape(-1))
