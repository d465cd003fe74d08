"""What an experiment's blocks say, its recipe included (`rayprune.pruning.recipes`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from rayprune.algorithms import ALGORITHMS, is_offline
from rayprune.pruning.checks import is_finite
from rayprune.pruning.recipes import RunFacts, filled, find_recipe


def given_blocks(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's blocks, with what its recipe says where they say nothing.

    A block whose lines are all commented out is None, and means its defaults. ``versions`` is what
    `rayprune.config.to_yaml` adds: a record, not an instruction.

    Args:
        raw: as the YAML has it; it may be wrong in itself.

    >>> blocks = given_blocks({"algorithm": "PPO", "pruning": {"recipe": "recommended"}})
    >>> blocks["pruning"]["groups"], blocks["normalise"]
    ({'value': {'sparsity': 0.0}}, {'observations': True})
    """
    given = {
        key: copy.deepcopy(value)
        for key, value in raw.items()
        if value is not None and key != "versions"
    }
    recipe = find_recipe(given.get("pruning"))
    if recipe is None:
        return given
    of_run = recipe.of_run(_facts(given))
    return filled(given, {**of_run, "pruning": {**recipe.pruning, **_pruning(recipe, of_run)}})


def normalises_unasked(raw: Mapping[str, Any]) -> bool:
    """Whether it is a recipe alone that has observations normalised.

    >>> recommended = {"algorithm": "PPO", "pruning": {"recipe": "recommended"}}
    >>> normalises_unasked(recommended)
    True
    >>> normalises_unasked({**recommended, "normalise": {"observations": True}})
    False
    """
    if find_recipe(raw.get("pruning")) is None:
        return False
    said, filled_in = (
        _of(block.get("normalise"), "observations") for block in (raw, given_blocks(raw))
    )
    return said is None and filled_in is True


def followed_policy(raw: Mapping[str, Any]) -> str | None:
    """Return the checkpoint whose inputs a recipe's run goes on with; None where it says its own.

    >>> raw = {"pruning": {"recipe": "recommended"}, "start_from": "runs/dense"}
    >>> followed_policy(raw)
    'runs/dense'
    >>> followed_policy({**raw, "normalise": {"observations": False}}) is None
    True
    """
    if find_recipe(raw.get("pruning")) is None:
        return None
    told = (_of(raw.get("normalise"), "observations"), _filter(raw))
    policy = raw.get("start_from") or _of(raw["pruning"].get("distillation"), "from")
    return policy if isinstance(policy, str) and told == (None, None) else None


def _pruning(recipe: Any, of_run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recipe says of the pruning block by the run, over what it says of all."""
    own: dict[str, Any] = dict(of_run.get("pruning", {}))
    if "schedule" in own and "schedule" in recipe.pruning:
        own["schedule"] = {**recipe.pruning["schedule"], **own["schedule"]}
    return own


def _facts(given: Mapping[str, Any]) -> RunFacts:
    algorithm = given.get("algorithm")
    known = ALGORITHMS.get(algorithm) if isinstance(algorithm, str) else None
    return RunFacts(
        steps=_steps(given, "updates" if is_offline(algorithm) else "env_steps"),
        critic=known is not None and known.critic,
        may_normalise=not (is_offline(algorithm) or _has_own_inputs(given)),
        granularity=given["pruning"].get("granularity"),
        may_bound=known is not None and known.draws and _goes_step_by_step(given["pruning"]),
    )


def _goes_step_by_step(pruning: Mapping[str, Any]) -> bool:
    """Return whether a trained policy is cut in steps of which parts can be taken."""
    schedule = pruning.get("schedule")
    kind = schedule.get("kind", "cubic") if isinstance(schedule, Mapping) else "cubic"
    return kind == "cubic" and pruning.get("operation", "zero") == "zero"


def _steps(given: Mapping[str, Any], unit: str) -> int | None:
    pruning, stop = given["pruning"], given.get("stop")
    found: Any = pruning.get("horizon") or (stop.get(unit) if isinstance(stop, Mapping) else None)
    return int(found) if is_finite(found) and found >= 1 else None


def _has_own_inputs(given: Mapping[str, Any]) -> bool:
    """Return whether something else is said of what the network sees: a filter, images, a policy.

    What a policy saw only its checkpoint tells (`rayprune.rllib.experiment.recipe_inputs`).
    """
    if given.get("start_from") or _of(given["pruning"].get("distillation"), "from"):
        return True
    model = _of(_of(given.get("rllib"), "rl_module"), "model_config")
    return _filter(given) is not None or _of(model, "conv_filters") is not None


def _filter(given: Mapping[str, Any]) -> Any:
    return _of(_of(given.get("rllib"), "env_runners"), "observation_filter")


def _of(block: object, key: str) -> Any:
    return block.get(key) if isinstance(block, Mapping) else None


def recipe_line(blocks: Mapping[str, Any]) -> str | None:
    """Return what a recipe stands for in an experiment, in a line; None without one.

    Args:
        blocks: the experiment's, resolved.
    """
    pruning = blocks["pruning"]
    recipe = find_recipe(pruning)
    if recipe is None:
        return None
    of_run = recipe.of_run(_facts(blocks))
    names = [*recipe.pruning, *(key for key in of_run["pruning"] if key not in recipe.pruning)]
    told = [f"pruning.{name}={_text(pruning[name])}" for name in names]
    told.append(f"normalise.observations={_text(blocks['normalise']['observations'])}")
    return f"Recipe {pruning['recipe']}: {', '.join(told)}"


def _text(value: Any) -> str:
    """Return a value as YAML has it in a line.

    >>> _text({"value": {"sparsity": 0.0}}), _text(True)
    ('{value: {sparsity: 0.0}}', 'true')
    """
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_text(item)}' for key, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)
