"""Recipes: named settings that hold together; what a user gives beside one is kept.

``pruning: {recipe: recommended, sparsity: 0.9}`` fills in what the block doesn't say, and in a YAML
what the run doesn't. The result is explicit: a run's config.yaml has all of it, with the recipe's
name, and read back it stays what it is, whatever the recipe stands for by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.recipes.base import Recipe, RunFacts, filled
from rayprune.pruning.recipes.recommended import RecommendedRecipe
from rayprune.pruning.recipes.units import UnitsRecipe
from rayprune.pruning.registry import Registry

__all__ = [
    "RECIPES",
    "Recipe",
    "RunFacts",
    "expanded",
    "filled",
    "find_recipe",
    "recipe_conflicts",
    "register_recipe",
]

_REGISTRY: Registry[type[Recipe]] = Registry(
    "recipe", {"recommended": RecommendedRecipe, "units": UnitsRecipe}
)
RECIPES: Mapping[str, type[Recipe]] = _REGISTRY


def register_recipe(name: str, recipe: type[Recipe]) -> None:
    """Make a recipe known by name to `PruningConfig` and the YAML.

    Args:
        name: a new name.
        recipe: its class.

    Raises:
        ConfigError: the name is taken.
    """
    _REGISTRY.add(name, recipe)


def find_recipe(block: object) -> type[Recipe] | None:
    """Return the recipe that a pruning block names; None where it names none that is known."""
    name = block.get("recipe") if isinstance(block, Mapping) else None
    return RECIPES.get(name) if isinstance(name, str) else None


def expanded(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a pruning block with what its recipe says of the fields that it leaves out.

    >>> block = expanded({"recipe": "recommended", "sparsity": 0.9, "criterion": "l2"})
    >>> block["criterion"], block["distribution"], block["schedule"]["kind"]
    ('l2', 'erk', 'cubic')
    """
    recipe = find_recipe(values)
    return values if recipe is None else filled(values, recipe.pruning)


def recipe_conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield what a config's recipe doesn't go with."""
    recipe = find_recipe(chosen.values)
    if recipe is not None:
        yield from recipe.conflicts(prefix, chosen)
