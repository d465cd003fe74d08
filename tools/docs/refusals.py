"""What a config's checks refuse, found by giving each key wrong values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from tools.docs.markdown import plain

PROBES: Final = ("zzz", -1, 0, 1.5, 10**12 + 0.5, True, [], ["zzz"], {}, {"zzz": 1})
"""Values that are wrong for most keys, the likeliest slips first."""


def refusals(key: str, faults: Callable[[Any], Iterable[str]]) -> str:
    """Return what the checks say of a key's wrong values, each once, without the values."""
    found: list[str] = []
    for probe in PROBES:
        for fault in faults(probe):
            # Of the value itself: what its own keys are is told in their rows.
            if fault.startswith(f"`{key}`"):
                said = _constraint(fault[len(key) + 2 :])
                if said and said not in found:
                    found.append(said)
    return "; ".join(found[:3])


def _constraint(fault: str) -> str:
    """Return what a value must be, from a fault after its field's name.

    >>> _constraint(" must be in [0, 1), but is 1.5.")
    'is in [0, 1)'
    """
    said = re.match(
        r":? must (be|have|name) (.*?)(?:, but (?:is|one is|has|names|there is)\b.*|\.)$",
        fault,
        re.S,
    )
    if said is None:
        return ""
    verb = {"be": "is", "have": "has", "name": "names"}[said.group(1)]
    names = re.fullmatch(r"one of \[(.*)\]", said.group(2))
    if names and names.group(1).count(",") > 5:
        return f"{verb} one of the known names"
    return f"{verb} {plain(said.group(2))}"
