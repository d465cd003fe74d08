"""``plasticity``: how often dormant units and effective ranks are measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayprune.pruning.checks import Faults, count, must
from rayprune.pruning.measures.plasticity import WINDOW


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with it; None never measures."""
    if value is None:
        return
    if not isinstance(value, Mapping) or set(value) != {"every"}:
        yield must(field, "{every: optimizer steps} or null", value)
    else:
        yield from count(f"{field}.every", value["every"], least=WINDOW)
