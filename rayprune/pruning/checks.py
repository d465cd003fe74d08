"""What a value of a config must be: every fault's wording, once.

A check takes a field's name and its value, and yields what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, TypeAlias

from rayprune.errors import did_you_mean, unknown_key

Faults: TypeAlias = Iterator[str]
Check: TypeAlias = Callable[[str, Any], Faults]

LATEST = 2**63
"""No time is as late; in env steps."""


def must(field: str, constraint: str, value: object) -> str:
    """Word the fault of a value that breaks a constraint.

    >>> must("pruning.horizon", "an integer of at least 1", 0)
    '`pruning.horizon` must be an integer of at least 1, but is 0.'
    """
    return f"`{field}` must be {constraint}, but is {value!r}."


def choice_fault(field: str, value: object, names: Iterable[str]) -> str:
    """Word the fault of a value that is not among ``names``, with the nearest name.

    >>> choice_fault("criterion", "randon", ["l2", "l1", "random"])
    "`criterion` must be one of ['l1', 'l2', 'random'], but is 'randon'. Did you mean 'random'?"
    """
    known = sorted(names)
    return f"{must(field, f'one of {known}', value)}{did_you_mean(value, known)}"


def unknown_keys(field: str, block: Mapping[Any, Any], known: Collection[str]) -> Faults:
    """Yield a fault for each key of a mapping that is not known.

    >>> list(unknown_keys("pruning.threshold", {"absolut": 1}, ["absolute"]))
    ["`pruning.threshold.absolut` is not a known key. Did you mean 'absolute'?"]
    """
    for key in block:
        if key not in known:
            yield unknown_key(f"{field}.{key}", sorted(known), key)


def is_number(value: object) -> bool:
    """Return whether it is a real number; infinity is one, NaN and booleans are none.

    >>> [is_number(value) for value in (1, 0.5, float("inf"), float("nan"), True, "1")]
    [True, True, True, False, False, False]
    """
    # NaN is the one number that differs from itself.
    return not isinstance(value, bool) and isinstance(value, Real) and value == value


def is_finite(value: object) -> bool:
    """Return whether it is a real number that is not infinite."""
    return is_number(value) and abs(float(value)) < float("inf")  # type: ignore[arg-type]


def is_integer(value: object) -> bool:
    """Return whether it is an integer, and no boolean."""
    return not isinstance(value, bool) and isinstance(value, Integral)


def is_time(value: Any) -> bool:
    """Return whether it is a time: a fraction of the run or, above 1, env steps."""
    return is_number(value) and 0 <= value < LATEST


def in_open_unit(value: Any) -> bool:
    """Return whether it is a number in (0, 1)."""
    return is_number(value) and 0 < value < 1


def number(field: str, value: Any, constraint: str, holds: Callable[[Any], bool]) -> Faults:
    """Yield the fault of what is no number, or none for which ``holds`` is true.

    Args:
        field: its name in the message.
        value: anything.
        constraint: what it must be, in words that begin after "must be".
        holds: asked for numbers only.

    >>> list(number("weight", -1, "a number above 0", lambda x: x > 0))
    ['`weight` must be a number above 0, but is -1.']
    """
    if not is_number(value) or not holds(value):
        yield must(field, constraint, value)


def count(field: str, value: Any, least: int = 1, unit: str = "") -> Faults:
    """Yield the fault of what is no integer of at least ``least``.

    >>> list(count("horizon", 0.5, unit="(env steps)"))
    ['`horizon` must be an integer of at least 1 (env steps), but is 0.5.']
    """
    if not is_integer(value) or value < least:
        yield must(field, " ".join(filter(None, [f"an integer of at least {least}", unit])), value)


def whole(field: str, value: Any, constraint: str, least: int, most: float = LATEST) -> Faults:
    """Yield the fault of what is no whole number in a range; 3.0 is whole.

    A float that is whole is what JSON and Tune make of an integer.
    """
    yield from number(field, value, constraint, lambda x: least <= x <= most and not x % 1)


def switch(field: str, value: Any) -> Faults:
    """Yield the fault of what is neither true nor false."""
    if not isinstance(value, bool):
        yield must(field, "true or false", value)


def sparsity(field: str, value: Any) -> Faults:
    """Yield the fault of what is no number in [0, 1)."""
    if not is_number(value):
        yield must(field, "a number in [0, 1)", value)
    elif not 0 <= value < 1:
        yield must(field, "in [0, 1)", float(value))


def choice(names: Collection[str]) -> Check:
    """Return the check that a value is one of ``names``; a registry may grow until it is asked."""

    def check(field: str, value: Any) -> Faults:
        if not isinstance(value, str) or value not in names:
            yield choice_fault(field, value, names)

    return check


def optional(check: Check) -> Check:
    """Return a check that null passes."""

    def checked(field: str, value: Any) -> Faults:
        if value is not None:
            yield from check(field, value)

    return checked


def listed(names: Iterable[str], most: int = 5) -> str:
    """List names in words.

    >>> listed(["a", "b"]), listed("abcdefg")
    ("'a' and 'b'", "'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    quoted = [repr(name) for name in sorted(names)]
    if len(quoted) > most:
        quoted = [*quoted[:most], f"{len(quoted) - most} more"]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
