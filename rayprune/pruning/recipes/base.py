"""`Recipe`: what each recipe says, of a pruning block and of the run that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen, Component
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
    granularity: str | None = None
    """The user's own choice; None where it is left to the recipe."""
    may_bound: bool = False
    """Whether mask updates can be bounded by how far they move the policy."""


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


def settings_of_run(facts: RunFacts, mask_updates: int) -> dict[str, Any]:
    """Return how often masks change, a dense critic, and normalised observations.

    The critic isn't deployed, and its density matters more than the actor's (Graesser et al. 2022,
    arXiv:2206.10369).

    >>> facts = RunFacts(steps=120_000, critic=True, may_normalise=False)
    >>> settings_of_run(facts, 60)
    {'pruning': {'schedule': {'every': 2000}, 'groups': {'value': {'sparsity': 0.0}}}}
    """
    pruning: dict[str, Any] = {}
    if facts.steps is not None:
        pruning["schedule"] = {"every": max(1, facts.steps // mask_updates)}
    if facts.critic:
        pruning["groups"] = {"value": {"sparsity": 0.0}}
    rest = {"normalise": {"observations": True}} if facts.may_normalise else {}
    return {"pruning": pruning, **rest}


def target_faults(prefix: str, chosen: Chosen) -> Faults:
    """Yield that there is no target, which a recipe can't know."""
    targets = (chosen.values.get(key) for key in ("sparsity", "threshold"))
    if all(target is None for target in targets) and not _group_targets(chosen):
        yield (
            f"`{prefix}sparsity` is missing: `{prefix}recipe` {chosen.values['recipe']!r} says how "
            "to prune, not how much. Give it, such as 0.9; 0 is a dense run."
        )


def _group_targets(chosen: Chosen) -> bool:
    """Return whether a group has a target of its own; the critic that is left dense has none."""
    given = chosen.values.get("groups")
    named = given.values() if isinstance(given, Mapping) else ()
    return any(block != {"sparsity": 0.0} for block in named)
