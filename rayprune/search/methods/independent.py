"""Methods whose trials know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rayprune.search.domains import Choices
from rayprune.search.methods.base import SearchFields, SearchMethod
from rayprune.search.space import Space


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
