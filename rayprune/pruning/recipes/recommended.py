"""Recipe ``recommended``: what holds a policy's return at high sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.recipes.base import Recipe, RunFacts, settings_of_run, target_faults

MASK_UPDATES: Final = 60
"""In the length of a run; the ramp has six tenths of them."""
MAX_KL: Final = 0.05
"""Of a mask update, in nats: a few times what an iteration of PPO moves a policy by. Cuts that are
made up for stay far below it, up to where too little is left; there it is the target that waits."""


class RecommendedRecipe(Recipe):
    """Magnitude, ERK, a cubic ramp over 20 to 80 % of the run, dense critic, normalised inputs.

    Gradual magnitude pruning after Zhu & Gupta 2017 (arXiv:1710.01878), over the part of the run
    and by the layer-wise ratios that Graesser et al. 2022 (arXiv:2206.10369) found to hold returns.
    The critic isn't deployed, and its density matters more than the actor's (same source). What
    is left makes up for each cut (`Reconstruct`), and a Gaussian policy's deviation doesn't shrink
    while masks change (`HoldDeviation`). Each mask update of an RLlib run is bounded by `MAX_KL`.
    docs/findings.md has what the leaderboard's rows say of it.

    >>> facts = RunFacts(steps=120_000, critic=True, may_normalise=True)
    >>> RecommendedRecipe.of_run(facts)["pruning"]
    {'schedule': {'every': 2000}, 'groups': {'value': {'sparsity': 0.0}}}
    """

    pruning: ClassVar[Mapping[str, Any]] = {
        "criterion": "l1",
        "distribution": "erk",
        "schedule": {"kind": "cubic", "begin": 0.2, "end": 0.8},
        "remedies": {"hold_deviation": True, "reconstruct": True},
    }

    @classmethod
    def of_run(cls, facts: RunFacts) -> dict[str, Any]:
        """See `Recipe.of_run`."""
        settings = settings_of_run(facts, MASK_UPDATES)
        if facts.may_bound:
            settings["pruning"]["max_kl"] = MAX_KL
        return settings

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what it wasn't made for, and the target that it can't know."""
        if not chosen.granularity.single_weights:
            yield (
                f"`{prefix}granularity` must be 'weight' with `{prefix}recipe` 'recommended', "
                f"which is for single weights, but is {chosen.granularity_name!r}. Take recipe "
                f"'units' for whole units, or leave it out, and give `{prefix}distribution` and "
                f"`{prefix}schedule` yourself."
            )
        yield from target_faults(prefix, chosen)
