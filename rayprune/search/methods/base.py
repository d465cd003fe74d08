"""What a search method is: its own rules, and its parts in Ray Tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from rayprune.search.domains import Choices
from rayprune.search.objectives import Objectives
from rayprune.search.space import Space

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import SearchAlgorithm, Searcher


class SearchFields(Protocol):
    """The fields of a ``search`` block that methods look at; see `SearchConfig`."""

    @property
    def population(self) -> int:
        """How many trials."""

    @property
    def reduction_factor(self) -> int | None:
        """One in how many goes on at a rung."""

    @property
    def generation(self) -> int | None:
        """How many trials a generation has."""

    @property
    def points(self) -> Sequence[Mapping[str, Any]] | None:
        """The values of each trial, where they are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTask:
    """A sweep as its method sees it."""

    fields: SearchFields
    space: Space
    objectives: Objectives
    """With the dense return, where they need it."""
    interval: int
    """Env steps between two results of a trial."""
    env_steps: int
    """At which a trial ends."""
    seed: int
    synch: bool
    at_once: int
    """How many trials run side by side."""
    on_exploit: Callable[[Mapping[str, Any]], None]


class SearchMethod:
    """How a population is searched; one for each name that `search.method` may be."""

    line: ClassVar[str]
    """What it is, for ``rayprune list methods``."""
    one_objective: ClassVar[bool] = False
    constrained: ClassVar[bool] = True
    """Whether it keeps to `subject_to`."""
    copies: ClassVar[bool] = False
    """Whether trials become clones of others. Such a method writes checkpoints itself."""
    tells_copies: ClassVar[bool] = True
    """Whether it tells of each clone; else the journal finds it by its checkpoint."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Fields of the block that are its own."""

    def faults(self, name: str, fields: SearchFields, space: Space) -> Iterator[str]:
        """Yield what is wrong with fields that are sound by themselves, but not for this method."""
        if self.copies and fields.population < 2:
            yield (
                f"`search.population` must be at least 2 for `{name}`, whose worst copy the "
                f"best, but is {fields.population}. Raise it, or use `random`."
            )

    def trials(self, fields: SearchFields, space: Space) -> int:
        """Return how many trials there will be."""
        del space
        return fields.population

    def samples(self, fields: SearchFields) -> int:
        """Return what Tune calls ``num_samples``."""
        return fields.population

    def drawn(self, space: Space) -> dict[str, Any]:
        """Return the domains that Tune itself draws values from, by dotted key."""
        return {
            key: (replace(domain, grid=False) if isinstance(domain, Choices) else domain).to_tune()
            for key, domain in space.items()
        }

    def searcher(self, task: SearchTask) -> Searcher | SearchAlgorithm:
        """Return what draws the values of each trial: Tune's own generator, by the sweep's seed."""
        from ray.tune.search.basic_variant import BasicVariantGenerator

        return BasicVariantGenerator(random_state=task.seed)

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return what decides on a trial at each result; one that lets all of them end."""
        del task
        from ray.tune.schedulers import FIFOScheduler

        return FIFOScheduler()
