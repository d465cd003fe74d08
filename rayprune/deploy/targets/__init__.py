"""Targets: where a policy shall act, and what an exported file takes there.

A target is one file here and one line in `TARGETS`; ``command: ...`` is a user's own board.
"""

from __future__ import annotations

import importlib
import shlex
from typing import TYPE_CHECKING, Final

from rayprune.errors import InputError, did_you_mean
from rayprune.pruning.registry import Registry

if TYPE_CHECKING:
    from rayprune.deploy.targets.base import Target

_CORTEX_M: Final = "rayprune.deploy.targets.cortex_m:CortexMTarget"
_LINUX: Final = "rayprune.deploy.targets.linux:LinuxTarget"
TARGETS: Final = Registry[str | type["Target"]](
    "target",
    {
        "host": "rayprune.deploy.targets.host:HostTarget",
        "x86-64": _LINUX,
        "aarch64": _LINUX,
        "cortex-m0": _CORTEX_M,
        "cortex-m3": _CORTEX_M,
        "cortex-m4": _CORTEX_M,
        "cortex-m7": _CORTEX_M,
        "command": "rayprune.deploy.targets.command:CommandTarget",
    },
)
"""Name -> a `Target`, or where it is: ``module:class``, imported when it is used."""


def target_of(text: str) -> Target:
    """Return the target that a text names.

    Args:
        text: a key of `TARGETS`; behind a compiled one's may follow options of its compiler, as in
            ``cortex-m4 -Os``, and behind ``command:`` a program with its arguments.

    Raises:
        InputError: says which there are.
    """
    name, _, options = text.strip().partition(" ")
    if name.partition(":")[0] == "command":
        if ":" not in name:
            raise InputError(
                "`--target command` must be followed by a program: `command: ./measure.sh`."
            )
        return target_class("command")(text.strip())
    kind, given = target_class(name), _split(text, options)
    if given and not kind.takes_options:
        raise InputError(
            f"Target {name!r} takes no compiler options, but {text!r} has {' '.join(given)!r}."
        )
    odd = [one for one in given if not one.startswith("-")]
    if odd:
        raise InputError(
            f"Behind target {name!r} only options of its compiler may follow, such as -Os, but "
            f"{text!r} has {odd[0]!r}."
        )
    return kind(text.strip(), given)


def target_class(name: str) -> type[Target]:
    """Return the class of a key of `TARGETS`.

    Raises:
        InputError: there is none of this name.
    """
    if name not in TARGETS:
        known = sorted(known if known != "command" else "command: ..." for known in TARGETS)
        raise InputError(
            f"`--target` must be one of {known}, but is {name!r}.{did_you_mean(name, TARGETS)}"
        )
    held = TARGETS[name]
    if isinstance(held, str):
        module, _, kind = held.partition(":")
        found: type[Target] = getattr(importlib.import_module(module), kind)
        return found
    return held


def _split(text: str, options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as error:
        raise InputError(f"`--target` {text!r} can't be read: {error}.") from error
