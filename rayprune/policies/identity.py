"""Who a policy is: the hash of its weights, what a file says of it and calls its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from rayprune.policies.spaces import Space, action_facts, observation_facts
from rayprune.storage.copies import shown
from rayprune.tracking.record import to_json
from rayprune.tracking.versions import versions


def now() -> str:
    """Return the time, UTC, to the second.

    >>> now()[-6:], len(now())
    ('+00:00', 25)
    """
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def facts_of(
    spaces: tuple[Space, Space],
    env: str | None,
    env_config: Mapping[str, Any],
    *,
    sample: bool,
) -> dict[str, Any]:
    """Return what a file says of any policy that it was made of; JSON only.

    Args:
        spaces: of observations and of actions.
        env: the environment, where one is known.
        env_config: its keywords.
        sample: whether the file draws its actions.
    """
    observation, action = spaces
    return {
        "env": env,
        "env_config": json.loads(to_json(dict(env_config))),
        "versions": versions(),
        "exported": now(),
        "spaces": {"observation": str(observation), "action": str(action)},
        "inputs": observation_facts(observation),
        "outputs": action_facts(action),
        "action": "sampled" if sample else "greedy",
    }


def portable(path: Path) -> str:
    """Return what a file may call a place: a URL, or a path that tells nothing of this machine."""
    told = shown(path)
    if not Path(told).is_absolute():
        return told
    whole = Path(told)
    if whole.is_relative_to(Path.cwd()):
        return str(whole.relative_to(Path.cwd()))
    # A run's checkpoints are known by the run's name.
    return str(Path(*whole.parts[-3:])) if whole.parent.name == "checkpoints" else whole.name


def weights_sha256(weights: Mapping[str, Any]) -> str:
    """Return the SHA-256 of weights: names and bits, in order of names."""
    digest = hashlib.sha256()
    for name, values in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
