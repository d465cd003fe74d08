"""RLModules that take weights of a smaller network, and become as small.

RLlib builds every module from its config: on a restarted EnvRunner, for an evaluation, before a
checkpoint is restored. A policy that was compacted in mid-training then arrives in a module of the
original sizes. Here it resizes to what arrives, so that no config needs to say the sizes: actor,
critic and each layer have their own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rayprune.pruning.layers.resizing import fit_to
from rayprune.rllib.by_reference import Subclasses

if TYPE_CHECKING:
    _Base = TorchRLModule
else:
    _Base = object


class Shrinkable(_Base):
    """The override that makes a TorchRLModule resize. Made concrete by `shrinkable`."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take on the sizes of what is loaded, then load it."""
        fit_to(self, state_dict)
        return super().load_state_dict(state_dict, *args, **kwargs)


def make_shrinkable(config: AlgorithmConfig) -> None:
    """Let a config build modules that resize, in place."""
    default = config.get_default_rl_module_spec()
    given = config._rl_module_spec
    if given is None:
        # With nothing but the class: RLlib fills in the rest, as it stands when it builds.
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=_class_of(default)))
    elif isinstance(given, RLModuleSpec):
        config.rl_module(rl_module_spec=_changed(given, default))
    else:
        changed = copy.copy(given)
        changed.rl_module_specs = {
            module_id: _changed(spec, default) for module_id, spec in given.rl_module_specs.items()
        }
        config.rl_module(rl_module_spec=changed)


def _changed(spec: RLModuleSpec, default: Any) -> RLModuleSpec:
    changed = copy.copy(spec)
    changed.module_class = shrinkable(spec.module_class or _class_of(default, plain=True))
    return changed


def _class_of(default: Any, *, plain: bool = False) -> Any:
    assert not isinstance(default, MultiRLModuleSpec)
    return default.module_class if plain else shrinkable(default.module_class)


_SHRINKABLE: Final = Subclasses(Shrinkable, "Shrinkable", __name__)

# Checkpoints name classes here: `Shrinkable{class}__of__{its module}`.
__getattr__ = _SHRINKABLE.named
shrinkable = _SHRINKABLE.of
"""Return the resizing subclass of a TorchRLModule; one that resizes is returned as it is."""
