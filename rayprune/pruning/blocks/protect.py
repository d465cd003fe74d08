"""``protect``: which layers are spared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayprune.pruning.checks import Faults, must


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with it."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        yield must(field, "a list of glob patterns", value)
        return
    for pattern in value:
        if not isinstance(pattern, str):
            yield f"`{field}` must hold strings, but one is {pattern!r}."
