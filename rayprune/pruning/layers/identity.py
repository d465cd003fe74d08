"""Whole-layer pruning: layers that have become the identity, and are held there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.masked import (
    MaskedConv1d,
    MaskedConv2d,
    MaskedConv3d,
    MaskedLayer,
    MaskedLinear,
)
from rayprune.pruning.layers.parametrised import lists_of
from rayprune.pruning.layers.subclasses import ROUNDS, has_own_forward
from rayprune.pruning.pruner_part import PrunerPart
from rayprune.pruning.reports import MaskChange


def identity_weight(shape: Sequence[int]) -> Tensor:
    """Return the weights of a layer that changes nothing.

    Args:
        shape: ``(width, width)`` of a Linear, ``(width, width, *kernel)`` of a convolution whose
            kernel has odd sides.

    Returns:
        Bool, of that shape: each output reads the input of its own number, at the kernel's centre.

    >>> identity_weight((2, 2)).int().tolist()
    [[1, 0], [0, 1]]
    >>> identity_weight((2, 2, 3)).int().tolist()
    [[[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0]]]
    """
    weight = torch.zeros(tuple(shape), dtype=torch.bool)
    centre = tuple(side // 2 for side in shape[2:])
    for unit in range(shape[0]):
        place = (unit, unit, *centre)
        weight[place] = True
    return weight


def can_be_identity(layer: MaskedLayer) -> bool:
    """Whether a layer's output has the shape of its input, unit by unit and place by place.

    A Linear of one width; a convolution of one width and one group, with stride 1, a kernel of odd
    sides, and padding that keeps the size.
    """
    if has_own_forward(layer) or lists_of(layer) or getattr(layer, ROUNDS, False):
        return False
    if isinstance(layer, MaskedLinear):
        return layer.in_features == layer.out_features > 1
    if not isinstance(layer, (MaskedConv1d, MaskedConv2d, MaskedConv3d)):
        return False
    return (
        layer.in_channels == layer.out_channels > 1
        and layer.groups == 1
        and set(layer.stride) == {1}
        and all(side % 2 for side in layer.kernel_size)
        and _keeps_size(layer)
    )


class IdentityLayers(PrunerPart):
    """The layers that are the identity: weights the identity's, bias zero, gradients zero."""

    key: ClassVar[str] = "bypassed"

    def __init__(self) -> None:
        self._layers: dict[str, MaskedLayer] = {}

    @classmethod
    def joined(cls, parts: Iterable[IdentityLayers]) -> IdentityLayers:
        """Return those of several parts of one module together."""
        together = cls()
        for part in parts:
            together._layers |= part._layers
        return together

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._layers)

    def add(self, layers: Mapping[str, MaskedLayer]) -> None:
        """Make those layers the identity of whose mask nothing else is left."""
        for name, layer in layers.items():
            if name not in self._layers and _is_identity(layer):
                layer.bypassed = True
                self._layers[name] = layer
        self.hold()

    def after_commit(self, change: MaskChange) -> None:
        """Look for layers that have become the identity, where layers are what is pruned."""
        del change
        if self.pruner.config.chosen.granularity.becomes_identity:
            self.add({layer.name: layer.module for layer in self.pruner.prunable})

    def on_masked_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """Zero the gradients, in place."""
        self.stop_gradients(gradients)

    def on_masked_weights(self) -> None:
        """Hold weights and biases where they are."""
        self.hold()

    def state_dict(self) -> list[str]:
        """Return the names."""
        return self.names

    def unpack(self, state: Iterable[str] | None) -> dict[str, Any]:
        """Return the layers by name."""
        layers = self.pruner.layers
        return {name: layers[name] for name in state or ()}

    def restore(self, unpacked: dict[str, Any]) -> None:
        """Make those layers the identity, by the masks that they have now, and no others."""
        for layer in self._layers.values():
            layer.bypassed = False
        self._layers.clear()
        self.add(unpacked)

    @torch.no_grad()
    def hold(self) -> None:
        """Set weights and biases to the identity's, in place: weight decay moves its ones."""
        for parameter, value in self.fixed():
            parameter.copy_(value)

    @torch.no_grad()
    def stop_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """Zero the gradients, in place."""
        for parameter, _ in self.fixed():
            gradient = gradients.get(parameter)
            if gradient is not None:
                gradient.zero_()

    def fixed(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield the parameters, each with the value that it is held at."""
        for layer in self._layers.values():
            weight = layer.get_parameter("weight")
            yield weight, identity_weight(weight.shape).to(weight)
            bias = dict(layer.named_parameters(recurse=False)).get("bias")
            if bias is not None:
                yield bias, torch.zeros_like(bias)

    def __bool__(self) -> bool:
        return bool(self._layers)


def _is_identity(layer: MaskedLayer) -> bool:
    mask = layer.masks.get("weight")
    if mask is None or not can_be_identity(layer):
        return False
    return torch.equal(mask, identity_weight(mask.shape).to(mask.device))


def _keeps_size(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    if isinstance(layer.padding, str):
        return layer.padding == "same" or set(layer.kernel_size) == {1}
    return all(
        2 * padding == dilation * (side - 1)
        for padding, dilation, side in zip(
            layer.padding, layer.dilation, layer.kernel_size, strict=True
        )
    )
