"""A quantised Linear in whole numbers: rounds what it reads, sums, and gives floats."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rayprune.deploy.integer import operators
from rayprune.deploy.integer.arithmetic import LARGEST
from rayprune.errors import InputError
from rayprune.pruning.quantisation.layers import QuantisedLinear

_BIAS_MOST = 2**29
"""A bias in steps: beside it there is room for the sum."""


class IntegerLinear(nn.Module):
    """A fixed `QuantisedLinear`, step for step.

    Args:
        layer: fixed; see `rayprune.pruning.quantisation.quantiser.fix`.
        name: of it, for what is refused.

    Raises:
        InputError: what it reads isn't rounded, or a sum would need more than 32 bits.
    """

    weight: Tensor
    """``(out, in)``, int8."""
    bias: Tensor
    """``(out,)``, int32."""
    steps: Tensor
    """Of its sums, ``(out,)``."""

    def __init__(self, layer: QuantisedLinear, name: str) -> None:
        super().__init__()
        told, step = layer.fixed, layer.step
        if told is not None and told.activations and told.grid is None:
            raise InputError(
                f"{name!r} rounds what it reads, but has observed no range for that: a file of "
                "whole numbers can't be made of it. Train on beyond `quantise.start`."
            )
        if told is None or told.grid is None or step is None:
            raise InputError(
                f"{name!r} reads numbers in floating point, and a file of whole numbers can't be "
                "made of that. Train with `quantise.activations` 8 or 16; of the first layer with "
                "`quantise.observations`."
            )
        self.inverse = float(told.grid.inverse)
        self.low, self.high = int(told.grid.low), int(told.grid.high)
        self.step_read, self.bits = float(told.grid.step), told.weights
        """Of what it reads, and bits of its weights."""
        exact = layer.weight.detach().double().numpy()
        bias = np.zeros(len(exact)) if layer.bias is None else layer.bias.detach().double().numpy()
        # A row of next to nothing has a step in which its bias would be a huge number.
        steps = np.maximum(step.double().numpy(), np.abs(bias) / (self.step_read * _BIAS_MOST))
        weight = np.rint(exact / steps[:, None])
        in_steps = np.rint(bias / (self.step_read * steps))
        self.register_buffer("weight", torch.from_numpy(weight.astype(np.int8)))
        self.register_buffer("bias", torch.from_numpy(in_steps.astype(np.int32)))
        self.register_buffer("steps", torch.from_numpy((self.step_read * steps).astype(np.float32)))
        # Numbers lie in as many bits with an offset, of which the sum has its part.
        reach = 2 ** (self.high - self.low).bit_length()
        most = np.abs(weight).sum(axis=1) * reach + np.abs(in_steps)
        if most.max(initial=0) > LARGEST:
            raise InputError(
                f"A sum of {name!r} may reach {most.max():.3g}, and 32 bits hold {LARGEST:.3g}. "
                "Set `quantise.activations` (or `observations`, of the first layer) to 8 bits."
            )

    def forward(self, given: Tensor) -> Tensor:
        """Map ``(batch, in)`` to ``(batch, out)``."""
        numbers = operators.quantise(given, self.inverse, self.low, self.high)
        total = operators.integer_linear(numbers, self.weight, self.bias)
        found: Tensor = operators.dequantise(total, self.steps, given)
        return found
