"""Recipe ``units``: a narrow policy out of a wide one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.recipes.base import Recipe, RunFacts, settings_of_run, target_faults

MASK_UPDATES: Final = 60
"""In the length of a run; the ramp has six tenths of them."""
_REFUSED: Final = "hybrid"
COMPACTIONS: Final = 20
"""In the length of a run."""


class UnitsRecipe(Recipe):
    """Whole units by magnitude, as many in every layer, which leave the net while it trains.

    A cubic ramp over 20 to 80 % of the run (Zhu & Gupta 2017, arXiv:1710.01878), a dense critic,
    normalised inputs, and a deviation that doesn't shrink meanwhile (`HoldDeviation`). The file is
    a dense net: smaller and faster than one with as many single weights. docs/findings.md has what
    the leaderboard's rows say of it.

    >>> facts = RunFacts(steps=120_000, critic=False, may_normalise=False)
    >>> UnitsRecipe.of_run(facts)["pruning"]
    {'schedule': {'every': 2000}, 'compact_every': 6000}
    """

    pruning: ClassVar[Mapping[str, Any]] = {
        "granularity": "neuron",
        "criterion": "l1",
        "distribution": "uniform",
        "schedule": {"kind": "cubic", "begin": 0.2, "end": 0.8},
        "remedies": {"hold_deviation": True},
    }

    @classmethod
    def of_run(cls, facts: RunFacts) -> dict[str, Any]:
        """See `Recipe.of_run`."""
        if facts.granularity == _REFUSED:
            return {}  # so that no fault is about what the recipe says itself
        settings = settings_of_run(facts, MASK_UPDATES)
        if facts.steps is not None and facts.granularity in (None, "neuron"):
            settings["pruning"]["compact_every"] = max(1, facts.steps // COMPACTIONS)
        return settings

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what it wasn't made for, and the target that it can't know."""
        if not chosen.granularity.removes_units or chosen.granularity.in_turn:
            yield (
                f"`{prefix}granularity` must be one that removes whole units and nothing else, "
                f"such as 'neuron', with `{prefix}recipe` 'units', but is "
                f"{chosen.granularity_name!r}. Take recipe 'recommended' for single weights, or "
                "leave it out."
            )
        else:
            yield from target_faults(prefix, chosen)
