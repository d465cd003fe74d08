"""`DeployablePolicy`: from a raw observation to the environment's action, as one plain module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rayprune.deploy.policy.interface import Interface


class DeployablePolicy(nn.Module):
    """What an exported file computes; its ports are those of ``interface``, in their order.

    Args:
        observe: maps the leaves of an observation to what the network takes, tuple to tuple.
        network: maps those and the states to ``(dist_inputs, *next states)``.
        decide: maps ``dist_inputs`` and the noise, if there is any, to the action.
        interface: the ports.
    """

    def __init__(
        self, observe: nn.Module, network: nn.Module, decide: nn.Module, interface: Interface
    ) -> None:
        super().__init__()
        self.observe, self.network, self.decide = observe, network, decide
        self.interface = interface

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the interface's inputs to its outputs."""
        count = len(self.interface.observations)
        noise = () if self.interface.noise is None else (inputs[count],)
        states = inputs[count + len(noise) :]
        dist_inputs, *following = self.network(*self.observe(*inputs[:count]), *states)
        return (self.decide(dist_inputs, *noise), dist_inputs, *following)


class Observe(nn.Module):
    """Stages that an observation's leaves pass through, each a module from tuple to tuple."""

    def __init__(self, stages: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Map the leaves to what the network takes."""
        for stage in self.stages:
            leaves = stage(*leaves)
        return leaves


class Normalise(nn.Module):
    """A running mean/std filter whose statistics are frozen: ``clip((x - mean) / std)``.

    Args:
        statistics: for each leaf its float64 mean and std, or None for a leaf left alone.
        clip: largest magnitude that comes out, None for no bound.
    """

    def __init__(
        self, statistics: Sequence[tuple[Tensor, Tensor] | None], clip: float | None
    ) -> None:
        super().__init__()
        self.normalised = [held is not None for held in statistics]
        self.clip = clip
        for place, held in enumerate(statistics):
            if held is not None:
                mean, std = (part.double() for part in held)
                high = mean.float()
                self.register_buffer(f"mean{place}", high)
                # What float32 cuts off the mean: where it is large against the std, that shows.
                self.register_buffer(f"rest{place}", (mean - high.double()).float())
                self.register_buffer(f"std{place}", std.float())

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Normalise each leaf."""
        return tuple(
            self._normalise(leaf, place) if self.normalised[place] else leaf
            for place, leaf in enumerate(leaves)
        )

    def _normalise(self, leaf: Tensor, place: int) -> Tensor:
        mean, rest, std = (getattr(self, f"{name}{place}") for name in ("mean", "rest", "std"))
        centred: Tensor = ((leaf - mean) - rest) / std
        return centred if self.clip is None else centred.clamp(-self.clip, self.clip)


class Arrange(nn.Module):
    """Gives a lone observation the scale and the axes that a network reads.

    Args:
        axes: of one item, in their new order.
        shape: of one item, after that.
        scale: what the numbers are divided by, None to leave them.
    """

    def __init__(self, axes: Sequence[int], shape: Sequence[int], scale: float | None) -> None:
        super().__init__()
        self.axes, self.shape, self.scale = list(axes), list(shape), scale

    def forward(self, leaf: Tensor) -> tuple[Tensor, ...]:
        """Map ``(batch, ...)`` to ``(batch, *shape)``, float."""
        values = leaf.float()
        values = values if self.scale is None else values / self.scale
        if self.axes != sorted(self.axes):
            values = values.permute(0, *(axis + 1 for axis in self.axes))
        return (values.reshape(leaf.shape[0], *self.shape),)


class Flatten(nn.Module):
    """Makes one vector of all leaves: boxes flat, whole numbers one-hot.

    Args:
        choices: for each leaf the numbers of choices of its entries, empty for a box.
        starts: for each leaf the lowest values of those choices; None for 0 everywhere.
        scales: for each leaf what its numbers are divided by, None to leave them.
    """

    def __init__(
        self,
        choices: Sequence[Sequence[int]],
        starts: Sequence[Sequence[int]] | None = None,
        scales: Sequence[float | None] | None = None,
    ) -> None:
        super().__init__()
        lowest = [[0] * len(sizes) for sizes in choices] if starts is None else starts
        self.choices = [
            list(zip(first, sizes, strict=True))
            for first, sizes in zip(lowest, choices, strict=True)
        ]
        self.scales = [None] * len(choices) if scales is None else list(scales)
        for start, size in {choice for leaf in self.choices for choice in leaf}:
            numbers = torch.arange(start, start + size)
            self.register_buffer(_numbers_name(start, size), numbers)

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Map leaves to one tensor, shape ``(batch, size)``."""
        parts = [
            part
            for leaf, choices, scale in zip(leaves, self.choices, self.scales, strict=True)
            for part in self._parts(
                leaf.flatten(1) if leaf.dim() > 1 else leaf.unsqueeze(1), choices, scale
            )
        ]
        return (torch.cat(parts, dim=1),)

    def _parts(
        self, leaf: Tensor, choices: Sequence[tuple[int, int]], scale: float | None
    ) -> list[Tensor]:
        if not choices:
            return [leaf.float() if scale is None else leaf.float() / scale]
        return [
            (leaf[:, place : place + 1] == getattr(self, _numbers_name(*choice))).float()
            for place, choice in enumerate(choices)
        ]


def _numbers_name(start: int, size: int) -> str:
    return f"numbers{size}_from{start}".replace("-", "minus")
