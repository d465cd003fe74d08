"""`Recipe`: what each recipe says, of a pruning block and of the run that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from rayprune.pruning.component import Component
from rayprune.pruning.schedules.base import DEFAULT_KIND

_KIND: Final = "kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a recipe may ask of the run that it is for."""

    steps: int | None
    """Env steps of the whole run, or updates where it learns from recorded data."""
    critic: bool
    """Whether a critic is trained beside the policy, and stays behind when that is deployed."""
    may_normalise: bool
    """Whether observations can be normalised, and nothing else was said of them."""


class Recipe(Component):
    """Named settings; the first line of its docstring is what `rayprune list recipes` says."""

    pruning: ClassVar[Mapping[str, Any]] = {}
    """Fields of the pruning block, where it leaves them out."""

    @classmethod
    def of_run(cls, facts: RunFacts) -> dict[str, Any]:
        """Return what else an experiment says, where it leaves it out, as its YAML has it."""
        del facts
        return {}


def filled(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, and the defaults for what wasn't.

    A ``schedule`` of the same kind is filled up key by key. So are blocks of blocks (`pruning` and
    `normalise` of an experiment); other fields are the user's or the recipe's as a whole.

    >>> filled({"schedule": {"every": 50}}, {"schedule": {"kind": "cubic", "end": 0.8}})
    {'schedule': {'kind': 'cubic', 'end': 0.8, 'every': 50}}
    >>> filled({"schedule": {"kind": "rigl"}}, {"schedule": {"kind": "cubic", "end": 0.8}})
    {'schedule': {'kind': 'rigl'}}
    """
    result = dict(given)
    for key, default in defaults.items():
        held = given.get(key)
        if key not in given:
            result[key] = default
        elif key == "schedule" and isinstance(held, Mapping):
            kind, usual = (block.get(_KIND, DEFAULT_KIND) for block in (held, default))
            result[key] = {**default, **held} if kind == usual else held
        elif key in ("pruning", "normalise") and isinstance(held, Mapping):
            result[key] = filled(held, default)
    return result
