"""RLModules whose acting layers can round, once a Learner tells them to.

RLlib builds every module from its config: for a Learner, on an EnvRunner, for an evaluation. What
the layers are told lies in buffers and comes with the weights, so that an EnvRunner acts with the
numbers that its Learner trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rayprune.pruning.quantisation.quantiser import candidates, make_quantisable
from rayprune.rllib.by_reference import Subclasses
from rayprune.rllib.modules.groups import group_of, kept_back
from rayprune.rllib.modules.module_classes import build_as

if TYPE_CHECKING:
    _Base = TorchRLModule
else:
    _Base = object

VALUE: Final = "value"


class Quantisable(_Base):
    """The override that gives a TorchRLModule such layers. Made concrete by `quantisable`."""

    def setup(self) -> None:
        """Build the module as its own class does, then let its acting layers round."""
        super().setup()  # type: ignore[no-untyped-call]
        make_quantisable(self, candidates(self, lambda name: acts(self, name)))


def acts(module: Any, layer: str) -> bool:
    """Whether a policy acts with a layer: critics and target networks are the Learner's alone.

    Args:
        module: an RLModule.
        layer: the layer's dotted name.
    """
    if isinstance(module, InferenceOnlyAPI):
        return not layer.startswith(kept_back(module))
    return group_of(layer) != VALUE


def make_modules_quantisable(config: AlgorithmConfig) -> None:
    """Let a config build modules whose acting layers can round, in place."""
    build_as(config, quantisable)


_QUANTISABLE: Final = Subclasses(Quantisable, "Quantisable", __name__)

# Checkpoints name classes here: `Quantisable{class}__of__{its module}`.
__getattr__ = _QUANTISABLE.named
quantisable = _QUANTISABLE.of
"""Return the subclass of a TorchRLModule whose layers can round; one that has them is returned."""
