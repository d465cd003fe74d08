"""Domains of a search space: ranges and choices, from YAML and from ``ray.tune``.

Pure Python; ``ray.tune`` is imported only where its domains are made or read.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rayprune.errors import shown
from rayprune.pruning.checks import choice_fault, is_finite

RESAMPLE: Final = 0.25
FACTORS: Final = (0.8, 1.2)
_KINDS: Final = ("uniform", "loguniform", "quniform", "randint", "choice", "grid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    """Whether values are spread evenly over orders of magnitude."""
    step: float | None = None
    """Values are multiples of it; None: any."""
    whole: bool = False
    """Whether values are integers."""

    def sample(self, rng: random.Random) -> float:
        """Draw a value."""
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        elif self.step is not None:
            # Of the multiples, so that those at the ends are as likely as the others.
            drawn = rng.randint(*self._counts()) * self.step
        else:
            drawn = rng.uniform(self.low, self.high)
        return self.nearest(drawn)

    def perturb(self, value: Any, rng: random.Random, factors: Sequence[float] = FACTORS) -> float:
        """Move a value by one of the factors, inside the bounds.

        A log range multiplies. A linear one moves by the same share of the value, but at most by
        that share of the range (so that 0.9 in [0.5, 0.98] doesn't jump from end to end), and by
        just that where the range reaches zero or below, in which multiplying would get stuck.
        A value on a grid moves by at least one of its steps.
        """
        if not is_finite(value):
            return self.sample(rng)
        factor = rng.choice(list(factors))
        if self.log:
            moved = value * factor
        else:
            span = self.high - self.low
            reach = span if self.low <= 0 else min(abs(value), span)
            moved = value + (factor - 1.0) * reach
        moved = self.nearest(moved)
        if self.step is not None and moved == value and factor != 1.0:
            moved = self.nearest(value + math.copysign(self.step, factor - 1.0))
        return moved

    def nearest(self, value: float) -> float:
        """Return the nearest value that the range holds."""
        if self.step is not None:
            first, last = self._counts()
            count = min(max(round(value / self.step), first), last)
            # 3 * 0.1 is 0.30000000000000004, which no one wants to read in a config.
            value = float(f"{count * self.step:.12g}")
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(value)

    def holds(self, value: Any) -> bool:
        """Whether the range holds a value."""
        return is_finite(value) and self.low <= value <= self.high

    def probes(self) -> list[float]:
        """Return the ends."""
        return [self.nearest(self.low), self.nearest(self.high)]

    def to_tune(self) -> Any:
        """Return Ray Tune's domain; its upper bounds of integers are excluded, ours aren't."""
        from ray import tune

        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            if step == 1:
                return tune.lograndint(low, high + 1) if self.log else tune.randint(low, high + 1)
            return tune.qlograndint(low, high, step) if self.log else tune.qrandint(low, high, step)
        if self.step is None:
            return (tune.loguniform if self.log else tune.uniform)(self.low, self.high)
        return (tune.qloguniform if self.log else tune.quniform)(self.low, self.high, self.step)

    def _counts(self) -> tuple[int, int]:
        """Return how many steps its least and greatest values are from zero."""
        step = self.step or 1
        # 0.3 / 0.1 is 2.9999999999999996.
        return math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """One of some values, of any kind."""

    values: tuple[Any, ...]
    grid: bool = False
    """Whether a sweep runs every one of them instead of drawing."""

    def sample(self, rng: random.Random) -> Any:
        """Draw a value."""
        return copy.deepcopy(rng.choice(self.values))

    def perturb(self, value: Any, rng: random.Random, factors: Sequence[float] = FACTORS) -> Any:
        """Move to a neighbour where all values are numbers, else to any other value."""
        del factors
        others = [other for other in self.values if not _same(other, value)]
        if not others:
            return copy.deepcopy(value)
        if all(map(is_finite, self.values)) and self.holds(value):
            below = [other for other in others if other < value]
            above = [other for other in others if other > value]
            others = [*sorted(below)[-1:], *sorted(above)[:1]]
        return copy.deepcopy(rng.choice(others))

    def holds(self, value: Any) -> bool:
        """Whether a value is among them."""
        return any(_same(value, other) for other in self.values)

    def probes(self) -> list[Any]:
        """Return all values."""
        return [copy.deepcopy(value) for value in self.values]

    def to_tune(self) -> Any:
        """Return Ray Tune's domain."""
        from ray import tune

        values = self.probes()
        return tune.grid_search(values) if self.grid else tune.choice(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Whatever a function draws, without bounds: Tune's normal domains, a callable of the user."""

    draw: Callable[[], Any]

    def sample(self, rng: random.Random) -> Any:
        """Draw a value."""
        del rng  # the function has its own
        return self.draw()

    def perturb(self, value: Any, rng: random.Random, factors: Sequence[float] = FACTORS) -> Any:
        """Multiply a number; draw anything else anew."""
        if not is_finite(value):
            return self.draw()
        moved = value * rng.choice(list(factors))
        return round(moved) if isinstance(value, int) else moved

    def holds(self, value: Any) -> bool:
        """Anything might be drawn."""
        del value
        return True

    def probes(self) -> list[Any]:
        """Nothing is known to be at an end."""
        return []

    def to_tune(self) -> Any:
        """Return Ray Tune's domain."""
        from ray import tune

        return tune.sample_from(lambda _config: self.draw())


Domain: TypeAlias = "Range | Choices | Drawn"


def domains_in(param_space: Any) -> dict[str, Any]:
    """Return the ``tune.*`` domains of a ``param_space``, nested as they lie in it.

    Args:
        param_space: a dict, or an AlgorithmConfig that may hold domains, such as ``prune``'s.

    Example::

        config = prune(PPOConfig()..., {"sparsity": tune.uniform(0.5, 0.98)})
        scheduler = MultiObjectivePBT(..., hyperparam_mutations=domains_in(config))
        tune.Tuner("PPO", param_space=config, tune_config=tune.TuneConfig(scheduler=scheduler))
    """
    from ray.tune.search.sample import Domain as TuneDomain

    if not isinstance(param_space, Mapping):
        param_space = param_space.to_dict()
    found: dict[str, Any] = {}
    for key, value in param_space.items():
        if isinstance(value, TuneDomain):
            found[key] = value
        elif isinstance(value, Mapping) and (inner := domains_in(value)):
            found[key] = inner
    return found


def domain_of(value: Mapping[str, Any]) -> Domain:
    """Return the domain of a faultless YAML block, such as ``{"uniform": [0.5, 0.98]}``."""
    ((kind, given),) = value.items()
    if kind in ("choice", "grid"):
        return Choices(values=tuple(given), grid=kind == "grid")
    if kind == "randint":
        return Range(low=int(given[0]), high=int(given[1]) - 1, step=1, whole=True)
    low, high = float(given[0]), float(given[1])
    step = float(given[2]) if kind == "quniform" else None
    return Range(low=low, high=high, log=kind == "loguniform", step=step)


def domain_from_tune(value: Any) -> Domain | None:
    """Return our domain for one of Tune's, a list or a function; None for anything else."""
    if isinstance(value, Mapping):
        return Choices(values=tuple(value["grid_search"]), grid=True)
    if isinstance(value, (list, tuple)) and value:
        return Choices(values=tuple(value))
    from ray.tune.search import sample

    if isinstance(value, sample.Categorical):
        return Choices(values=tuple(value.categories))
    sampler = value.get_sampler() if isinstance(value, sample.Domain) else None
    quantum = sampler.q if isinstance(sampler, sample.Quantized) else None
    inner = sampler.get_sampler() if isinstance(sampler, sample.Quantized) else sampler
    log = isinstance(inner, sample.LogUniform)
    if isinstance(value, sample.Integer):
        # randint leaves its upper bound out, qrandint doesn't, except by steps of 1.
        last = value.upper if quantum not in (None, 1) else value.upper - 1
        return Range(low=value.lower, high=last, log=log, step=quantum or 1, whole=True)
    if isinstance(value, sample.Float) and isinstance(inner, (sample.Uniform, sample.LogUniform)):
        return Range(low=value.lower, high=value.upper, log=log, step=quantum)
    if isinstance(value, sample.Domain):
        return Drawn(draw=value.sample)
    return Drawn(draw=value) if callable(value) else None


def domain_faults(value: object, field: str) -> list[str]:
    """Return every fault of a domain's YAML block."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return [
            f"`{field}` must be one of {sorted(_KINDS)} with its values, "
            f"such as {{uniform: [0.5, 0.98]}}, but is {shown(value)}."
        ]
    ((kind, given),) = value.items()
    if kind not in _KINDS:
        return [choice_fault(field, kind, list(_KINDS))]
    field = f"{field}.{kind}"
    if kind in ("choice", "grid"):
        return _choices_faults(given, field)
    return _range_faults(kind, given, field)


def _choices_faults(given: object, field: str) -> list[str]:
    if not isinstance(given, (list, tuple)) or not given:
        return [f"`{field}` must be a list of at least one value, but is {shown(given)}."]
    for index, value in enumerate(given):
        if any(_same(value, other) for other in given[:index]):
            return [f"`{field}` must not hold a value twice, but does {shown(value)}."]
    return []


def _range_faults(kind: str, given: object, field: str) -> list[str]:
    wanted = "[low, high, step]" if kind == "quniform" else "[low, high]"
    size = 3 if kind == "quniform" else 2
    if not isinstance(given, (list, tuple)) or len(given) != size or not all(map(is_finite, given)):
        return [f"`{field}` must be {wanted}, all finite numbers, but is {shown(given)}."]
    low, high = given[:2]
    if kind == "randint" and not all(float(bound).is_integer() for bound in given):
        return [f"`{field}` must be two integers, but is {shown(given)}."]
    if low >= high:
        note = "; it is excluded" if kind == "randint" else ""
        return [f"`{field}` must have its high end above the low one ({low}{note}), but is {high}."]
    if kind == "loguniform" and low <= 0:
        return [f"`{field}` must begin above 0, but begins at {low}. Use `uniform`."]
    if kind == "quniform":
        step = given[2]
        if step <= 0:
            return [f"`{field}` must have a step above 0, but has {step}."]
        off = [
            bound
            for bound in (low, high)
            if not math.isclose(bound / step, round(bound / step), abs_tol=1e-9)
        ]
        if off:
            return [
                f"`{field}` must have bounds that are multiples of its step ({step}), "
                f"but has {off[0]}."
            ]
    return []


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of one kind: YAML's 1 isn't true."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
