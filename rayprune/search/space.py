"""Search spaces: which keys of an experiment vary, and between what bounds.

Pure Python; ``ray.tune`` is imported only where its domains are made or read.
"""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rayprune import yaml12
from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.checks import choice_fault
from rayprune.validation import shown

ROOTS: Final = ("pruning", "rllib", "env_config", "stop")
"""Where a key of ``search.space`` may lie."""

RESAMPLE: Final = 0.25
FACTORS: Final = (0.8, 1.2)
_BARE: Final = re.compile(r"[^.\"'=\s]+")


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
        if not _is_number(value):
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
        return _is_number(value) and self.low <= value <= self.high

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
        if all(map(_is_number, self.values)) and self.holds(value):
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
        if not _is_number(value):
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
Path: TypeAlias = "tuple[str, ...]"


class Space(Mapping[str, Domain]):
    """Dotted keys and the domains that their values come from.

    >>> space = Space.from_dict({"pruning.sparsity": {"uniform": [0.5, 0.98]},
    ...                          "pruning.criterion": {"choice": ["l1", "taylor"]}})
    >>> space.apply({"pruning": {"sparsity": 0.9}}, {"pruning.criterion": "l1"})
    {'pruning': {'sparsity': 0.9, 'criterion': 'l1'}}
    >>> sorted(space.sample(random.Random(0)))
    ['pruning.criterion', 'pruning.sparsity']
    """

    def __init__(self, domains: Mapping[Path, Domain]) -> None:
        self._paths = {join_key(path): tuple(path) for path in domains}
        self._domains = {join_key(path): domain for path, domain in domains.items()}

    @classmethod
    def faults_of(cls, values: object, prefix: str = "search.space") -> list[str]:
        """Return every fault of a YAML file's ``search.space``.

        >>> for fault in Space.faults_of({"prunning.sparsity": {"uniform": [0, 1]},
        ...                               "pruning.sparsity": {"unifrom": [0.5, 0.9]}}):
        ...     print(fault)
        `search.space.prunning.sparsity` must lie under one of ['env_config', 'pruning', 'rllib',
        'stop'], but is under 'prunning'. Did you mean 'pruning'?
        `search.space.pruning.sparsity` must be one of ['choice', 'grid', 'loguniform', 'quniform',
        'randint', 'uniform'], but is 'unifrom'. Did you mean 'uniform'?
        """
        if not isinstance(values, Mapping) or not values:
            return [
                f"`{prefix}` must be a mapping such as "
                f"{{pruning.sparsity: {{uniform: [0.5, 0.98]}}}}, but is {shown(values)}."
            ]
        faults: list[str] = []
        for key, value in values.items():
            faults += _key_faults(key, f"{prefix}.{key}")
            faults += _domain_faults(value, f"{prefix}.{key}")
        sound = [key for key in values if not _key_faults(key, prefix)]
        return faults + _overlap_faults(sound, prefix)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Space:
        """Build from a YAML file's ``search.space``; ConfigError holds every fault."""
        faults = cls.faults_of(values)
        if faults:
            raise ConfigError(faults)
        return cls(
            {tuple(yaml12.split_key(key) or ()): _domain(value) for key, value in values.items()}
        )

    @classmethod
    def from_tune(cls, domains: Mapping[str, Any]) -> Space:
        """Build from nested ``tune.*`` domains, as ``hyperparam_mutations`` holds them.

        A list stands for choices, a function for what it returns.

        Raises:
            ConfigError: a value that is none of them.
        """
        faults: list[str] = []
        found: dict[Path, Domain] = {}
        for path, value in _leaves(domains):
            domain = _from_tune(value)
            if domain is None:
                faults.append(
                    f"`{join_key(path)}` must be a tune domain, a list of choices or a function, "
                    f"but is {shown(value)}. Give tune.uniform(...), say."
                )
            else:
                found[path] = domain
        if faults:
            raise ConfigError(faults)
        return cls(found)

    def __getitem__(self, key: str) -> Domain:
        return self._domains[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    @property
    def grid_size(self) -> int:
        """How many combinations its choices have; 1 without any."""
        return math.prod(len(d.values) for d in self._domains.values() if isinstance(d, Choices))

    def to_tune(self) -> dict[str, Any]:
        """Return Ray Tune's domains by dotted key; `apply` puts them where they belong."""
        return {key: domain.to_tune() for key, domain in self.items()}

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """Draw a value for every key."""
        return {key: domain.sample(rng) for key, domain in self.items()}

    def perturb(
        self,
        values: Mapping[str, Any],
        rng: random.Random,
        *,
        resample: float = RESAMPLE,
        factors: Sequence[float] = FACTORS,
    ) -> dict[str, Any]:
        """Explore around ``values``, never outside the bounds.

        Jaderberg et al. 2017 (arXiv:1711.09846): each value is drawn anew with some probability,
        and else moved a little, as its domain defines it.

        Args:
            values: dotted key -> value; keys outside the space are left out of the answer.
            rng: where the chance comes from.
            resample: probability of drawing anew.
            factors: by what a number is multiplied.
        """
        return {
            key: domain.sample(rng)
            if key not in values or rng.random() < resample
            else domain.perturb(values[key], rng, factors)
            for key, domain in self.items()
        }

    def apply(self, raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of a nested mapping with the values written at their keys.

        Raises:
            ConfigError: a key leads through a value that is no mapping.
        """
        result = copy.deepcopy(dict(raw))
        for key, value in values.items():
            _write(result, self._paths[key], value)
        return result

    def read(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that a nested mapping holds at the space's keys, where it has them."""
        found: dict[str, Any] = {}
        for key, path in self._paths.items():
            holder: Any = raw
            for segment in path:
                holder = holder.get(segment, _ABSENT) if isinstance(holder, Mapping) else _ABSENT
            if holder is not _ABSENT:
                found[key] = holder
        return found

    def probes(self) -> Iterator[tuple[str, Any]]:
        """Yield each key with each end or choice of its domain, to check an experiment with."""
        for key, domain in self.items():
            for value in domain.probes():
                yield key, value


def join_key(path: Sequence[str]) -> str:
    """Return the dotted key of a path; a segment that needs it is quoted.

    >>> join_key(["pruning", "distribution", "pi.0"])
    'pruning.distribution."pi.0"'
    """
    return ".".join(
        segment if _BARE.fullmatch(segment) else json.dumps(segment) for segment in path
    )


_ABSENT: Final = object()


def _write(raw: dict[str, Any], path: Path, value: Any) -> None:
    holder = raw
    for depth, segment in enumerate(path[:-1], start=1):
        inner = holder.get(segment)
        if inner is None:
            inner = holder[segment] = {}
        elif not isinstance(inner, dict):
            raise ConfigError(
                f"`search.space.{join_key(path)}` can't be varied: `{join_key(path[:depth])}` is "
                f"{shown(inner)}, not a mapping. Write it as one, or vary it as a whole."
            )
        holder = inner
    holder[path[-1]] = value


def _leaves(nested: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and set(value) != {"grid_search"}:
            yield from _leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _from_tune(value: Any) -> Domain | None:
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


def _domain(value: Mapping[str, Any]) -> Domain:
    ((kind, given),) = value.items()
    if kind in ("choice", "grid"):
        return Choices(values=tuple(given), grid=kind == "grid")
    if kind == "randint":
        return Range(low=int(given[0]), high=int(given[1]) - 1, step=1, whole=True)
    low, high = float(given[0]), float(given[1])
    step = float(given[2]) if kind == "quniform" else None
    return Range(low=low, high=high, log=kind == "loguniform", step=step)


def _key_faults(key: object, field: str) -> list[str]:
    path = yaml12.split_key(key) if isinstance(key, str) else None
    if path is None:
        return [
            f"`{field}` must be a dotted key, such as pruning.sparsity; quote a layer's dotted "
            "name: 'pruning.distribution.\"pi.0\"'."
        ]
    if path[0] not in ROOTS:
        return [
            f"`{field}` must lie under one of {sorted(ROOTS)}, but is under {path[0]!r}."
            f"{did_you_mean(path[0], ROOTS)}"
        ]
    if len(path) == 1:
        return [f"`{field}` must name a key inside `{path[0]}`, such as pruning.sparsity."]
    return []


def _overlap_faults(keys: Sequence[str], prefix: str) -> list[str]:
    """No key may lie inside another, nor be another one written differently."""
    known = [(key, yaml12.split_key(key) or []) for key in keys]
    return [
        f"`{prefix}.{inner}` lies in `{prefix}.{outer}`, which is varied as a whole. Drop one."
        for index, (outer, above) in enumerate(known)
        for other, (inner, below) in enumerate(known)
        if below[: len(above)] == above and (len(above) < len(below) or index < other)
    ]


_KINDS: Final = ("uniform", "loguniform", "quniform", "randint", "choice", "grid")


def _domain_faults(value: object, field: str) -> list[str]:
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
    if (
        not isinstance(given, (list, tuple))
        or len(given) != size
        or not all(map(_is_number, given))
    ):
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


def _is_number(value: object) -> bool:
    # NumPy's scalars too: Tune samples them.
    try:
        return not isinstance(value, (bool, str)) and math.isfinite(value)  # type: ignore[arg-type]
    except TypeError:
        return False


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of one kind: YAML's 1 isn't true."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
