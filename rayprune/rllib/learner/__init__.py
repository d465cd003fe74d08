"""The Learner that prunes: masks, gradients, moments, target networks after each update."""

from __future__ import annotations

from typing import Final

from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from rayprune.rllib.by_reference import Subclasses
from rayprune.rllib.learner.mixin import PruningMixin

_PRUNING: Final = Subclasses(PruningMixin, "Pruning", __name__)

# Checkpoints name classes here: `Pruning{class}__of__{its module}`.
__getattr__ = _PRUNING.named


def pruned(base: type) -> type[PruningMixin]:
    """Return the pruning subclass of a Learner class; a pruning class is returned as it is."""
    if not issubclass(base, TorchLearner):
        raise TypeError(f"`learner_class` must be a TorchLearner, but is {base.__qualname__}.")
    return _PRUNING.of(base)
