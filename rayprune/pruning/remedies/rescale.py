"""Rescaling: what is left of a weight matrix after a cut takes over the norm of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from rayprune.pruning.checks import Faults, switch
from rayprune.pruning.precision import scored
from rayprune.pruning.remedies.base import Remedy


class Rescale(Remedy):
    """Gives each weight matrix back the norm that a cut has taken."""

    options: ClassVar[Mapping[str, str]] = {
        "rescale": "scale what is left of each weight matrix at a cut, so that its norm stays"
    }

    def __init__(self) -> None:
        self._norms: dict[str, Tensor] = {}

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its key."""
        yield from switch(f"{field}.rescale", block.get("rescale", False))

    def before_drop(self, name: str, weight: nn.Parameter) -> None:
        """Note the norm, if the config wants it kept."""
        self._norms.clear()
        if self.settings.get("rescale"):
            self._norms[name] = scored(weight.detach()).norm()

    def after_drop(self, name: str, weight: nn.Parameter) -> float | None:
        """Scale what is left, in place; return the factor."""
        norm = self._norms.get(name)
        return None if norm is None else keep_norm(weight, norm)


def keep_norm(weight: Tensor, norm: Tensor) -> float:
    """Scale a weight matrix to the L2 norm that it had, in place; return the factor.

    The next layer then sees inputs of about the size that it has learnt from.

    Args:
        weight: after the cut, any shape.
        norm: L2 norm before it; shape ``()``.

    Returns:
        The factor, at least 1; 1 where nothing is left to scale.

    >>> import torch
    >>> weight = torch.tensor([[3.0, 0.0]])
    >>> keep_norm(weight, torch.tensor(6.0)), weight
    (2.0, tensor([[6., 0.]]))
    """
    left = float(scored(weight).norm())
    factor = float(norm) / left if left > 0 else 1.0
    weight.mul_(factor)
    return factor
