"""Actions drawn from RLlib's distributions: the same numbers, without their objects.

Each function takes a distribution's inputs and returns the actions with their log probabilities.
It calls what torch's own class calls, in its order, so that bits and random numbers are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias

import torch
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchSquashedGaussian,
)
from ray.rllib.utils.numpy import MAX_LOG_NN_OUTPUT, MIN_LOG_NN_OUTPUT, SMALL_NUMBER
from torch import Tensor

Drawn: TypeAlias = tuple[Tensor, Tensor]
Draw: TypeAlias = Callable[[Tensor], Drawn]


def draw_of(distribution: Any) -> Draw | None:
    """Return what draws from a distribution of RLlib's, None where that takes its own class."""
    return _DRAWS.get(distribution)


def from_categorical(logits: Tensor) -> Drawn:
    """Draw choices.

    Args:
        logits: shape ``(..., choices)``.

    Returns:
        Both of shape ``(...)``.
    """
    log_probs = logits - logits.logsumexp(dim=-1, keepdim=True)
    probs = torch.softmax(log_probs, dim=-1)
    drawn = torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, True)
    actions = drawn.reshape(logits.shape[:-1])
    return actions, log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def from_gaussian(inputs: Tensor) -> Drawn:
    """Draw vectors of independent numbers.

    Args:
        inputs: means, then logarithms of standard deviations, shape ``(..., 2 * size)``.

    Returns:
        Shapes ``(..., size)`` and ``(...)``.
    """
    loc, log_std = inputs.chunk(2, dim=-1)
    scale = log_std.exp()
    actions = _normal(loc, scale)
    log_probs = _log_prob(actions, loc, scale).sum(-1)
    _check_drawn(loc, scale, log_probs)
    return actions, log_probs


def from_squashed_gaussian(inputs: Tensor) -> Drawn:
    """Draw vectors between -1 and 1; see `from_gaussian`."""
    loc, log_std = inputs.chunk(2, dim=-1)
    scale = torch.clamp(log_std, MIN_LOG_NN_OUTPUT, MAX_LOG_NN_OUTPUT).exp()
    low, high = -1.0, 1.0
    squashed = ((torch.tanh(_normal(loc, scale)) + 1.0) / 2.0) * (high - low) + low
    actions = torch.clamp(squashed, low, high)
    # From the action again, as RLlib has it, though the number before it is known here.
    within = (actions - low) / (high - low) * 2.0 - 1.0
    drawn = torch.atanh(torch.clamp(within, -1.0 + SMALL_NUMBER, 1.0 - SMALL_NUMBER))
    slope = 2.0 * (math.log(2.0) - drawn - torch.nn.functional.softplus(-2.0 * drawn))
    log_probs = _log_prob(drawn, loc, scale).sum(-1) - slope.sum(-1)
    _check_drawn(loc, scale, log_probs)
    return actions, log_probs


def _normal(loc: Tensor, scale: Tensor) -> Tensor:
    """Return what `torch.normal` draws, which looks for negative deviations before it."""
    noise = torch.empty_like(loc, memory_format=torch.contiguous_format).normal_()
    return noise.mul_(scale).add_(loc)


def _check_drawn(loc: Tensor, scale: Tensor, log_probs: Tensor) -> None:
    """Raise what `torch.normal` does for deviations that are no numbers."""
    if not math.isfinite(sum(log_probs.flatten().tolist())) and not (scale >= 0).all():
        torch.normal(loc, scale)


def _log_prob(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Return ``-((value - loc) ** 2) / (2 * scale**2) - log(scale) - log(sqrt(2 * pi))``.

    Squares are products and twice a number is a sum, to the bit: torch takes three times as long
    for a Python number as for a tensor of few.
    """
    off, variance = value - loc, scale * scale
    exponent = off.mul_(off).neg_().div_(variance.add_(variance))
    return exponent.sub_(scale.log()).sub_(_log_root(value.dtype))


@cache
def _log_root(dtype: torch.dtype) -> Tensor:
    return torch.tensor(math.log(math.sqrt(2 * math.pi)), dtype=dtype)


_DRAWS: Final[dict[Any, Draw]] = {
    TorchCategorical: from_categorical,
    TorchDiagGaussian: from_gaussian,
    TorchSquashedGaussian: from_squashed_gaussian,
}
