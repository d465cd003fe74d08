"""`DeployablePolicy`: from a raw observation to the environment's action, as one plain module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rayprune.deploy.interface import Interface


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


class Flatten(nn.Module):
    """Makes one vector of all leaves: boxes flat, whole numbers one-hot.

    Args:
        choices: for each leaf the numbers of choices of its entries, empty for a box.
    """

    def __init__(self, choices: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.choices = [list(sizes) for sizes in choices]
        for size in {size for sizes in self.choices for size in sizes}:
            self.register_buffer(f"numbers{size}", torch.arange(size))

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Map leaves to one tensor, shape ``(batch, size)``."""
        parts = [
            part
            for leaf, sizes in zip(leaves, self.choices, strict=True)
            for part in self._parts(leaf.flatten(1) if leaf.dim() > 1 else leaf.unsqueeze(1), sizes)
        ]
        return (torch.cat(parts, dim=1),)

    def _parts(self, leaf: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        if not sizes:
            return [leaf.float()]
        return [
            (leaf[:, place : place + 1] == getattr(self, f"numbers{size}")).float()
            for place, size in enumerate(sizes)
        ]
