"""A run is resumed only with the settings that it was begun with; others are refused here."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from rayprune.errors import ConfigError


def require_same(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    place: str,
    own: str,
    *,
    option: str = "",
    alike: Callable[[Any, Any], bool] = operator.eq,
) -> None:
    """Raise ConfigError unless settings are those that something was begun with.

    Args:
        before: its settings.
        now: those asked for.
        place: where the former lie, for people.
        own: what to resume with, such as ``the run's own config``.
        option: what stands before a setting's name.
        alike: whether a value is what it was.

    Raises:
        ConfigError: says of each that differs what it was and what it is.
    """
    faults = [
        f"`{option}{key}` was {before.get(key)!r} in {place!r}, but is {now.get(key)!r}. "
        f"Resume with {own}, or give another directory with --out."
        for key in {**before, **now}
        if not alike(before.get(key), now.get(key))
    ]
    if faults:
        raise ConfigError(faults)
