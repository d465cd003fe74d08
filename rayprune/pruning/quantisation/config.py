"""`QuantisationConfig`: how many bits weights and activations have, and from when on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rayprune.errors import ConfigError
from rayprune.validation import faults_from

WEIGHTS: Final = (8, 4, 2)
"""Bits that a weight may have."""
ACTIVATIONS: Final = (8, 16)
"""Bits that an activation may have."""

LINES: Final[Mapping[str, str]] = {
    "weights": "bits of a weight, 8, 4 or 2; a step for each output unit (default 8)",
    "activations": "bits of what a layer reads, 8 or 16; null: floating point (default 8)",
    "observations": "bits of what the first layer reads, 8 or 16 (default 16)",
    "start": "when rounding begins: a fraction of the run, or env steps above 1 (default 0.5)",
    "freeze": "when the observed ranges stay as they are, likewise (default 0.75)",
    "follow": "the share of a minibatch in the ranges' running averages (default 0.01)",
    "skip": "glob patterns of layers that stay in floating point (default none)",
}
"""What `rayprune list quantise` says of each key."""


def _weight_bits(value: Any) -> int:
    return _one_of(value, WEIGHTS)


def _activation_bits(value: Any) -> int | None:
    return None if value is None else _one_of(value, ACTIVATIONS, " or null (as they are)")


def _one_of(value: Any, allowed: tuple[int, ...], more: str = "") -> int:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value in allowed:
        return int(value)
    raise ValueError(f"must be one of {list(allowed)} bits{more}, but is {value!r}.")


Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class QuantisationConfig(BaseModel):
    """Fake quantisation of what a policy acts with, trained straight through the rounding.

    Jacob et al. 2018 (arXiv:1712.05877); of policies Krishnan et al. 2019 (arXiv:1910.01055), where
    ``start`` is the quantisation delay.

    Args:
        weights: bits of a weight, 8, 4 or 2: whole multiples, zero among them, of a step that each
            output unit has for itself.
        activations: bits of what a layer reads, 8 or 16, in a range that is observed; None leaves
            it in floating point, and then no integer file can be made of the policy.
        observations: bits of what the first layer reads, which knows but one range for all sensors.
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

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    weights: Annotated[int, BeforeValidator(_weight_bits)] = 8
    activations: Annotated[int | None, BeforeValidator(_activation_bits)] = 8
    observations: Annotated[int | None, BeforeValidator(_activation_bits)] = 16
    start: Time = 0.5
    freeze: Time = 0.75
    follow: Annotated[float, Field(gt=0, le=1)] = 0.01
    skip: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _in_order(self) -> QuantisationConfig:
        alike = (self.start <= 1) == (self.freeze <= 1)
        if alike and self.freeze < self.start:
            raise ValueError(
                f"must freeze ranges after they are observed, but `freeze` is {self.freeze:g} and "
                f"`start` {self.start:g}. Raise `freeze`, or lower `start`."
            )
        return self

    @classmethod
    def from_dict(cls, values: Any) -> QuantisationConfig:
        """Build from a mapping of fields; what it leaves out has its default.

        Raises:
            ConfigError: with every fault.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # A fault between fields has no field of its own.
            faults = [f.replace("`quantise.`", "`quantise`") for f in _faults(error)]
            raise ConfigError(faults) from error

    def to_dict(self) -> dict[str, Any]:
        """Return every field as plain numbers, strings, lists and dicts, fit for JSON or YAML."""
        return self.model_dump(mode="json")

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

    def over(self, horizon: int) -> QuantisationConfig:
        """Return the same with its times in env steps.

        >>> QuantisationConfig().over(1000).freeze
        750.0
        """
        start, freeze = self.times(horizon)
        return self.model_copy(update={"start": _steps(start), "freeze": _steps(freeze)})


def _faults(error: ValidationError) -> list[str]:
    return faults_from(error, QuantisationConfig, prefix="quantise.")


def _in_steps(time: float, horizon: int) -> float:
    return time * horizon if time <= 1 else time


def _steps(time: float) -> float:
    """Return a time that isn't taken for a fraction once more: below 2 it is at once."""
    return time if time == 0 or time > 1 else 2.0
