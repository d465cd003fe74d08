"""Targets: where a policy shall act, and what an exported file takes there.

A target is one file here and one line in `TARGETS`; ``command: ...`` is a user's own board.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from rayprune.errors import InputError, did_you_mean
from rayprune.pruning.registry import Registry

if TYPE_CHECKING:
    from rayprune.deploy.targets.base import Target

TARGETS: Final = Registry[str | type["Target"]](
    "target",
    {
        "host": "rayprune.deploy.targets.host:HostTarget",
    },
)
"""Name -> a `Target`, or where it is: ``module:class``, imported when it is used."""


def target_of(text: str) -> Target:
    """Return the target that a text names.

    Args:
        text: a key of `TARGETS`.

    Raises:
        InputError: says which there are.
    """
    name = text.strip()
    if name not in TARGETS:
        raise InputError(
            f"`--target` must be one of {sorted(TARGETS)}, but is {text!r}."
            f"{did_you_mean(name, TARGETS)}"
        )
    held = TARGETS[name]
    if isinstance(held, str):
        module, _, kind = held.partition(":")
        held = getattr(importlib.import_module(module), kind)
    return held(name)
