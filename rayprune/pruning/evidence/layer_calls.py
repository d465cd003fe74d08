"""What the layers of a module are called with, with what gradients, and what their units do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from rayprune.pruning.layers.attention_projections import arranged
from rayprune.pruning.layers.hooks import UnitActivations, followers, hooked, unit_axis
from rayprune.pruning.layers.masked import MaskedLayer


@dataclass(slots=True)
class LayerCall:
    """One call of one layer."""

    args: list[Tensor]
    """Its input, and a recurrent layer's initial states; of an attention layer what
    `rayprune.pruning.layers.attention_projections.arranged` makes of all its arguments."""
    edges: list[GradientEdge | None]
    """Where its outputs lie in the autograd graph; None where none is."""
    activation: Tensor | None
    """Of its units, as `rayprune.pruning.layers.hooks` says; None where not asked for."""

    def keep(self, activation: Tensor) -> None:
        """Keep a unit's activation; a later module on the way to the nonlinearity replaces it."""
        self.activation = activation.detach()


@dataclass(slots=True)
class LayerCalls:
    """The calls of each layer, by its name, in order."""

    calls: dict[str, list[LayerCall]] = field(default_factory=dict)

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
    """The gradients of one minibatch; None where the loss doesn't depend on a parameter."""

    weights: dict[str, Tensor | None]
    outputs: list[Tensor | None]
    """In the order of the calls and their edges."""

    def take(self, call: LayerCall) -> list[Tensor | None]:
        """Take the next call's, in the order in which they were recorded."""
        return [None if edge is None else self.outputs.pop(0) for edge in call.edges]


@contextmanager
def recording(
    module: nn.Module, layers: Mapping[str, MaskedLayer], *, edges: bool, activations: bool
) -> Iterator[LayerCalls]:
    """Note the calls of layers while a module runs.

    Args:
        module: what runs.
        layers: its maskable layers by name.
        edges: note the outputs' places in the graph. They are noted at once, before a module such
            as ``ReLU(inplace=True)`` writes over them.
        activations: keep the activations of the units.
    """
    record = LayerCalls()
    names: dict[nn.Module, str] = {layer: name for name, layer in layers.items()}
    units = UnitActivations()

    def on_layer(layer: nn.Module, args: Any, named: Any, output: Any) -> Any:
        if edges and isinstance(layer, nn.LSTMCell):
            # Its h is made of its c: the gradient at c itself would hold that at h once more.
            output = tuple(y.view_as(y) for y in output)
        outputs = _flat([output])
        call = LayerCall(_arguments(layer, args, named), [], None)
        if edges:
            call.edges = [get_gradient_edge(y) if y.requires_grad else None for y in outputs]
        if activations:
            units.follow(outputs[0], unit_axis(layer), call.keep)
        record.calls.setdefault(names[layer], []).append(call)
        return output

    following = followers(module) if activations else ()
    with hooked(names, on_layer, with_kwargs=True), hooked(following, units.passed):
        yield record


def _arguments(layer: nn.Module, args: Any, named: Any) -> list[Tensor]:
    if isinstance(layer, nn.MultiheadAttention):
        call = arranged(layer, args, named)
        return [*call.inputs, *([] if call.mask is None else [call.mask])]
    return [x.detach() for x in _flat(args)]


def _flat(values: Sequence[Any]) -> list[Tensor]:
    """Flatten an input, or an output, and the states that come with it, to tensors."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (tuple, list)):
            tensors += _flat(value)
    return tensors
