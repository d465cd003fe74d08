"""The deviation of a Gaussian policy: how wide it is, and how to keep it so.

RLlib's policies have it in two forms. With `free_log_std` log-stds are parameters, the same in
every state; else the head puts them out beside the means, and what it adds in every state alike is
its bias.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from torch import Tensor, nn

from rayprune.rllib.algorithms import family_of_module
from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.module_objective import valid_rows
from rayprune.rllib.learner.policy_outputs import left_alone
from rayprune.rllib.modules.groups import group_of
from rayprune.rllib.modules.heads import POLICY

logger = logging.getLogger(__name__)

LOG_STD: Final = "log_std"
"""What RLlib's heads and ours call the parameter."""

Batch = Mapping[str, Any]


class Deviation(ABC):
    """A policy's log-stds, one an action's dimension."""

    @abstractmethod
    def level(self, batch: Batch) -> Tensor | None:
        """Return where they are, shape ``(actions,)``; in all states of a minibatch on average.

        Args:
            batch: a minibatch of the module, or nothing. Every Learner of a group asks at once.

        Returns:
            None where no Learner can tell.
        """

    @abstractmethod
    def hold(self, floor: Tensor, batch: Batch) -> None:
        """Lift those that are below a floor up to it, in place; in every state by as much.

        Args:
            floor: as `level` returned it.
            batch: as for `level`.
        """


class FreeDeviation(Deviation):
    """Log-stds that are parameters."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters

    def level(self, batch: Batch) -> Tensor:
        """Return the parameters."""
        del batch
        return torch.cat([parameter.detach().flatten() for parameter in self._parameters])

    @torch.no_grad()
    def hold(self, floor: Tensor, batch: Batch) -> None:
        """Set parameters to the floor."""
        del batch
        parts = floor.split([parameter.numel() for parameter in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            least = part.view_as(parameter).to(parameter.device)
            parameter.copy_(torch.maximum(parameter, least))


class HeadDeviation(Deviation):
    """Log-stds that a head puts out as its second half."""

    def __init__(self, module: nn.Module, bias: nn.Parameter) -> None:
        self._module, self._bias = module, bias

    def level(self, batch: Batch) -> Tensor | None:
        """Return their mean over the rows of all Learners' minibatches."""
        rows = self._rows(batch)
        count = rows.new_tensor(float(len(rows)))
        total, of = ranks.over_learners().mean([rows.sum(dim=0), count])
        return total / of if of > 0 else None

    @torch.no_grad()
    def hold(self, floor: Tensor, batch: Batch) -> None:
        """Add to the head's bias what the mean has fallen below the floor."""
        level = self.level(batch)
        if level is not None:
            self._bias[len(level) :].add_((floor.to(level.device) - level).clamp(min=0.0))

    def _rows(self, batch: Batch) -> Tensor:
        """Return the log-stds in a minibatch, shape ``(rows, actions)``; none if that fails."""
        none = self._bias.detach().new_zeros(0, self._bias.numel() // 2)
        if not batch:
            return none
        try:
            with torch.no_grad(), left_alone(self._module):
                inputs = family_of_module(self._module).policy(self._module, dict(batch)).inputs
        except Exception:  # a user's own module runs here; the other Learners wait for this one
            logger.warning("A policy's deviation can't be told, and isn't held.", exc_info=True)
            return none
        rows = inputs.flatten(0, -2).chunk(2, dim=-1)[1]
        valid = valid_rows(batch)
        return rows if valid is None else rows[valid]


def deviation_of(module: Any, heads: Iterable[str]) -> Deviation | None:
    """Return the deviation of a module's policy.

    Args:
        module: an RLModule, not wrapped.
        heads: names of the layers whose units are its outputs.

    Returns:
        None where it has none, or none that could be held: actions without a Gaussian, a squashed
        one (SAC holds its entropy by itself), a head without a bias.
    """
    free = log_stds(module)
    if free:
        return FreeDeviation(list(free.values()))
    try:
        kind = module.get_train_action_dist_cls()
    except Exception:  # a user's own module may have none
        return None
    if not (isinstance(kind, type) and issubclass(kind, TorchDiagGaussian)):
        return None
    width = 2 * math.prod(module.action_space.shape)
    named = (module.get_submodule(name) for name in heads if group_of(name) == POLICY)
    biases = [bias for layer in named if (bias := _bias(layer, width)) is not None]
    return HeadDeviation(module, biases[0]) if len(biases) == 1 else None


def log_stds(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the log-stds of a module that are parameters and are trained, by their full names."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if name.rpartition(".")[2] == LOG_STD and parameter.requires_grad
    }


def _bias(layer: nn.Module, width: int) -> nn.Parameter | None:
    bias = layer._parameters.get("bias")
    fits = bias is not None and bias.requires_grad and bias.numel() == width
    return bias if fits else None
