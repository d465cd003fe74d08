"""All that is learnt of one network beside its target: its weights, moments and masks, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from rayprune.pruning.packing import copied, packed, unpacked
from rayprune.rllib.algorithms.target_networks import target_prefixes

Tensors = Mapping[str, Tensor]
"""By name; the live ones, or copies of them."""

_OF = "::"
"""Between a parameter's name and that of what an optimizer keeps of it."""


@dataclass(slots=True)
class NetworkCopy:
    """A network that takes the live one's place for as long as it learns."""

    tensors: dict[str, Tensor]
    """What `live_tensors` names."""
    masks: dict[str, Tensor]
    """By full parameter name, True = keep."""
    written: dict[str, Tensor]
    """What is zeroed, with the masks of biases that go with units; see `Pruner.written_masks`."""
    loss: Tensor
    """Of its Q-values, summed up since the last choice."""

    def mask_gradients(self, gradients: Mapping[Any, Tensor], live: Tensors) -> None:
        """Zero the gradients of pruned weights, in place.

        Args:
            gradients: by parameter.
            live: the module's parameters by name.
        """
        for name, mask in self.written.items():
            gradient = gradients.get(live[name])
            if gradient is not None:
                gradient.mul_(mask)

    @torch.no_grad()
    def mask(self, live: Tensors) -> None:
        """Zero pruned weights in live parameters, in place."""
        for name, mask in self.written.items():
            live[name].mul_(mask)

    @torch.no_grad()
    def mask_moments(self) -> None:
        """Zero what is kept of pruned weights."""
        for key, tensor in self.tensors.items():
            mask = self.written.get(key.partition(_OF)[0])
            if mask is not None and tensor.shape == mask.shape:
                tensor.mul_(mask)

    def to_state(self) -> dict[str, Any]:
        """Return it as NumPy arrays."""
        return {
            "tensors": {name: copied(held).numpy() for name, held in self.tensors.items()},
            "masks": _packed(self.masks),
            "written": _packed(self.written),
            "loss": copied(self.loss).numpy(),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], device: torch.device) -> NetworkCopy:
        """Read what `to_state` returned."""
        return cls(
            {name: copied(held).to(device) for name, held in state["tensors"].items()},
            _unpacked(state["masks"], device),
            _unpacked(state["written"], device),
            copied(state["loss"]).to(device),
        )


def live_tensors(learner: TorchLearner, module_id: str, module: Any) -> dict[str, Tensor]:
    """Return what a module learns, without its target networks, and what its optimizers keep.

    SAC's temperature has an optimizer too, and is among it.

    Args:
        learner: RLlib's.
        module_id: of the module.
        module: the RLModule, not wrapped.
    """
    targets = target_prefixes(module)
    tensors = {
        name: tensor
        for name, tensor in module.state_dict(keep_vars=True).items()
        if not (targets and name.startswith(targets))
    }
    names = {id(tensor): name for name, tensor in tensors.items()}
    for place, parameter in _stepped(learner, module_id):
        name = names.get(id(parameter), place)
        tensors.setdefault(name, parameter)
        for _, optimizer in learner.get_optimizers_for_module(module_id):
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}{_OF}{key}"] = value
    return {name: tensor.detach() for name, tensor in tensors.items()}


def is_kept_by_optimizer(name: str) -> bool:
    """Whether a tensor of `live_tensors` is an optimizer's."""
    return _OF in name


@torch.no_grad()
def exchange(live: Tensors, held: dict[str, Tensor]) -> None:
    """Let live tensors and a copy change places, value by value.

    Args:
        live: they keep their memory, which others refer to.
        held: replaced, and given what it lacks: an optimizer keeps nothing before its first step.
    """
    for name, tensor in live.items():
        before = tensor.clone()
        if name in held:
            tensor.copy_(held[name])
        else:
            tensor.zero_()
        held[name] = before


def _stepped(learner: TorchLearner, module_id: str) -> Iterator[tuple[str, Tensor]]:
    for optimizer_name, optimizer in learner.get_optimizers_for_module(module_id):
        held = [p for group in optimizer.param_groups for p in group["params"]]
        for place, parameter in enumerate(held):
            yield f"{optimizer_name}/{place}", parameter


def _packed(masks: Tensors) -> dict[str, dict[str, Any]]:
    return {
        name: {"bits": packed(mask).numpy(), "shape": list(mask.shape)}
        for name, mask in masks.items()
    }


def _unpacked(state: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    return {
        name: unpacked(np.asarray(held["bits"]), held["shape"]).to(device)
        for name, held in state.items()
    }
