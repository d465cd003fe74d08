"""What a search is after: objectives that compete, or that are sought under constraints."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from rayprune.errors import ConfigError, shown, unknown_key
from rayprune.pruning.checks import choice_fault
from rayprune.search import pareto
from rayprune.search.bounds import Bound, bound_faults, bound_keys, bound_of

RETURN: Final = "return"
KNOWN: Final[Mapping[str, str]] = types.MappingProxyType(
    {
        RETURN: "max",
        "sparsity": "max",
        "flops": "min",
        "parameters": "min",
        "latency": "min",
    }
)
"""What a sweep measures of each trial, and which way one would usually want it."""
LATENCY: Final = "latency"
"""Microseconds of one action of the exported policy; measured only where it is an objective."""

DIRECTIONS: Final = ("max", "min")
_BOUNDED: Final = tuple(name for name in KNOWN if name != RETURN)
"""What `subject_to` bounds by a value; the return by a share of the dense policy's."""
_SUBJECT_TO: Final = "subject_to"
_SHARE: Final = "return_at_least"
_DENSE: Final = "dense_return"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Which results are better: directions, and perhaps constraints.

    A result is a mapping that holds a number per objective. What is missing, no number, NaN or
    infinite counts as not measured, and ranks below all that was.

    Under constraints feasible results beat infeasible ones; among the feasible the objectives
    decide, among the infeasible the sum of what each constraint is missed by, as a share of it
    (constrained domination: Deb et al. 2002, doi:10.1109/4235.996017).

    >>> spread = Objectives(directions={"return": "max", "flops": "min"})
    >>> spread.rank([{"return": 5.0, "flops": 9}, {"return": 5.0, "flops": 7}, {"flops": 1}])
    [1, 0, 2]
    >>> lean = Objectives.from_dict({"sparsity": "max", "subject_to": {"return_at_least": 0.95}})
    >>> lean = lean.with_dense_return(100.0)
    >>> lean.rank([{"return": 96.0, "sparsity": 0.5}, {"return": 94.0, "sparsity": 0.9},
    ...            {"return": 95.0, "sparsity": 0.8}])
    [2, 0, 1]
    """

    directions: Mapping[str, str]
    """Key of a result -> ``max`` or ``min``, in order; any key will do from Python."""

    return_at_least: float | None = None
    """The share of the dense return below which a result is infeasible; None: no constraint."""

    dense_return: float | None = None
    """What the dense policy earns; needed for ranking under a constraint."""

    return_key: str = RETURN
    """Where a result holds the return that the constraint is about."""

    bounds: tuple[Bound, ...] = ()
    """Further constraints, such as at most 1000 FLOPs."""

    reference: tuple[float, ...] | None = None
    """A value per objective. What is worse in any of them adds no hypervolume, and ranks below all
    that is not: else the sparsest policy of all, which does nothing, would be copied for ever."""

    def __post_init__(self) -> None:
        faults = [] if self.directions else ["`objectives` must name at least one."]
        faults += [
            choice_fault(f"objectives.{name}", direction, list(DIRECTIONS))
            for name, direction in self.directions.items()
            if direction not in DIRECTIONS
        ]
        if faults:
            raise ConfigError(faults)
        object.__setattr__(self, "directions", dict(self.directions))

    @classmethod
    def faults_of(cls, values: object, prefix: str = "search.objectives") -> list[str]:
        """Return every fault of a YAML file's ``search.objectives``.

        >>> for fault in Objectives.faults_of({"retrun": "max"}):
        ...     print(fault)
        `search.objectives.retrun` is not a known key. Did you mean 'return'?
        """
        if not isinstance(values, Mapping) or not values:
            return [
                f"`{prefix}` must be a mapping such as {{return: max, sparsity: max}}, "
                f"but is {shown(values)}."
            ]
        faults: list[str] = []
        for name, direction in values.items():
            field = f"{prefix}.{name}"
            if name == _SUBJECT_TO:
                faults += _constraint_faults(direction, values, field)
            elif name not in KNOWN:
                faults.append(unknown_key(field, [*KNOWN, _SUBJECT_TO]))
            elif direction not in DIRECTIONS:
                faults.append(choice_fault(field, direction, list(DIRECTIONS)))
        if set(values) == {_SUBJECT_TO}:
            faults.append(f"`{prefix}` must name an objective beside `subject_to`: sparsity: max.")
        return faults

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Objectives:
        """Build from a YAML file's ``search.objectives``; ConfigError holds every fault."""
        faults = cls.faults_of(values)
        if faults:
            raise ConfigError(faults)
        constraint = values.get(_SUBJECT_TO, {})
        return cls(
            directions={name: way for name, way in values.items() if name != _SUBJECT_TO},
            return_at_least=constraint.get(_SHARE),
            dense_return=constraint.get(_DENSE),
            bounds=tuple(
                bound_of(key, value)
                for key, value in constraint.items()
                if key not in (_SHARE, _DENSE)
            ),
        )

    def with_dense_return(self, dense_return: float) -> Objectives:
        """Return the objectives with the dense return that a sweep measured."""
        return replace(self, dense_return=float(dense_return))

    def unconstrained(self) -> Objectives:
        """Return the objectives with what is constrained among them in place of the constraints."""
        if not self.constrained:
            return self
        wider = dict(self.directions)
        if self.return_at_least is not None:
            wider.setdefault(self.return_key, "max")
        for bound in self.bounds:
            wider.setdefault(bound.key, bound.direction)
        return Objectives(directions=wider)

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives, in their order."""
        return tuple(self.directions)

    @property
    def keys(self) -> tuple[str, ...]:
        """What a result must hold to be ranked."""
        floored = [] if self.return_at_least is None else [self.return_key]
        # A dict, for each once.
        return tuple(dict.fromkeys([*self.names, *floored, *(bound.key for bound in self.bounds)]))

    @property
    def constrained(self) -> bool:
        """Whether there is any constraint."""
        return self.return_at_least is not None or bool(self.bounds)

    @property
    def limits(self) -> tuple[Bound, ...]:
        """All constraints as bounds, that on the return first."""
        floor = self.floor
        if floor is None:
            return self.bounds
        return (Bound(key=self.return_key, at_least=True, value=floor), *self.bounds)

    @property
    def needs_dense_return(self) -> bool:
        """Whether the dense policy has still to be measured before anything can be ranked."""
        return self.return_at_least is not None and self.dense_return is None

    @property
    def floor(self) -> float | None:
        """The return from which on a result is feasible; None where nothing is asked.

        For a dense return R and a share p it is ``R - (1 - p) * |R|``, which is ``p * R`` for a
        positive R. A plain product would ask for *more* than the dense return where that is
        negative, as in Pendulum: 0.95 * -150 is -142.5, while this gives -157.5. For R = 0 no
        loss is allowed at all.

        >>> half = Objectives(directions={"sparsity": "max"}, return_at_least=0.95)
        >>> [half.with_dense_return(dense).floor for dense in (500.0, -150.0)]
        [475.0, -157.5]
        """
        if self.return_at_least is None:
            return None
        if self.dense_return is None:
            raise ConfigError(
                "`search.objectives.subject_to.return_at_least` is a share of the dense return, "
                "which isn't known yet. Measure it first, or give `dense_return` beside it."
            )
        return self.dense_return - (1.0 - self.return_at_least) * abs(self.dense_return)

    def measured(self, result: Mapping[str, Any]) -> bool:
        """Whether a result holds a finite number for all that ranking needs."""
        return all(_finite(result.get(key)) for key in self.keys)

    def feasible(self, result: Mapping[str, Any]) -> bool:
        """Whether a result was measured and keeps to the constraints, if there are any."""
        return self.measured(result) and all(limit.holds(result) for limit in self.limits)

    def vector(self, result: Mapping[str, Any]) -> list[float]:
        """Return a measured result's objectives as numbers to be maximised, shape ``(m,)``."""
        return [
            float(result[name]) if direction == "max" else -float(result[name])
            for name, direction in self.directions.items()
        ]

    def rank(self, results: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return all indices, best first: feasible by front, infeasible by violation, unmeasured.

        Among the feasible, those below the reference come after the others.

        Args:
            results: one mapping per member of the population, length n.
        """
        known = [index for index, result in enumerate(results) if self.measured(result)]
        limits = self.limits
        kept = [i for i in known if all(limit.holds(results[i]) for limit in limits)]
        broken = sorted(set(known) - set(kept))
        high: list[int] = []
        low: list[int] = []
        for index in kept:
            (low if self._below_reference(results[index]) else high).append(index)
        order: list[int] = []
        for group in (high, low):
            ranked = pareto.rank([self.vector(results[index]) for index in group])
            order += [group[i] for i in ranked]
        # sorted() is stable: of equal ones the lower index comes first.
        order += sorted(broken, key=lambda i: sum(limit.violation(results[i]) for limit in limits))
        unmeasured = set(range(len(results))) - set(order)
        return order + sorted(unmeasured)

    def tails(
        self,
        results: Sequence[Mapping[str, Any]],
        fraction: float = 0.25,
        population: int | None = None,
    ) -> tuple[list[int], list[int]]:
        """Return the best and the worst of a population, each of ``fraction`` of it.

        At least one each from two members on, and never more than half; none of the best is
        unmeasured, so where nothing was measured both are empty.

        Args:
            results: of the members that have reported.
            fraction: of them.
            population: how many members there are. While some haven't reported the count is
                rounded down: of two early ones the worse may still be among the best of eight.

        >>> spread = Objectives(directions={"return": "max"})
        >>> spread.tails([{"return": 1}, {"return": 3}, {"return": math.nan}, {"return": 2}])
        ([1], [2])
        >>> spread.tails([{"return": 1}, {"return": 3}], population=8)
        ([], [])
        """
        order = self.rank(results)
        rounded = math.ceil if population in (None, len(order)) else math.floor
        size = min(rounded(len(order) * fraction), len(order) // 2)
        best = [index for index in order[:size] if self.measured(results[index])]
        return best, order[len(order) - size :] if best else []

    def front(self, results: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the indices of the feasible results that no feasible one dominates."""
        kept = [index for index, result in enumerate(results) if self.feasible(result)]
        return [kept[i] for i in pareto.front([self.vector(results[index]) for index in kept])]

    def distinct_front(self, results: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return `front` with the last alone of those that are equal in every objective.

        >>> lean = Objectives(directions={"sparsity": "max"})
        >>> lean.distinct_front([{"sparsity": 0.9}, {"sparsity": 0.5}, {"sparsity": 0.9}])
        [2]
        """
        last = {tuple(self.vector(results[index])): index for index in self.front(results)}
        return sorted(last.values())

    def worst_of(self, results: Iterable[Mapping[str, Any]]) -> list[float] | None:
        """Return the worst value of each objective among the measured results, as they hold it.

        A reference point for `hypervolume` when none was given: take it once, from the first
        results, and keep it. None when nothing was measured.
        """
        vectors = [self.vector(result) for result in results if self.measured(result)]
        if not vectors:
            return None
        return self._as_held(np.min(np.asarray(vectors), axis=0).tolist())

    def hypervolume(
        self, results: Iterable[Mapping[str, Any]], reference: Sequence[float]
    ) -> float:
        """Return the hypervolume of the feasible results.

        Args:
            results: mappings; those that aren't feasible add nothing.
            reference: one value per objective, as the results hold it (FLOPs positive).
        """
        vectors = [self.vector(result) for result in results if self.feasible(result)]
        return pareto.hypervolume(vectors, self._as_held(reference))

    def _below_reference(self, result: Mapping[str, Any]) -> bool:
        if self.reference is None:
            return False
        floor = self._as_held(self.reference)
        return any(x < low for x, low in zip(self.vector(result), floor, strict=True))

    def _as_held(self, values: Sequence[float]) -> list[float]:
        """Turn maximised values into what results hold, or back."""
        ways = self.directions.values()
        # 0.0 - x, not -x: a negative zero would show in front.json.
        return [
            float(x) if way == "max" else 0.0 - float(x)
            for x, way in zip(values, ways, strict=True)
        ]


def _finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return False
    return math.isfinite(value)


def _constraint_faults(values: object, objectives: Mapping[Any, Any], field: str) -> list[str]:
    if not isinstance(values, Mapping):
        return [f"`{field}` must be a mapping such as {{{_SHARE}: 0.95}}, but is {shown(values)}."]
    known = [_SHARE, _DENSE, *bound_keys(_BOUNDED)]
    faults = [unknown_key(f"{field}.{key}", known) for key in values if key not in known]
    if _SHARE in values:
        faults += _share_faults(values[_SHARE], f"{field}.{_SHARE}")
    elif _DENSE in values or not values:
        faults.append(f"`{field}.{_SHARE}` is missing: give a share of the dense return: 0.95.")
    dense = values.get(_DENSE)
    if dense is not None and not _finite(dense):
        faults.append(f"`{field}.{_DENSE}` must be a finite number, but is {shown(dense)}.")
    return faults + bound_faults(values, objectives, _BOUNDED, field)


def _share_faults(share: Any, field: str) -> list[str]:
    if _finite(share) and 0 < share <= 1:
        return []
    hint = f" For {share} % give {share / 100}." if _finite(share) and 1 < share <= 100 else ""
    return [
        f"`{field}` must be a share of the dense return in (0, 1], but is {shown(share)}.{hint}"
    ]
