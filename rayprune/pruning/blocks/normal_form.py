"""The form in which a config keeps its fields: Python's numbers, no aliases, whole blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayprune.pruning.blocks import distillation, evidence, groups
from rayprune.pruning.granularity import granularity_of
from rayprune.pruning.schedules import complete


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn numbers of any kind into Python's, resolve aliases, fill the schedule up."""
    filled = {
        name: _floats(_plain(value)) if name in _FLOATS else _plain(value)
        for name, value in values.items()
    }
    if "granularity" in filled:
        filled["granularity"] = granularity_of(filled["granularity"]).name
    if "schedule" in filled:
        filled["schedule"] = complete(filled["schedule"])
    if "groups" in filled:
        named = filled["groups"].items()
        filled["groups"] = {name: groups.completed(block) for name, block in named}
    if "evidence" in filled:
        filled["evidence"] = {**evidence.DEFAULTS, **filled["evidence"]}
    if filled.get("distillation") is not None:
        filled["distillation"] = {**distillation.DEFAULTS, **filled["distillation"]}
    return filled


def _floats(value: Any) -> Any:
    """Turn numbers into floats, those of a mapping too; leave what is no number."""
    if isinstance(value, Mapping):
        return {key: float(item) for key, item in value.items()}
    return value if value is None or isinstance(value, str) else float(value)


_FLOATS = frozenset({"sparsity", "hybrid", "distribution"})
"""Fields that hold floats, whichever kind of number they were given."""


def as_json(value: Any) -> Any:
    """Return a field as JSON and YAML hold it: tuples as lists, mappings as dicts."""
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    """Turn NumPy scalars, which Tune samples, into Python numbers, at any depth."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value.item() if hasattr(value, "item") else value
