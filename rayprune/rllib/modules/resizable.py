"""RLModules that take weights of a smaller network, and become as small.

RLlib builds every module from its config: on a restarted EnvRunner, for an evaluation, before a
checkpoint is restored. A policy that was compacted in mid-training then arrives in a module of the
original sizes. Here it resizes to what arrives, so that no config needs to say the sizes: actor,
critic and each layer have their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rayprune.pruning.layers.resizing import fit_to
from rayprune.rllib.by_reference import Subclasses
from rayprune.rllib.modules.module_classes import build_as

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
    build_as(config, shrinkable)


_SHRINKABLE: Final = Subclasses(Shrinkable, "Shrinkable", __name__)

# Checkpoints name classes here: `Shrinkable{class}__of__{its module}`.
__getattr__ = _SHRINKABLE.named
shrinkable = _SHRINKABLE.of
"""Return the resizing subclass of a TorchRLModule; one that resizes is returned as it is."""
