"""What a recipe says of a run that begins in a script, where a YAML would tell the rest of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.algorithms import ALGORITHMS
from rayprune.pruning.config import DEFAULT_HORIZON, PruningConfig
from rayprune.pruning.recipes import find_recipe
from rayprune.rllib.algorithms import family_named, family_of
from rayprune.run_recipe import given_blocks

Pruning = PruningConfig | Mapping[str, Any]


def filled_for(config: AlgorithmConfig, pruning: Pruning) -> Pruning:
    """Return a pruning block with what its recipe says of the algorithm, as in a YAML.

    Observations aren't the pruning block's: `rayprune.rllib.normalise` sees to them.

    Args:
        config: the algorithm's.
        pruning: what was given; without a recipe it is returned as it is.
    """
    given = pruning.given if isinstance(pruning, PruningConfig) else pruning
    if find_recipe(given) is None:
        return pruning
    steps = {"env_steps": DEFAULT_HORIZON, "updates": DEFAULT_HORIZON}
    run = {"algorithm": _name_of(config), "stop": steps, "pruning": given}
    whole: dict[str, Any] = given_blocks(run)["pruning"]
    return PruningConfig.from_dict(whole) if isinstance(pruning, PruningConfig) else whole


def _name_of(config: AlgorithmConfig) -> str | None:
    """Return the name of the algorithm that a config is of, or is derived from."""
    family = family_of(config)
    return next((name for name in ALGORITHMS if family_named(name) is family), None)
