"""Norms over the inputs that are left of a layer, when the others were constants.

Of N inputs of a LayerNorm k are constants, whose units went. Their mean and their squared distances
from it are all that the norm needs of them, so that two numbers beside k keep it exact::

    mean = ((N - k) mean(live) + k mean(gone)) / N
    variance = (sum (live - mean)^2 + k (mean(gone) - mean)^2 + sum (gone - mean(gone))^2) / N

No term is negative, so that nothing cancels. An RMSNorm needs the sum of their squares.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CONSTANTS = "constants"
"""Name of the buffer that a partial norm has beside what torch's own norm has."""


class PartialLayerNorm(nn.LayerNorm):
    """A LayerNorm that takes constants into account which are no longer among its inputs.

    Its buffer `constants` has shape ``(3,)``: the share k/N of inputs that are gone, their mean,
    and the sum of their squared distances from it over N.

    >>> norm = shorten(nn.LayerNorm(4, bias=False), torch.tensor([0.5, 2.0, 0.0]))
    >>> norm.weight = nn.Parameter(torch.ones(2))
    >>> whole = nn.LayerNorm(4)(torch.tensor([1.0, 5.0, 2.0, 2.0]))
    >>> bool(torch.allclose(norm(torch.tensor([1.0, 5.0])), whole[:2]))
    True
    """

    constants: Tensor

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch calls it so
        """Normalise over the last dimensions, as many as `normalized_shape` has."""
        over = len(self.normalized_shape)
        return partial_layer_norm(input, self.constants, over, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Add to what torch shows how many inputs are gone."""
        return f"{super().extra_repr()}, gone={_count(self)}"


class PartialRMSNorm(nn.RMSNorm):
    """An RMSNorm that takes constants into account which are no longer among its inputs.

    Its buffer `constants` has shape ``(2,)``: the share k/N of inputs that are gone, and the sum of
    their squares over N.

    >>> norm = shorten(nn.RMSNorm(4, elementwise_affine=False), torch.tensor([0.5, 2.0]))
    >>> whole = nn.RMSNorm(4)(torch.tensor([1.0, 5.0, 2.0, 2.0]))
    >>> bool(torch.allclose(norm(torch.tensor([1.0, 5.0])), whole[:2]))
    True
    """

    constants: Tensor

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch calls it so
        """Normalise over the last dimensions, as many as `normalized_shape` has."""
        over = len(self.normalized_shape)
        return partial_rms_norm(input, self.constants, over, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Add to what torch shows how many inputs are gone."""
        return f"{super().extra_repr()}, gone={_count(self)}"


def partial_layer_norm(
    input: Tensor,  # noqa: A002 - torch calls it so
    constants: Tensor,
    over: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Do what a `PartialLayerNorm` does, over so many of the last dimensions."""
    x = _at_least_single(input)
    share, gone, spread = constants.to(x.dtype).unbind()
    dims = [-1 - place for place in range(over)]
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    variance = (centred * centred).mean(dims, keepdim=True)
    between = mean - gone
    off = between * share  # from the mean of all inputs to that of the live ones
    variance = (variance + off * between) * (1 - share) + (spread + eps)
    return _like(_affine((centred + off) * torch.rsqrt(variance), weight, bias), input)


def partial_rms_norm(
    input: Tensor,  # noqa: A002 - torch calls it so
    constants: Tensor,
    over: int,
    weight: Tensor | None,
    eps: float | None,
) -> Tensor:
    """Do what a `PartialRMSNorm` does, over so many of the last dimensions."""
    x = _at_least_single(input)
    share, squares = constants.to(x.dtype).unbind()
    dims = [-1 - place for place in range(over)]
    least = torch.finfo(x.dtype).eps if eps is None else eps
    square = (x * x).mean(dims, keepdim=True) * (1 - share) + (squares + least)
    return _like(_affine(x * torch.rsqrt(square), weight, None), input)


PARTIAL: dict[type[nn.Module], type[nn.Module]] = {
    nn.LayerNorm: PartialLayerNorm,
    nn.RMSNorm: PartialRMSNorm,
}
"""torch's class -> the partial one."""


def shorten(norm: nn.Module, constants: Tensor) -> nn.Module:
    """Make a norm partial, or one that is already so of other constants, in place.

    Args:
        norm: a LayerNorm or RMSNorm; its weights are shortened elsewhere.
        constants: its buffer's new value.

    Returns:
        The same norm.
    """
    norm.__class__ = PARTIAL.get(type(norm), type(norm))
    norm.register_buffer(CONSTANTS, constants)
    return norm


def complete(norm: nn.Module) -> None:
    """Make a partial norm torch's own again, in place."""
    if norm._parameters.get("weight") is None:
        resize(norm, present_of(norm) + _count(norm))
    norm.__class__ = next(own for own, partial in PARTIAL.items() if partial is type(norm))
    del norm._buffers[CONSTANTS]


def present_of(norm: Any) -> int:
    """Return over how many elements a norm is now."""
    return torch.Size(norm.normalized_shape).numel()


def resize(norm: Any, size: int) -> None:
    """Make a norm that has no weights say another size, if it is over one dimension."""
    if len(norm.normalized_shape) == 1:
        norm.normalized_shape = (size,)


def is_partial(module: nn.Module) -> bool:
    """Whether a module is a partial norm."""
    return type(module) in PARTIAL.values()


def merged(norm: nn.Module, patterns: Tensor) -> Tensor:
    """Return a norm's constants after more of its inputs go.

    Args:
        norm: a LayerNorm or RMSNorm, partial or not.
        patterns: the constants that go, any shape; and so many inputs the norm has before, as its
            `normalized_shape` says.

    Returns:
        What `shorten` takes; float64.

    >>> merged(nn.LayerNorm(4), torch.tensor([1.0, 3.0])).tolist()
    [0.5, 2.0, 0.5]
    >>> merged(nn.RMSNorm(4), torch.tensor([1.0, 3.0])).tolist()
    [0.5, 2.5]
    """
    gone, present = patterns.double(), present_of(norm)
    held = norm._buffers.get(CONSTANTS)
    old = torch.zeros(3).double() if held is None else held.detach().cpu().double()
    total = present / (1 - old[0])
    before, more = old[0] * total, gone.numel()
    share = (before + more) / total
    if isinstance(norm, nn.RMSNorm):
        return torch.stack([share, old[1] + gone.square().sum() / total])
    mean = (before * old[1] + gone.sum()) / (before + more)
    apart = before * (old[1] - mean) ** 2 + (gone - mean).square().sum()
    return torch.stack([share, mean, old[2] + apart / total])


def _at_least_single(x: Tensor) -> Tensor:
    # torch's own norms add up halves in single precision, too.
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _like(x: Tensor, given: Tensor) -> Tensor:
    return x if x.dtype == given.dtype else x.to(given.dtype)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def _count(norm: Any) -> int:
    share = float(norm.constants[0])
    return round(present_of(norm) * share / (1 - share))
