"""A Learner's forward, without a walk over all layers to set them into a mode that they are in."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rayprune.rllib.settings.foreign_code import unknown_classes

_OF_MODE = ("train", "forward_train")


def forward_train(parent: Any, batch: Mapping[str, Any], *, sets_modes: bool) -> dict[str, Any]:
    """Run a Learner's modules on a minibatch.

    Args:
        parent: the Learner's MultiRLModule.
        batch: by module id.
        sets_modes: whether layers may have been set into another mode than training, each by
            itself. A whole module that was is always set back.

    Returns:
        What RLlib's ``forward_train`` does, by module id.
    """
    if sets_modes or type(parent) is not MultiRLModule:
        found: dict[str, Any] = parent.forward_train(batch)
        return found
    held = parent._rl_modules
    return {mid: _forward_train(held[mid], batch[mid]) for mid in batch if mid in held}


def _forward_train(module: Any, columns: Any) -> dict[str, Any]:
    alike = module.training and not module.inference_only and _sets_mode_as_torch(module.__class__)
    found: dict[str, Any] = (module._forward_train if alike else module.forward_train)(columns)
    return found


@functools.cache
def _sets_mode_as_torch(cls: type) -> bool:
    """Whether a module's `forward_train` does no more than RLlib's around `_forward_train`."""
    # One wrapped for several Learners is no TorchRLModule.
    return issubclass(cls, TorchRLModule) and not any(
        name in vars(base) for base in unknown_classes(cls) for name in _OF_MODE
    )
