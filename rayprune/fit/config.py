"""The ``fit`` block of a YAML file, checked, all faults at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from rayprune.deploy.targets import target_of
from rayprune.errors import ConfigError, InputError, shown
from rayprune.fit.budgets import BUDGETS, Budgets
from rayprune.pruning.checks import choice_fault
from rayprune.pruning.granularity import GRANULARITIES
from rayprune.validation import faults_from

PRECISIONS: Final = ("float32", "int8")
LEAST_WIDTH: Final = 4
"""Units of a layer that a share of its width is never below."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _width(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        raise ValueError(
            "must be a share of the widths, above 0 and at most 1, or a list of widths such as "
            f"[64, 32], but is {shown(value)}."
        ) from None


Count = Annotated[int, BeforeValidator(_whole), Field(gt=0)]
Limit = Annotated[str | float | None, SkipValidation]
"""As `Quantity` reads it, which tells what is wrong with it."""
Listed = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""YAML's lists are tuples here."""
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Width = Annotated[
    Annotated[float, Field(gt=0, le=1)] | Annotated[list[Count], Field(min_length=1)],
    WrapValidator(_width),
]


class FitConfig(BaseModel):
    """What a policy may take, and where one is looked for; made by ``FitConfig.from_raw``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    return_: Share = Field(default=0.95, alias="return")
    """The share of the dense policy's return that is certified to be kept."""
    target: str = "host"
    """Where the policy shall act; see `rayprune list targets`."""

    deadline: Limit = None
    p99: Limit = None
    latency: Limit = None
    flash: Limit = None
    ram: Limit = None
    instructions: Limit = None
    parameters: Limit = None
    energy: Limit = None

    widths: Annotated[tuple[Width, ...], Listed, Field(min_length=1)] = (
        1.0,
        0.5,
        0.25,
        0.125,
    )
    """Of the file's hidden layers: shares of all widths, or lists of them."""
    granularities: Annotated[tuple[str, ...], Listed, Field(min_length=1)] = (
        "neuron",
        "weight",
    )
    sparsities: Annotated[tuple[Share, ...], Listed, Field(min_length=1)] = (0.5, 0.75, 0.9)
    """Beside 0: each width is a candidate unpruned, too."""

    precisions: Annotated[tuple[str, ...], Listed, Field(min_length=1)] = ("float32",)
    """Of the exported file, the most welcome first; ``int8`` candidates are trained to be rounded,
    by the file's `quantise` block or its defaults."""

    from_dense: bool = True
    """Whether pruned candidates of the file's own widths begin with the dense reference's weights;
    those of other widths begin anew."""
    trials: Count = 8
    """Candidates that are trained at most."""
    population: Count | None = None
    """Candidates that are trained at once; null: as many as fit."""
    interval: Count | None = None
    """Env steps between two measurements of a trial; null: an eighth of the run."""
    best: bool = False
    """Whether to go on after the first that is good, and hand over the one that uses least."""

    tail_margin: Share | None = None
    """What the mean of the worst quarter of episodes may lose, as a share of the dense policy's;
    null: twice what the mean return may lose."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """One minus the chance that what is handed over has lost more: of all certificates together."""
    episodes: Count = 1000
    """Pairs of episodes that a certificate may take at most."""

    @property
    def budgets(self) -> Budgets:
        """The limits that were given, in their base units."""
        found = {name: b.quantity.value_of(getattr(self, name)) for name, b in BUDGETS.items()}
        return Budgets({name: value for name, value in found.items() if value is not None})

    @classmethod
    def from_raw(cls, raw: object) -> FitConfig:
        """Check a YAML's ``fit`` block.

        Raises:
            ConfigError: with every fault.
        """
        faults, config = fit_faults(raw)
        if config is None:
            raise ConfigError(faults)
        return config


def fit_faults(raw: object) -> tuple[list[str], FitConfig | None]:
    """Return every fault of a ``fit`` block, and its config when there is none.

    >>> fit_faults({"flahs": "16KB", "return": 95, "ram": "4KB"})[0]
    ['`fit.return` must be less than 1.0, but is 95. For 95 % give 0.95.',
    "`fit.flahs` is not a known key. Did you mean 'flash'?"]
    """
    if not isinstance(raw, Mapping):
        return ["`fit` must be a mapping such as {flash: 64KB, deadline: 1ms}."], None
    faults: list[str] = []
    config = None
    try:
        config = FitConfig.model_validate(dict(raw))
    except ValidationError as error:
        told = faults_from(error, FitConfig, prefix="fit.")
        faults += [fault + _percent_hint(fault, raw.get("return")) for fault in told]
    faults += _limit_faults(raw)
    faults += _choice_faults(raw)
    return faults, None if faults else config


def _percent_hint(fault: str, share: object) -> str:
    percent = isinstance(share, (int, float)) and 1 < share < 100
    return f" For {share} % give {share / 100:g}." if percent and "`fit.return`" in fault else ""  # type: ignore[operator]


def _limit_faults(raw: Mapping[Any, Any]) -> Iterator[str]:
    given = {name: raw[name] for name in BUDGETS if raw.get(name) is not None}
    if not given:
        names = ", ".join(f"`fit.{name}`" for name in BUDGETS)
        yield f"`fit` sets no budget: give at least one of {names}, as flash: 64KB or --flash 64KB."
    for name, value in given.items():
        fault = BUDGETS[name].quantity.fault(f"fit.{name}", value)
        if fault is not None:
            yield fault


def _told(sparsity: object) -> str:
    """Return a sparsity as candidates' names have it; see `rayprune.fit.candidates.Candidate`."""
    return f"{100 * sparsity:g}" if isinstance(sparsity, (int, float)) else str(sparsity)


def _choice_faults(raw: Mapping[Any, Any]) -> Iterator[str]:
    named = raw.get("granularities")
    for name in named if isinstance(named, (list, tuple)) else ():
        if isinstance(name, str) and name not in GRANULARITIES:
            yield choice_fault("fit.granularities", name, GRANULARITIES)
    named = raw.get("precisions")
    for name in named if isinstance(named, (list, tuple)) else ():
        if isinstance(name, str) and name not in PRECISIONS:
            yield choice_fault("fit.precisions", name, PRECISIONS)
    target = raw.get("target")
    if isinstance(target, str):
        try:
            target_of(target)
        except InputError as error:
            yield str(error).replace("--target", "fit.target")
    sparsities = raw.get("sparsities")
    if isinstance(sparsities, (list, tuple)) and len({*map(_told, sparsities)}) < len(sparsities):
        yield f"`fit.sparsities` must not hold a value twice, but is {shown(sparsities)}."
