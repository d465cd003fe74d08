"""From an action distribution's inputs to the action that the environment takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Choose(nn.Module):
    """The likeliest of discrete choices, or one drawn by the Gumbel-max trick.

    With standard Gumbel noise, ``argmax(logits + noise)`` is distributed as ``softmax(logits)``
    (Maddison et al. 2014, arXiv:1411.0030).

    Args:
        sizes: logits of each choice.
        several: the action is a vector, though there be but one choice.
    """

    def __init__(self, sizes: Sequence[int], *, several: bool) -> None:
        super().__init__()
        self.sizes, self.several = list(sizes), several

    def forward(self, logits: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map ``(batch, sum(sizes))`` to ``(batch,)``, or ``(batch, choices)`` for a vector."""
        given = logits if noise is None else logits + noise
        if not self.several:
            return given.argmax(dim=-1)
        parts = given.split(self.sizes, dim=-1)
        return torch.stack([part.argmax(dim=-1) for part in parts], dim=-1)


class Aim(nn.Module):
    """The mean of a Gaussian, or a draw from it.

    Args:
        squashed: draws go through tanh. Means don't: RLlib takes them as they are, and what
            is asked for here is what RLlib's evaluation does.
        log_std_bounds: what the log-std is clamped to, None for nothing.
    """

    def __init__(
        self, *, squashed: bool = False, log_std_bounds: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        self.squashed, self.log_std_bounds = squashed, log_std_bounds

    def forward(self, dist_inputs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map ``(batch, 2 * size)``, means then log-stds, to ``(batch, size)``."""
        mean, log_std = dist_inputs.chunk(2, dim=-1)
        if noise is None:
            return mean
        if self.log_std_bounds is not None:
            log_std = log_std.clamp(*self.log_std_bounds)
        drawn = mean + log_std.exp() * noise
        return torch.tanh(drawn) if self.squashed else drawn


class Clip(nn.Module):
    """Clips an action to its bounds.

    Args:
        low: the bounds, shape ``(size,)``; they may be infinite.
        high: likewise.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low.float())
        self.register_buffer("high", high.float())
        self._alike = _alike(self.low, self.high)

    def forward(self, action: Tensor) -> Tensor:
        """Map ``(batch, size)`` to the same shape."""
        return _between(action, self.low, self.high, self._alike)


class Unsquash(Clip):
    """Maps [-1, 1] to an action's bounds and clips to them.

    Args:
        low: the bounds, shape ``(size,)``.
        high: likewise.
    """

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__(low, high)
        # Halved beforehand, which loses no bit: one operator less in each exported policy.
        self.register_buffer("half_span", (high - low).float() / 2)
        self.half_span: Tensor

    def forward(self, action: Tensor) -> Tensor:
        """Map ``(batch, size)`` to the same shape."""
        return super().forward(self.low + (action + 1.0) * self.half_span)


class GainAndShift(nn.Module):
    """Multiplies and shifts each element of an action.

    Args:
        gain: shape ``(size,)``.
        shift: likewise.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, gain: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain.float())
        self.register_buffer("shift", shift.float())

    def forward(self, action: Tensor) -> Tensor:
        """Map ``(batch, size)`` to the same shape."""
        return action * self.gain + self.shift


class Number(nn.Module):
    """Numbers choices from elsewhere than 0.

    Args:
        starts: whole numbers, shape ``()``, or ``(choices,)`` for a vector.
    """

    starts: Tensor

    def __init__(self, starts: Tensor) -> None:
        super().__init__()
        self.register_buffer("starts", starts)

    def forward(self, action: Tensor) -> Tensor:
        """Map ``(batch,)`` or ``(batch, choices)`` to the same shape."""
        return action + self.starts


class Reshape(nn.Module):
    """Gives an action the shape that its space has.

    Args:
        shape: of one action.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = list(shape)

    def forward(self, action: Tensor) -> Tensor:
        """Map ``(batch, ...)`` to ``(batch, *shape)``."""
        return action.reshape(action.shape[0], *self.shape)


class Decide(nn.Module):
    """A choice from the distribution, then what the environment wants done to it."""

    def __init__(self, choose: nn.Module, *then: nn.Module) -> None:
        super().__init__()
        self.choose, self.then = choose, nn.Sequential(*then)

    def forward(self, dist_inputs: Tensor, *noise: Tensor) -> Tensor:
        """Map the distribution's inputs to the environment's action."""
        action: Tensor = self.then(self.choose(dist_inputs, *noise))
        return action


def _alike(low: Tensor, high: Tensor) -> tuple[float, float] | None:
    """Return the bounds of all components if they are the same, for one operator instead of two."""
    bounds = {(float(a), float(b)) for a, b in zip(low, high, strict=True)}
    return bounds.pop() if len(bounds) == 1 else None


def _between(value: Tensor, low: Tensor, high: Tensor, alike: tuple[float, float] | None) -> Tensor:
    if alike is not None:
        return value.clamp(*alike)
    return torch.minimum(torch.maximum(value, low), high)
