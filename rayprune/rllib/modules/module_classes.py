"""Other classes for the RLModules that a config builds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

ClassOf = Callable[[type], Any]


def build_as(config: AlgorithmConfig, class_of: ClassOf) -> None:
    """Let a config build modules of other classes, in place.

    Args:
        config: with a spec of the user's, or without.
        class_of: maps a module's class to the one that takes its place.
    """
    default: Any = config.get_default_rl_module_spec()
    assert not isinstance(default, MultiRLModuleSpec)
    given = config._rl_module_spec
    if given is None:
        # With nothing but the class: RLlib fills in the rest, as it stands when it builds.
        spec = RLModuleSpec(module_class=class_of(default.module_class))
        config.rl_module(rl_module_spec=spec)
    elif isinstance(given, RLModuleSpec):
        config.rl_module(rl_module_spec=_changed(given, default, class_of))
    else:
        changed = copy.copy(given)
        changed.rl_module_specs = {
            module_id: _changed(spec, default, class_of)
            for module_id, spec in given.rl_module_specs.items()
        }
        config.rl_module(rl_module_spec=changed)


def _changed(spec: RLModuleSpec, default: Any, class_of: ClassOf) -> RLModuleSpec:
    changed = copy.copy(spec)
    changed.module_class = class_of(spec.module_class or default.module_class)
    return changed
