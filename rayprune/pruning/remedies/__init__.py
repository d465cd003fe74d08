"""Remedies: what keeps reinforcement learning stable while its networks are pruned.

Sparse networks follow their targets' noise more than dense ones do, and a policy that a cut has
changed is no longer the one that filled the replay buffer. Multi-step targets and a buffer of
recent experience are those of RLx2 (Tan et al. 2023, arXiv:2205.15043).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from rayprune.errors import did_you_mean

REMEDIES: Mapping[str, str] = {
    "n_step": "targets of n steps in place of one, from `n_step_from` on (replay algorithms)",
    "n_step_from": "when: a fraction of the run, or env steps above 1; 0 by default",
    "replay_limit": "most env steps in the replay buffer once anything is pruned: the newest",
    "replay_reset": "env steps that the buffer keeps when masks have changed: the newest",
    "rescale": "scale what is left of each weight matrix at a cut, so that its norm stays",
}
"""Key of ``remedies`` -> what it does, in a line."""

REPLAY_KEYS = ("n_step", "replay_limit", "replay_reset")
"""Those that need an algorithm with a replay buffer."""

# RLlib's buffers drop whole episodes, and wait forever for one of n steps if none is left.
LEAST_REPLAY = 100
_LEAST = {"n_step": 2, "replay_limit": LEAST_REPLAY, "replay_reset": LEAST_REPLAY}


def remedy_faults(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of a config's remedies.

    Args:
        prefix: what the field names start with in the messages.
        values: the mapping as it was given.
    """
    field, remedies = f"{prefix}remedies", values.get("remedies", {})
    if not isinstance(remedies, Mapping):
        yield f"`{field}` must be a mapping of {sorted(REMEDIES)}, but is {remedies!r}."
        return
    for key in remedies:
        if key not in REMEDIES:
            hint = did_you_mean(key, REMEDIES) or f" Known are {sorted(REMEDIES)}."
            yield f"`{field}.{key}` is not a known key.{hint}"
    for key, least in (
        ("n_step", 2),
        ("replay_limit", LEAST_REPLAY),
        ("replay_reset", LEAST_REPLAY),
    ):
        value = remedies.get(key)
        if value is not None and (not _is(value, Integral) or value < least):
            yield f"`{field}.{key}` must be an integer of at least {least}, but is {value!r}."
    start = remedies.get("n_step_from", 0)
    if not _is(start, Real) or not 0 <= start < 2**63:
        yield f"`{field}.n_step_from` must be a number of at least 0, but is {start!r}."
    if "n_step_from" in remedies and remedies.get("n_step") is None:
        yield f"`{field}.n_step_from` says when, but `{field}.n_step` is missing. Give it too."
    if not isinstance(remedies.get("rescale", False), bool):
        yield f"`{field}.rescale` must be true or false, but is {remedies['rescale']!r}."


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
