"""Hooks that note what the layers of a module are called with, and with what gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules import activation

from rayprune.pruning.layers.masked import MaskedLayer

# Functions of one unit each: what comes out is the unit's activation.
_UNITWISE = tuple(
    kind
    for name in activation.__all__
    if (kind := getattr(activation, name))
    not in (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)
)


@dataclass(slots=True)
class Call:
    """One call of one layer."""

    args: list[Tensor]
    """Its input, and a recurrent layer's initial states."""
    edges: list[GradientEdge | None]
    """Where its outputs lie in the autograd graph; None where none is."""
    activation: Tensor | None
    """Its output, after the activation module that follows; None where not asked for."""


@dataclass(slots=True)
class Record:
    """The calls of each layer, by its name, in order."""

    calls: dict[str, list[Call]] = field(default_factory=dict)

    def gradients(self, loss: Tensor, weights: Mapping[str, Tensor]) -> Gradients:
        """Differentiate a scalar by weights and by every recorded output, in one pass.

        Args:
            loss: computed while recording.
            weights: by full name; may be empty, which spares their gradients.
        """
        edges = [
            edge
            for calls in self.calls.values()
            for call in calls
            for edge in call.edges
            if edge is not None
        ]
        wanted: Any = [*weights.values(), *edges]
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, wanted, allow_unused=True)
        by_weight = dict(zip(weights, found, strict=False))
        # Edges of one tensor are equal, so their place in the list tells them apart, not they.
        return Gradients(by_weight, list(found[len(weights) :]))


@dataclass(slots=True)
class Gradients:
    """The gradients of one minibatch; None where the loss doesn't depend."""

    weights: dict[str, Tensor | None]
    outputs: list[Tensor | None]
    """In the order of the calls and their edges."""

    def take(self, call: Call) -> list[Tensor | None]:
        """Take the next call's, in the order in which they were recorded."""
        return [None if edge is None else self.outputs.pop(0) for edge in call.edges]


@contextmanager
def recording(
    module: nn.Module, layers: Mapping[str, MaskedLayer], *, edges: bool, activations: bool
) -> Iterator[Record]:
    """Note the calls of layers while a module runs.

    Args:
        module: what runs.
        layers: its maskable layers by name.
        edges: note the outputs' places in the graph. They are noted at once, before a module such
            as ``ReLU(inplace=True)`` writes over them.
        activations: keep the outputs, after the activation module that follows.
    """
    record = Record()
    recent: list[tuple[Tensor, Call]] = []

    def on_layer(name: str) -> Any:
        def hook(layer: nn.Module, args: Any, output: Any) -> None:
            outputs = _flat([output])
            call = Call([x.detach() for x in _flat(args)], [], None)
            if edges:
                call.edges = [get_gradient_edge(y) if y.requires_grad else None for y in outputs]
            if activations:
                call.activation = outputs[0].detach()
                recent.append((outputs[0], call))
            record.calls.setdefault(name, []).append(call)

        return hook

    def on_activation(layer: nn.Module, args: Any, output: Any) -> None:
        for index, (tensor, call) in enumerate(recent):
            if args and args[0] is tensor:
                call.activation = output.detach()
                recent[index] = (output, call)

    handles = [layer.register_forward_hook(on_layer(name)) for name, layer in layers.items()]
    if activations:
        found: Iterable[nn.Module] = (m for m in module.modules() if isinstance(m, _UNITWISE))
        handles += [layer.register_forward_hook(on_activation) for layer in found]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _flat(values: Sequence[Any]) -> list[Tensor]:
    """Flatten an input, or an output, and the states that come with it, to tensors."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (tuple, list)):
            tensors += _flat(value)
    return tensors
