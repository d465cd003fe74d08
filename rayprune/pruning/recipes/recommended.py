"""Recipe ``recommended``: what holds a policy's return at high sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.recipes.base import Recipe, RunFacts

MASK_UPDATES: Final = 60
"""In the length of a run; the ramp has six tenths of them."""


class RecommendedRecipe(Recipe):
    """Magnitude, ERK, a cubic ramp over 20 to 80 % of the run, dense critic, normalised inputs.

    Gradual magnitude pruning after Zhu & Gupta 2017 (arXiv:1710.01878), over the part of the run
    and by the layer-wise ratios that Graesser et al. 2022 (arXiv:2206.10369) found to hold returns.
    The critic isn't deployed, and its density matters more than the actor's (same source).
    docs/findings.md has what the leaderboard's rows say of it.

    >>> facts = RunFacts(steps=120_000, critic=True, may_normalise=True)
    >>> RecommendedRecipe.of_run(facts)["pruning"]
    {'schedule': {'every': 2000}, 'groups': {'value': {'sparsity': 0.0}}}
    """

    pruning: ClassVar[Mapping[str, Any]] = {
        "criterion": "l1",
        "distribution": "erk",
        "schedule": {"kind": "cubic", "begin": 0.2, "end": 0.8},
    }

    @classmethod
    def of_run(cls, facts: RunFacts) -> dict[str, Any]:
        """See `Recipe.of_run`."""
        pruning: dict[str, Any] = {}
        if facts.steps is not None:
            pruning["schedule"] = {"every": max(1, facts.steps // MASK_UPDATES)}
        if facts.critic:
            pruning["groups"] = {"value": {"sparsity": 0.0}}
        rest = {"normalise": {"observations": True}} if facts.may_normalise else {}
        return {"pruning": pruning, **rest}

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what it wasn't made for, and the target that it can't know."""
        if not chosen.granularity.single_weights:
            yield (
                f"`{prefix}granularity` must be 'weight' with `{prefix}recipe` 'recommended', "
                f"which is for single weights, but is {chosen.granularity_name!r}. Leave the "
                f"recipe out, and give `{prefix}distribution` and `{prefix}schedule` yourself."
            )
        targets = (chosen.values.get(key) for key in ("sparsity", "threshold"))
        if all(target is None for target in targets) and not _group_targets(chosen):
            yield (
                f"`{prefix}sparsity` is missing: `{prefix}recipe` 'recommended' says how to prune, "
                "not how much. Give it, such as 0.9; 0 is a dense run."
            )


def _group_targets(chosen: Chosen) -> bool:
    """Return whether a group has a target of its own; the critic that is left dense has none."""
    given = chosen.values.get("groups")
    named = given.values() if isinstance(given, Mapping) else ()
    return any(block != {"sparsity": 0.0} for block in named)
