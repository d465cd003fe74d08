"""Which RLModules of an algorithm are pruned, and how, as its config says at the moment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.schedules import schedule_of
from rayprune.rllib.settings.keys import (
    CONFIG_KEY,
    DRIVEN_KEY,
    MODULES_KEY,
    PRUNE,
    REGISTERED_KEY,
)
from rayprune.rllib.settings.registered import register_missing

_NOT_PRUNING: Final = frozenset({DRIVEN_KEY, MODULES_KEY, REGISTERED_KEY})
Signalled = Callable[[Mapping[str, Any]], dict[str, Any]]


class ModuleConfigs:
    """Reads each module's PruningConfig at every use, and parses it only when it has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Any], PruningConfig]] = {}

    def config_of(
        self,
        config: AlgorithmConfig,
        module_id: str,
        signalled: Signalled,
        frozen_too: bool = False,
    ) -> PruningConfig:
        """Return a module's config as it is now.

        Args:
            config: the Learner's.
            module_id: of the module.
            signalled: writes a driver's signals into the plain pruning dict.
            frozen_too: prune what is frozen, whatever the config says of it.
        """
        held = signalled(_held(config, module_id))
        if frozen_too:
            held = {**held, "frozen": PRUNE}
        known = self._known.get(module_id)
        if known is None or known[0] != held:
            register_missing(held.get(REGISTERED_KEY, {}))
            changes = held.get(MODULES_KEY, {}).get(module_id, {})
            plain = {key: value for key, value in held.items() if key not in _NOT_PRUNING}
            parsed = PruningConfig.from_dict({**plain, **changes})
            known = self._known[module_id] = (held, parsed)
        return known[1]


def pruning_in(config: Any) -> dict[str, Any]:
    """Return the plain pruning dict that an algorithm's config holds; empty without one."""
    held: dict[str, Any] = config.learner_config_dict.get(CONFIG_KEY, {})
    return held


def competes(config: Any) -> bool:
    """Whether several networks of any module are trained, of which the best is kept."""
    held = pruning_in(config)
    blocks = [held, *(held.get(MODULES_KEY) or {}).values()]
    return any(schedule_of(block["schedule"]).competes for block in blocks if "schedule" in block)


def is_driven(config: Any) -> bool:
    """Whether a driver of ours validates, posts what a schedule waits for, and tells people."""
    return bool(pruning_in(config).get(DRIVEN_KEY))


def is_named(config: AlgorithmConfig, module_id: str) -> bool:
    """Whether a module is named among those to prune."""
    return module_id in (_held(config, module_id).get(MODULES_KEY) or {})


def is_asked_for(config: AlgorithmConfig, module_id: str) -> bool:
    """Whether a module is to be pruned though it isn't trained."""
    held = _held(config, module_id)
    changes = (held.get(MODULES_KEY) or {}).get(module_id, {})
    return is_named(config, module_id) or {**held, **changes}.get("frozen") == PRUNE


def is_trained(config: AlgorithmConfig, module_id: str) -> bool:
    """Whether ``policies_to_train`` has a module; one that is decided by the batch counts as so."""
    chosen = config.policies_to_train
    if chosen is None or not callable(chosen):
        return chosen is None or module_id in chosen
    try:
        return bool(chosen(module_id, None))
    # Whatever a user's function may raise that looks into the batch, of which there is none yet.
    except Exception:
        return True


def is_pruned(config: AlgorithmConfig, module_id: str) -> bool:
    """Whether a module is among those to prune; without a list, every one is."""
    chosen: Mapping[str, Any] | None = _held(config, module_id).get(MODULES_KEY)
    return chosen is None or module_id in chosen


def check_ids(config: AlgorithmConfig, module_ids: Collection[str]) -> None:
    """Raise ConfigError if a module is to be pruned that the algorithm doesn't have."""
    chosen = pruning_in(config).get(MODULES_KEY) or {}
    faults = [
        f"`modules` must be of {sorted(module_ids)}, but one is {name!r}."
        f"{did_you_mean(name, module_ids)}"
        for name in chosen
        if name not in module_ids
    ]
    if faults:
        raise ConfigError(faults)


def _held(config: AlgorithmConfig, module_id: str) -> dict[str, Any]:
    """Return a module's pruning dict: the algorithm's, changed by overrides of the module's own.

    `algorithm_config_overrides_per_module` replaces `learner_config_dict` as a whole, and what it
    puts there is for others.
    """
    own = config.get_config_for_module(module_id).learner_config_dict.get(CONFIG_KEY, {})
    base = pruning_in(config)
    return base if own is base or not own else {**base, **own}
