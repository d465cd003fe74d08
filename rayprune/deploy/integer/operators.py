"""The arithmetic of whole numbers as torch operators, so that graphs can hold it.

`rayprune::quantise`, `integer_linear`, `rescale`, `integer_tanh`, `dequantise`: what each computes
is said in `rayprune.deploy.integer.arithmetic`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rayprune.deploy.integer import arithmetic


@torch.library.custom_op("rayprune::quantise", mutates_args=())
def quantise(given: Tensor, inverse: float, low: int, high: int) -> Tensor:
    """See `arithmetic.quantised`."""
    return torch.from_numpy(
        arithmetic.quantised(given.detach().float().numpy(), inverse, low, high)
    )


@torch.library.custom_op("rayprune::integer_linear", mutates_args=())
def integer_linear(numbers: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `arithmetic.sums`."""
    return torch.from_numpy(arithmetic.sums(numbers.numpy(), weight.numpy(), bias.numpy()))


@torch.library.custom_op("rayprune::rescale", mutates_args=())
def rescale(numbers: Tensor, multipliers: Tensor, shift: int, low: int, high: int) -> Tensor:
    """See `arithmetic.rescaled`."""
    found = arithmetic.rescaled(numbers.numpy(), multipliers.numpy(), shift, low, high)
    return torch.from_numpy(found)


@torch.library.custom_op("rayprune::integer_tanh", mutates_args=())
def integer_tanh(numbers: Tensor, table: Tensor) -> Tensor:
    """See `arithmetic.tanh`."""
    return torch.from_numpy(arithmetic.tanh(numbers.numpy(), table.numpy()))


@torch.library.custom_op("rayprune::dequantise", mutates_args=())
def dequantise(numbers: Tensor, steps: Tensor, watched: Tensor) -> Tensor:
    """See `arithmetic.values`."""
    found = arithmetic.values(
        numbers.numpy(), steps.detach().float().numpy(), watched.detach().float().numpy()
    )
    return torch.from_numpy(found).to(steps.dtype)


@quantise.register_fake
def _quantise(given: Tensor, inverse: float, low: int, high: int) -> Tensor:
    return given.new_empty(given.shape, dtype=torch.int32)


@integer_linear.register_fake
def _integer_linear(numbers: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return numbers.new_empty((*numbers.shape[:-1], weight.shape[0]), dtype=torch.int32)


@rescale.register_fake
def _rescale(numbers: Tensor, multipliers: Tensor, shift: int, low: int, high: int) -> Tensor:
    return numbers.new_empty(numbers.shape)


@integer_tanh.register_fake
def _integer_tanh(numbers: Tensor, table: Tensor) -> Tensor:
    return numbers.new_empty(numbers.shape)


@dequantise.register_fake
def _dequantise(numbers: Tensor, steps: Tensor, watched: Tensor) -> Tensor:
    return numbers.new_empty(numbers.shape, dtype=steps.dtype)
