"""Counting: parameters, FLOPs and dead units of any module, masked or not, by its exact zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from rayprune.pruning.granularity.neuron import unit_parts
from rayprune.pruning.layers.attention_projections import uses
from rayprune.pruning.layers.hooks import hooked
from rayprune.pruning.layers.kinds import kind_of
from rayprune.pruning.layers.masked import MASKABLE, prunable_parameters
from rayprune.pruning.layers.parametrised import effective, lists_of

COUNTED = tuple(MASKABLE)


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters of a whole module, biases and norms included."""

    total: int
    nonzero: int

    @property
    def sparsity(self) -> float:
        """The fraction that is exactly zero (0 when there are no parameters)."""
        return 1.0 - self.nonzero / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations, 2 per multiply-add; nothing is said of time."""

    dense: int
    """Of all weights."""
    sparse: int
    """Of the weights that are not exactly zero."""


def count_parameters(module: nn.Module) -> ParameterCount:
    """Count a module's parameters, shared ones once.

    >>> layer = nn.Linear(2, 3)
    >>> _ = nn.init.zeros_(layer.bias)
    >>> count_parameters(layer)
    ParameterCount(total=9, nonzero=6)
    """
    parameters = list(module.parameters())
    nonzero = sum(int(torch.count_nonzero(parameter)) for parameter in parameters)
    return ParameterCount(sum(parameter.numel() for parameter in parameters), nonzero)


def sparsity_of(weights: Iterable[Tensor]) -> float:
    """Return the fraction of weights that are exactly zero (0 when there are none).

    >>> sparsity_of([torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])])
    0.25
    """
    weights = list(weights)
    total = sum(weight.numel() for weight in weights)
    nonzero = sum(int(torch.count_nonzero(weight)) for weight in weights)
    return 1.0 - nonzero / total if total else 0.0


def count_flops(module: nn.Module, run: Callable[[], object]) -> Flops:
    """Count what one forward computes in maskable layers.

    Two operations per multiply-add; biases, activations and the products of queries with keys and
    of attention with values are left out, and those of a Bilinear's inputs. What runs more than
    once counts as often; what doesn't run doesn't count. An Embedding computes nothing.

    Args:
        module: whose layers are watched.
        run: does the forward; at batch 1 for the usual figure.

    >>> layer = nn.Linear(4, 3)
    >>> _ = nn.init.zeros_(layer.weight[0])
    >>> count_flops(layer, lambda: layer(torch.zeros(1, 4)))
    Flops(dense=24, sparse=16)
    """
    dense = sparse = 0

    def count(layer: nn.Module, *call: Any) -> None:
        nonlocal dense, sparse
        for positions, weight in _uses(layer, *call):
            dense += 2 * positions * weight.numel()
            sparse += 2 * positions * int(torch.count_nonzero(weight))

    counted = [layer for layer in module.modules() if isinstance(layer, COUNTED)]
    with hooked(counted, count, with_kwargs=True), torch.no_grad():
        run()
    return Flops(dense, sparse)


def dead_units(module: nn.Module) -> dict[str, int]:
    """Count the units of each layer whose incoming weights are all zero.

    A unit is a row of a Linear, a filter of a Conv, a hidden unit of a recurrent layer.

    Returns:
        By layer name, layers without a dead unit left out.

    >>> net = nn.Sequential(nn.Linear(2, 3))
    >>> _ = nn.init.zeros_(net[0].weight[1])
    >>> dead_units(net)
    {'0': 1}
    """
    counts: dict[str, int] = {}
    for name, layer in module.named_modules():
        if not isinstance(layer, COUNTED):
            continue
        weights = prunable_parameters(layer)
        magnitudes = {key: effective(layer, key).detach().abs() for key in weights}
        dead = sum(
            int((part.pool(magnitudes, "sum") == 0).sum()) for part in unit_parts(layer, weights)
        )
        if dead:
            counts[name] = dead
    return counts


def _uses(
    layer: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any
) -> list[tuple[int, Tensor]]:
    """Return the weights that a call used, and how often."""
    if isinstance(layer, nn.MultiheadAttention):
        return uses(layer, inputs, named)
    positions = positions_of(layer, inputs, output)
    own = [name for name, _ in layer.named_parameters(recurse=False)]
    names = [name for name in (*own, *lists_of(layer)) if name.startswith("weight")]
    return [(positions, effective(layer, name)) for name in names]


def positions_of(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    """Return how often each weight of a layer was multiplied in one call.

    >>> layer, x = nn.ConvTranspose1d(2, 3, 4), torch.zeros(1, 2, 5)
    >>> positions_of(layer, (x,), layer(x))
    5
    """
    kind = kind_of(layer)
    if isinstance(layer, nn.Embedding):
        return 0
    if kind.recurrent:
        given = inputs[0].data if isinstance(inputs[0], PackedSequence) else inputs[0]
        return int(given.numel()) // int(layer.input_size)  # type: ignore[arg-type]
    if kind.transposed:
        return int(inputs[0].numel()) // int(layer.in_channels)  # type: ignore[arg-type]
    rows = effective(layer, "weight").shape[0]
    return int(output.numel()) // rows
