"""Weights with dead units that no layer reads in a form in which it could lose them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, fx

from rayprune.deploy.compaction.module_calls import operator_name
from rayprune.deploy.compaction.operators.readers import READERS
from rayprune.deploy.compaction.trace import Trace

_GATES: Final = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclass(frozen=True, slots=True)
class Stranded:
    """Dead units of one parameter, and what is in their way."""

    parameter: str
    units: int
    reason: str


@dataclass(slots=True)
class _Weights:
    """What a forward computes of parameters and constants alone, with the parameters' names."""

    tensors: dict[fx.Node, Tensor] = field(default_factory=dict)
    names: dict[fx.Node, tuple[str, ...]] = field(default_factory=dict)


def stranded(
    traced: Trace, parameters: Mapping[str, Tensor], read: Container[str]
) -> Iterator[Stranded]:
    """Find the dead units of weights that something else than a layer reads.

    Args:
        traced: the forward.
        parameters: by full name, on the CPU, in double precision.
        read: names of the weights that layers read as they are.
    """
    weights = _Weights()
    for node in traced.graph.nodes:
        if node in traced.parameters:
            name = traced.parameters[node]
            weights.tensors[node], weights.names[node] = parameters[name], (name,)
        elif node.op == "get_attr":
            held = getattr(traced.graph.owning_module, str(node.target), None)
            if isinstance(held, Tensor):
                exact = held.double() if held.is_floating_point() else held
                weights.tensors[node], weights.names[node] = exact, ()
        elif node.op == "call_function" and not _computed(node, weights):
            yield from _unread(node, weights, read)


def _computed(node: fx.Node, weights: _Weights) -> bool:
    """Compute a node, if it depends on no input; return whether it doesn't."""
    given = node.all_input_nodes
    if not given or any(other not in weights.tensors for other in given):
        return False
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: weights.tensors[n])
    try:
        result = node.target(*args, **kwargs)  # type: ignore[operator]
    # It is only looked at: what can't be computed so is not.
    except Exception:
        return False
    if not isinstance(result, Tensor):
        return False
    weights.tensors[node] = result
    weights.names[node] = tuple(dict.fromkeys(n for other in given for n in weights.names[other]))
    return True


def _unread(node: fx.Node, weights: _Weights, read: Container[str]) -> Iterator[Stranded]:
    name = operator_name(node)
    for given in node.all_input_nodes:
        names = weights.names.get(given, ())
        if not names or all(own in read for own in names):
            continue
        units = _dead(weights.tensors[given], name)
        if units:
            what = "in a form that" if name in READERS else "an operator whose weights"
            reader = f"its {_short(names[0])!r} is read by `aten.{name}`"
            why = f"{reader}, {what} compaction can't shrink"
            yield Stranded(names[0], units, why)


def _dead(weight: Tensor, name: str) -> int:
    """Count the rows, or the columns, that are all zero; of gates that have all of them zero."""
    if weight.dim() < 2 or not weight.is_floating_point():
        return 0
    gates = _GATES.get(name.split("_")[0], 1)
    if gates > 1 and weight.shape[0] % gates == 0:
        weight = weight.reshape(gates, -1, weight.shape[-1])
    axes: Any = range(weight.dim())
    if "conv" in name:
        axes = range(2)
    elif name == "embedding":
        axes = (1,)  # a row is a symbol, not a unit
    elif weight.dim() == 3 and gates > 1:
        axes = (1, 2)
    return max(_zero_slices(weight, axis) for axis in axes)


def _zero_slices(weight: Tensor, axis: int) -> int:
    if weight.shape[axis] < 2:
        return 0
    slices = weight.movedim(axis, 0).reshape(weight.shape[axis], -1)
    return int((~torch.any(slices != 0, dim=1)).sum())


def _short(name: str) -> str:
    return name.rpartition(".")[2]
