"""Trust regions: a mask update takes only as much of its step as keeps the policy where it was.

TRPO bounds how far a gradient step may move the policy (Schulman et al. 2015, arXiv:1502.05477),
PPO's clip does so roughly. A mask update is a step, too, and nothing bounded it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from rayprune.errors import InputError, shown
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.reports import MaskChange, PolicyChange

Compare = Callable[[], "PolicyChange | float"]
"""Called once masks have changed: how far the policy has moved; a number is a KL in nats."""
Divergence = Callable[[], "Compare | None"]
"""Looks at the policy before its masks change; None where nothing can be told yet."""

STEPS: Final = 1024
"""A step is taken in so many parts at most: ten halvings."""
BOUNDED: Final = {"max_kl": "kl", "max_value_change": "value_change"}
"""The fields that bound a mask update, with what of a `PolicyChange` each bounds."""


@dataclass(frozen=True, slots=True)
class TrustRegion:
    """How far one mask update may move a policy."""

    bounds: dict[str, float]
    """By the config's field; empty where nothing bounds it."""

    @classmethod
    def of(cls, config: PruningConfig) -> TrustRegion:
        """Return a config's own."""
        given = {name: getattr(config, name) for name in BOUNDED}
        return cls({name: bound for name, bound in given.items() if bound is not None})

    def __bool__(self) -> bool:
        return bool(self.bounds)

    def holds(self, moved: PolicyChange) -> bool:
        """Return whether a change is within the bounds; NaN is not.

        Raises:
            InputError: what is bounded was not measured.
        """
        return all(self._held(name, bound, moved) for name, bound in self.bounds.items())

    def _held(self, name: str, bound: float, moved: PolicyChange) -> bool:
        found = getattr(moved, BOUNDED[name])
        if found is None:
            raise InputError(
                f"`{name}` {bound:g} bounds the `{BOUNDED[name]}` of a mask update, but "
                f"`divergence` told none. Return PolicyChange({BOUNDED[name]}=...), or leave "
                f"`{name}` out."
            )
        return bool(found <= bound)

    def check(self, divergence: Divergence | None) -> None:
        """Raise InputError where there is a bound and nobody who measures."""
        for name, bound in self.bounds.items():
            if divergence is None:
                raise InputError(
                    f"`{name}` {bound:g} bounds how far a mask update moves the policy, which "
                    "nobody measures. Pass `divergence=` to `Pruner.update`, or leave it out."
                )


class Step(Protocol):
    """A mask update that can be taken in part."""

    def note(self) -> Callable[[], None]:
        """Note what all is like now; what is returned puts it back."""

    def take(self, share: float) -> MaskChange:
        """Take so much of the step, from 0 to 1, from where all is now."""


def take_within(region: TrustRegion, step: Step, divergence: Divergence) -> MaskChange | None:
    """Take as much of a mask update as a trust region allows, and say how far that moved.

    The whole step is tried first. Where that is too much its share is bisected: of what is tried,
    the largest that holds is taken, and one part in `STEPS` more didn't hold. A change that rises
    with the step, as it mostly does over nested masks, makes that the largest of all that hold.

    Args:
        region: the bounds.
        step: due, and not taken.
        divergence: called once now, and what it returns after each try.

    Returns:
        What was done; None where nothing can be told yet, and so nothing was done.

    Raises:
        InputError: what is bounded was not measured; all is as it was.
    """
    compare = divergence()
    if compare is None:
        return None if region else step.take(1.0)
    if not region:
        return replace(step.take(1.0), policy=as_change(compare()))
    undo = step.note()
    try:
        return _bisected(region, step, compare, undo)
    except BaseException:
        undo()
        raise


def _bisected(
    region: TrustRegion, step: Step, compare: Compare, undo: Callable[[], None]
) -> MaskChange:
    tries = _Tries(region, step, compare, undo)
    parts = STEPS if tries.holds(STEPS) else largest(tries.holds, 0, STEPS)
    if parts != tries.parts:
        tries.holds(parts)
    return replace(tries.change, policy=tries.moved, taken=parts / STEPS)


class _Tries:
    """Shares of a step that were tried, one in the other's place."""

    def __init__(
        self, region: TrustRegion, step: Step, compare: Compare, undo: Callable[[], None]
    ) -> None:
        self._region, self._step = region, step
        self._compare, self._undo = compare, undo
        self.parts: int | None = None
        """What is taken at the moment, of `STEPS`; None for nothing yet."""

    def holds(self, parts: int) -> bool:
        """Take so much, and say whether that is within the bounds."""
        if self.parts is not None:
            self._undo()
        self.parts = parts
        self.change = self._step.take(parts / STEPS)
        self.moved = as_change(self._compare())
        return self._region.holds(self.moved)


def largest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return a number that holds and whose successor doesn't, by bisection.

    Args:
        holds: asked between both ends.
        low: taken to hold.
        high: known not to.

    >>> largest(lambda parts: parts**2 <= 30, 0, 100)
    5
    """
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def as_change(told: PolicyChange | float) -> PolicyChange:
    """Take a plain number for a KL.

    Raises:
        InputError: it is neither a number nor a `PolicyChange`.
    """
    if isinstance(told, PolicyChange):
        return told
    try:
        return PolicyChange(kl=float(told))
    except (TypeError, ValueError) as error:
        raise InputError(
            "What `divergence` returns must return a KL in nats or a PolicyChange, but returned "
            f"{shown(told)}."
        ) from error


class MembersStep:
    """A step of several members of a Pruner, each with its state.

    Args:
        members: see `rayprune.pruning.group_pruner.GroupPruner`.
        take: carries a share of the step out for all of them.
    """

    def __init__(self, members: Sequence[Any], take: Callable[[float], MaskChange]) -> None:
        self._members = members
        self.take = take

    def note(self) -> Callable[[], None]:
        """Note states and weights; see `Step.note`."""
        undoing = [member.note() for member in self._members]

        def undo() -> None:
            for put_back in undoing:
                put_back()

        return undo
