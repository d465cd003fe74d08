"""Methods whose trials know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rayprune.errors import shown
from rayprune.search.domains import Choices
from rayprune.search.methods.base import SearchFields, SearchMethod, SearchTask
from rayprune.search.space import Space

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher


class RandomMethod(SearchMethod):
    """``random``."""

    line = "independent trials with values drawn from the space"


class GridMethod(SearchMethod):
    """``grid``."""

    line = "every combination of the space's choices"

    def faults(self, name: str, fields: SearchFields, space: Space) -> Iterator[str]:
        """A range has no values to list."""
        yield from super().faults(name, fields, space)
        for key, domain in space.items():
            if not isinstance(domain, Choices):
                yield (
                    f"`search.space.{key}` must be a `choice` for `grid`, which runs every "
                    "combination. List its values, or use `random`."
                )

    def trials(self, fields: SearchFields, space: Space) -> int:
        """Return how many combinations there are."""
        del fields
        return space.grid_size

    def samples(self, fields: SearchFields) -> int:
        """Return 1: Tune multiplies it by the combinations."""
        del fields
        return 1

    def drawn(self, space: Space) -> dict[str, Any]:
        """Return Tune's grids."""
        from ray import tune

        return {key: tune.grid_search(domain.probes()) for key, domain in space.items()}


class ListedMethod(SearchMethod):
    """``listed``."""

    line = "the trials that `search.points` lists, each with its own values, in their order"
    options = frozenset({"points"})

    def faults(self, name: str, fields: SearchFields, space: Space) -> Iterator[str]:
        """Each point has a value of the space at each of its keys, and no other."""
        yield from super().faults(name, fields, space)
        if not fields.points:
            yield (
                "`search.points` is missing: `listed` runs a trial for each of its entries, such "
                "as [{pruning.sparsity: 0.9}]."
            )
        points = list(fields.points or ())
        for number, point in enumerate(points):
            if point in points[:number]:
                yield f"`search.points` must not hold an entry twice, but does {shown(point)}."
            for key in sorted(point.keys() ^ set(space)):
                what = "has no value for" if key in space else "names, beside the space,"
                yield f"`search.points` entry {number} {what} {key!r}. Make them the same keys."
            for key in sorted(point.keys() & set(space)):
                if not space[key].holds(point[key]):
                    yield (
                        f"`search.points` entry {number} has {shown(point[key])} for {key!r}, "
                        f"which `search.space.{key}` does not hold. Widen it."
                    )

    def trials(self, fields: SearchFields, space: Space) -> int:
        """Return how many points there are."""
        del space
        return len(fields.points or ())

    def samples(self, fields: SearchFields) -> int:
        """Return how many points there are."""
        return len(fields.points or ())

    def drawn(self, space: Space) -> dict[str, Any]:
        """Return nothing: Tune draws no value itself."""
        del space
        return {}

    def searcher(self, task: SearchTask) -> Searcher:
        """Return what hands out one point after the other."""
        from rayprune.search.schedulers.listed_points import ListedPoints

        return ListedPoints(space=task.space, points=task.fields.points or ())

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return one that lets all trials end, and tells the searcher which there are."""
        del task
        from rayprune.search.schedulers.listed_points import ListedTrials

        return ListedTrials()  # type: ignore[no-untyped-call]
