"""`QuantisationConfig`: how many bits weights and activations have, and from when on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rayprune.errors import ConfigError, shown, unknown_key
from rayprune.pruning.checks import Faults, is_finite, is_number

WEIGHTS: Final = (8, 4, 2)
"""Bits that a weight may have."""
ACTIVATIONS: Final = (8, 16)
"""Bits that an activation may have."""

LINES: Final[Mapping[str, str]] = {
    "weights": "bits of a weight, 8, 4 or 2; a step for each output unit (default 8)",
    "activations": "bits of what a layer reads, 8 or 16; null: floating point (default 8)",
    "observations": "bits of what the first layer reads, likewise (default 16)",
    "start": "when rounding begins: a fraction of the run, or env steps above 1 (default 0.5)",
    "freeze": "when the observed ranges stay as they are, likewise (default 0.75)",
    "follow": "the share of a minibatch in the ranges' running averages (default 0.01)",
    "skip": "glob patterns of layers that stay in floating point (default none)",
}
"""What `rayprune list quantise` says of each key."""


@dataclass(frozen=True, kw_only=True)
class QuantisationConfig:
    """Fake quantisation of what a policy acts with, trained straight through the rounding.

    Jacob et al. 2018 (arXiv:1712.05877); of policies Krishnan et al. 2019 (arXiv:1910.01055), where
    ``start`` is the quantisation delay.

    Args:
        weights: bits of a weight, 8, 4 or 2: whole multiples, zero among them, of a step that each
            output unit has for itself.
        activations: bits of what a layer reads, 8 or 16, in a range that is observed; None leaves
            it in floating point, and then no integer file can be made of the policy.
        observations: bits of what the first layer reads, which knows but one range for all sensors;
            None likewise. Of no meaning where ``activations`` is None.
        start: when rounding begins: up to 1 a fraction of the run, above it env steps.
        freeze: from when on the observed ranges stay as they are; not before ``start``.
        follow: the share of a minibatch's range in the running average of them, in (0, 1].
        skip: glob patterns of the names of layers that stay in floating point. Layers that can't
            be quantised (recurrent ones, attention) have to be named.

    Raises:
        ConfigError: one or more values are wrong; holds every fault.

    >>> QuantisationConfig(weights=4, start=0.25).times(1000)
    (250.0, 750.0)
    """

    weights: int = 8
    activations: int | None = 8
    observations: int | None = 16
    start: float = 0.5
    freeze: float = 0.75
    follow: float = 0.01
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = faults_of(vars(self))
        if faults:
            raise ConfigError(faults)
        for name, kept in _KEPT_AS.items():
            object.__setattr__(self, name, kept(getattr(self, name)))

    @classmethod
    def from_dict(cls, values: Any) -> QuantisationConfig:
        """Build from a mapping of fields; what it leaves out has its default.

        Raises:
            ConfigError: with every fault.
        """
        faults = faults_of(values)
        if faults:
            raise ConfigError(faults)
        return cls(**values)

    @classmethod
    def parse(cls, values: object) -> tuple[list[str], QuantisationConfig | None]:
        """Return every fault of a block, and the config where there is none; None is no block."""
        faults = [] if values is None else faults_of(values)
        return faults, cls(**values) if isinstance(values, Mapping) and not faults else None

    def to_dict(self) -> dict[str, Any]:
        """Return every field as plain numbers, strings, lists and dicts, fit for JSON or YAML."""
        return {**vars(self), "skip": list(self.skip)}

    @property
    def fractions(self) -> dict[str, float]:
        """What of it is a fraction of the run, by its key."""
        held = {"start": self.start, "freeze": self.freeze}
        return {key: time for key, time in held.items() if 0 < time <= 1}

    def times(self, horizon: int) -> tuple[float, float]:
        """Return ``start`` and ``freeze`` in env steps.

        Args:
            horizon: env steps of the whole run.
        """
        return _in_steps(self.start, horizon), _in_steps(self.freeze, horizon)

    def faults_over(self, horizon: int) -> list[str]:
        """Return what is wrong with the times in a run of so many env steps.

        >>> QuantisationConfig(start=5000, freeze=9000).faults_over(1000)[0][:67]
        '`quantise.start` must lie before the end of the run, at 1,000, but '
        """
        start, freeze = self.times(horizon)
        if start >= horizon:
            return [
                f"`quantise.start` must lie before the end of the run, at {horizon:,}, but is "
                f"{start:,.0f}: nothing would ever be rounded. Lower it, or leave `quantise` out."
            ]
        if freeze < start:
            return [
                f"`quantise.freeze` must not lie before `quantise.start` ({start:,.0f}), but is "
                f"{freeze:,.0f}: ranges would stay unobserved. Raise it, or lower `start`."
            ]
        return []

    def over(self, horizon: int) -> QuantisationConfig:
        """Return the same with its times in env steps.

        >>> QuantisationConfig().over(1000).freeze
        750.0
        """
        start, freeze = self.times(horizon)
        dated = copy.copy(self)  # nothing is checked anew
        vars(dated).update(start=_steps(start), freeze=_steps(freeze))
        return dated


def faults_of(values: object) -> list[str]:
    """Return every fault of a mapping of a `QuantisationConfig`'s fields.

    >>> faults_of({"weights": 7})
    ['`quantise.weights` must be one of [8, 4, 2] bits, but is 7.']
    """
    if not isinstance(values, Mapping):
        return [f"`quantise` must be a mapping, but is {shown(values)}."]
    names = [each.name for each in dataclasses.fields(QuantisationConfig)]
    found = [
        fault
        for name in names
        if name in values
        for fault in _CHECKS[name](f"quantise.{name}", values[name])
    ]
    found += [unknown_key(f"quantise.{key}", names, key) for key in values if key not in names]
    return found or list(_order_faults(**{"start": 0.5, "freeze": 0.75, **values}))


def _bits(allowed: tuple[int, ...], *, or_null: bool = False) -> _Check:
    def check(field: str, value: Any) -> Faults:
        if or_null and value is None:
            return
        if not (is_number(value) and value in allowed):
            more = " or null (as they are)" if or_null else ""
            yield f"`{field}` must be one of {list(allowed)} bits{more}, but is {value!r}."

    return check


def _finite(field: str, value: Any) -> Faults:
    if not (is_number(value) or isinstance(value, float)):
        yield f"`{field}` must be a number, but is {shown(value)}."
    elif not is_finite(value):
        yield f"`{field}` must be a finite number, but is {shown(value)}."


def _time(field: str, value: Any) -> Faults:
    faults = list(_finite(field, value))
    yield from faults
    if not faults and value < 0:
        yield f"`{field}` must be at least 0.0, but is {shown(value)}."


def _share(field: str, value: Any) -> Faults:
    faults = list(_finite(field, value))
    yield from faults
    if not faults and value <= 0:
        yield f"`{field}` must be greater than 0.0, but is {shown(value)}."
    if not faults and value > 1:
        yield f"`{field}` must be at most 1.0, but is {shown(value)}."


def _patterns(field: str, value: Any) -> Faults:
    if not isinstance(value, (list, tuple)):
        yield f"`{field}` must be a list, but is {shown(value)}."
        return
    for place, item in enumerate(value):
        if not isinstance(item, str):
            yield f"`{field}.{place}` must be text, but is {shown(item)}."


def _order_faults(start: float, freeze: float, **_: Any) -> Faults:
    if (start <= 1) == (freeze <= 1) and freeze < start:
        yield (
            f"`quantise` must freeze ranges after they are observed, but `freeze` is {freeze:g} "
            f"and `start` {start:g}. Raise `freeze`, or lower `start`."
        )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


_Check = Callable[[str, Any], Faults]
_CHECKS: Mapping[str, _Check] = {
    "weights": _bits(WEIGHTS),
    "activations": _bits(ACTIVATIONS, or_null=True),
    "observations": _bits(ACTIVATIONS, or_null=True),
    "start": _time,
    "freeze": _time,
    "follow": _share,
    "skip": _patterns,
}
_KEPT_AS: Mapping[str, Callable[[Any], Any]] = {
    "weights": _whole,
    "activations": _whole,
    "observations": _whole,
    "start": float,
    "freeze": float,
    "follow": float,
    "skip": tuple,
}


def _in_steps(time: float, horizon: int) -> float:
    return time * horizon if time <= 1 else time


def _steps(time: float) -> float:
    """Return a time that isn't taken for a fraction once more: below 2 it is at once."""
    return time if time == 0 or time > 1 else 2.0
