"""Bounds on what is measured of a trial: the constraints of a search beside that on the return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rayprune.errors import shown
from rayprune.pruning.checks import is_finite

AT_LEAST: Final = "_at_least"
AT_MOST: Final = "_at_most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A value that a measurement must not fall below, or not exceed.

    >>> lean = Bound(key="flops", at_least=False, value=1000.0)
    >>> lean.holds({"flops": 1000}), lean.violation({"flops": 1500})
    (True, 0.5)
    """

    key: str
    at_least: bool
    value: float

    @property
    def direction(self) -> str:
        """Which way a result comes nearer to keeping it: ``max`` or ``min``."""
        return "max" if self.at_least else "min"

    @property
    def text(self) -> str:
        """Return ``flops <= 1000``."""
        return f"{self.key} {'>=' if self.at_least else '<='} {self.value:g}"

    def holds(self, result: Mapping[str, Any]) -> bool:
        """Whether a measured result keeps to it."""
        found = float(result[self.key])
        return found >= self.value if self.at_least else found <= self.value

    def violation(self, result: Mapping[str, Any]) -> float:
        """Return how far a measured result is beyond it, as a share of the bound; 0 if it isn't.

        So a tenth too little return weighs as much as a tenth too many FLOPs. A bound of zero has
        no share: there it is the distance itself.
        """
        beyond = self.value - float(result[self.key])
        return max(beyond if self.at_least else -beyond, 0.0) / (abs(self.value) or 1.0)


def bound_keys(names: Sequence[str]) -> list[str]:
    """Return the keys that bound these measurements in a YAML."""
    return [name + end for name in names for end in (AT_LEAST, AT_MOST)]


def bound_of(key: str, value: float) -> Bound:
    """Return the bound of a faultless entry, such as ``flops_at_most: 1000``."""
    at_least = key.endswith(AT_LEAST)
    end = AT_LEAST if at_least else AT_MOST
    return Bound(key=key.removesuffix(end), at_least=at_least, value=float(value))


def bound_faults(
    values: Mapping[str, Any], directions: Mapping[Any, Any], names: Sequence[str], prefix: str
) -> list[str]:
    """Return every fault of the bounds in a ``subject_to`` block.

    Args:
        values: the block; keys that are no bounds of these measurements are passed over.
        directions: the objectives beside it: name -> ``max`` or ``min``.
        names: what may be bounded.
        prefix: of the block.
    """
    given = {key: values[key] for key in bound_keys(names) if key in values}
    faults = [fault for key, value in given.items() for fault in _value_faults(key, value, prefix)]
    if faults:
        return faults
    bounds = {key: bound_of(key, value) for key, value in given.items()}
    for key, bound in bounds.items():
        wanted = directions.get(bound.key)
        if wanted in ("max", "min") and wanted != bound.direction:
            faults.append(
                f"`{prefix}.{key}` contradicts `{bound.key}: {wanted}`: the best would be cut off. "
                f"Drop one of them, or bound `search.space`."
            )
    for name in names:
        low, high = bounds.get(name + AT_LEAST), bounds.get(name + AT_MOST)
        if low is not None and high is not None and low.value > high.value:
            faults.append(
                f"`{prefix}.{name}{AT_LEAST}` must not exceed `{name}{AT_MOST}` "
                f"({shown(high.value)}), but is {shown(low.value)}."
            )
    return faults


def _value_faults(key: str, value: object, prefix: str) -> list[str]:
    highest = 1.0 if key.startswith("sparsity") else None
    if is_finite(value) and value >= 0 and (highest is None or value <= highest):  # type: ignore[operator]
        return []
    wanted = "a number of at least 0" if highest is None else "a sparsity in [0, 1]"
    return [f"`{prefix}.{key}` must be {wanted}, but is {shown(value)}."]
