"""Layers that have become the identity, and are held there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.identity import can_be_identity, identity_weight
from rayprune.pruning.layers.masked import MaskedLayer


class Bypasses:
    """The bypassed layers of one module: weights the identity's, bias zero, gradients zero."""

    def __init__(self) -> None:
        self._layers: dict[str, MaskedLayer] = {}

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._layers)

    def add(self, layers: Mapping[str, MaskedLayer]) -> None:
        """Bypass those layers of whose mask nothing but the identity is left."""
        for name, layer in layers.items():
            if name not in self._layers and _is_identity(layer):
                layer.bypassed = True
                self._layers[name] = layer
        self.hold()

    def replace(self, names: Iterable[str], layers: Mapping[str, MaskedLayer]) -> None:
        """Take over what a checkpoint says.

        Args:
            names: the layers bypassed there.
            layers: all layers by name, with the checkpoint's masks.
        """
        for layer in self._layers.values():
            layer.bypassed = False
        self._layers.clear()
        self.add({name: layers[name] for name in names})

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
