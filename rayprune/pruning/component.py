"""Components: the choices of a config, as objects that know their own rules.

What one choice may know of another it asks here, by a property; nobody compares names. So what a
user registers obeys the rules that hold for the built-in ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from rayprune.pruning.checks import Faults

Scored = Literal["weights", "units", "layers"]

_BUDGETS: Final = ({"sparsity"}, {"neuron", "weight"})


def is_budget(block: Mapping[Any, Any]) -> bool:
    """Return whether one of a config's ``groups`` has a target of its own and nothing else.

    >>> is_budget({"sparsity": 0.5}), is_budget({"sparsity": 0.5, "criterion": "l2"})
    (True, False)
    """
    return set(block) in _BUDGETS


class Component:
    """Something that a config chooses by name: a criterion, a schedule, a granularity, a penalty.

    The first line of its docstring is what `rayprune list` says of it.
    """

    __slots__ = ()

    defaults: ClassVar[Mapping[str, Any]] = {}
    """What its own keys are where a config says nothing."""

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its own keys.

        Args:
            field: what the keys' names start with in the messages, such as ``pruning.schedule``.
            block: the mapping as it was given; unknown keys have been told already.
        """
        del field, block
        yield from ()

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what doesn't go with the other choices; asked of every chosen component once.

        Args:
            prefix: what the field names start with in the messages, such as ``pruning.``.
            chosen: the whole config.
        """
        del prefix, chosen
        yield from ()


class CriterionRules(Component):
    """What others ask of a criterion."""

    __slots__ = ()

    @property
    def scores(self) -> Scored:
        """What it scores: single weights, a layer's units, or whole layers."""
        return "weights"

    @property
    def evidence(self) -> frozenset[str]:
        """Its inputs that must be gathered from data, or summed up in training."""
        return frozenset()

    @property
    def needs_returns(self) -> bool:
        """Whether a driver must measure returns for it."""
        return False


class ScheduleRules(Component):
    """What others ask of a schedule, by its class."""

    __slots__ = ()

    sparse_from_start: ClassVar[bool] = False
    """Whether the masks are there before the first update: there never is a dense policy."""
    grows: ClassVar[bool] = False
    """Whether weights grow back: dynamic sparse training, and growth."""
    fixed: ClassVar[bool] = False
    """Whether the masks never change."""
    measures_first: ClassVar[bool] = False
    """Whether it prunes before the first optimizer step, by what the first minibatches say."""
    in_rounds: ClassVar[bool] = False
    """Whether it prunes in rounds, each at once."""
    finds_sparsity: ClassVar[bool] = False
    """Whether a driver finds the sparsity by the return; ``sparsity`` is an upper bound then."""
    competes: ClassVar[bool] = False
    """Whether several networks of different sparsity are trained, and the best is kept."""
    rewinds: ClassVar[bool] = False
    """Whether the weights go back to those of an early step after each round."""
    undoes: ClassVar[str] = ""
    """How it undoes pruning, as a verb and what follows; empty for one that only prunes."""

    @classmethod
    def criteria_in(cls, block: Mapping[str, Any]) -> list[Any]:
        """Return the names of criteria in its mapping, which prune in place of the config's own."""
        del block
        return []


class GranularityRules(Component):
    """What others ask of a granularity."""

    __slots__ = ()

    single_weights: ClassVar[bool] = False
    """Whether each weight goes by itself: unstructured pruning, whose weights can grow back."""
    swaps_weights: ClassVar[bool] = False
    """Whether one weight can be dropped for another, wherever it is or in a group: N:M sparsity."""
    removes_units: ClassVar[bool] = False
    """Whether it leaves output units without weights: structured pruning, for compaction."""
    whole_rows: ClassVar[bool] = False
    """Whether output units are all that goes: each with all of its weights, none by itself."""
    whole_heads: ClassVar[bool] = False
    """Whether heads of attention are all that goes, each with all of its weights."""
    spans_layers: ClassVar[bool] = False
    """Whether what is removed together lies in several layers."""
    becomes_identity: ClassVar[bool] = False
    """Whether what is removed acts as the identity, in place of zero."""
    in_turn: ClassVar[bool] = False
    """Whether one update prunes several granularities in turn, each with a target of its own."""
    group_keys: ClassVar[tuple[str, ...]] = ("sparsity",)
    """What a config says of each of its ``groups``."""

    @property
    def implied_sparsity(self) -> float | None:
        """The sparsity that its name implies; None where a config says it."""
        return None

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield the groups that don't say what it asks of them."""
        form = ", ".join(f"{key}: s" for key in cls.group_keys)
        for name, block in chosen.groups:
            if set(block) != set(cls.group_keys):
                yield (
                    f"`{prefix}groups.{name}` must be {{{form}}} with granularity "
                    f"{chosen.granularity_name!r}."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The choices of one config, resolved, and what it says in raw values.

    A name that isn't known, which is a fault of its own, stands as a component without rules.
    """

    values: Mapping[str, Any]
    """The fields that were given; they may be wrong in themselves."""
    criterion: CriterionRules
    granularity: GranularityRules
    schedule: type[ScheduleRules]

    @property
    def criterion_name(self) -> object:
        """The criterion as it was given."""
        return self.values.get("criterion", "l1")

    @property
    def granularity_name(self) -> object:
        """The granularity as it was given, an alias too."""
        return self.values.get("granularity", "weight")

    @property
    def groups(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The mapping of each group that has a budget and nothing else, as it was given."""
        given = self.values.get("groups")
        named = given.items() if isinstance(given, Mapping) else ()
        blocks = [(str(name), block) for name, block in named if isinstance(block, Mapping)]
        return [(name, block) for name, block in blocks if is_budget(block)]

    @property
    def schedule_block(self) -> Mapping[str, Any]:
        """The ``schedule`` mapping as it was given; empty where there is none."""
        block = self.values.get("schedule")
        return block if isinstance(block, Mapping) else {}
