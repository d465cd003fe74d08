"""Rewrites a graph so that no float is left between its layers: sums become numbers again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import fx
from torch.fx import GraphModule

from rayprune.deploy.integer import arithmetic
from rayprune.deploy.integer import operators as operators  # defines what stands in the graph
from rayprune.deploy.policy.interface import Array
from rayprune.errors import InputError

OPERATORS: Final[Any] = torch.ops.rayprune
_ATEN: Final[Any] = torch.ops.aten
_INTERVALS: Final = {8: 7, 16: 9}
"""Bits of what is read -> of the intervals of the table of tanh."""


def join(module: GraphModule) -> None:
    """Let each layer's sums become the next one's numbers by a fixed-point product, in place.

    Raises:
        InputError: an operator stands between two layers that isn't known in whole numbers, or a
            weight is left in floating point.
    """
    _Rewriting(module).run()
    module.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    _refuse_floats(module)
    module.graph.lint()
    module.recompile()


def is_call(node: Any, name: str) -> bool:
    """Whether a node calls one of our operators."""
    return isinstance(node, fx.Node) and node.target is getattr(OPERATORS, name).default


def held(module: GraphModule, node: fx.Node) -> torch.Tensor:
    """Return the tensor that a node takes from its module."""
    assert node.op == "get_attr"
    owner, _, name = str(node.target).rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(owner), name)
    return found


class _Rewriting:
    def __init__(self, module: GraphModule) -> None:
        self._module, self._graph = module, module.graph
        self._made: dict[Any, fx.Node] = {}

    def run(self) -> None:
        for node in list(self._graph.nodes):
            if is_call(node, "quantise"):
                self._quantised(node)
        for node in self._graph.nodes:
            if is_call(node, "dequantise"):
                node.args = (*node.args[:2], _watched(node.args[0]))

    def _quantised(self, node: fx.Node) -> None:
        arguments: Any = node.args
        given, inverse, low, high = arguments
        function, source = _function_of(given)
        if not is_call(source, "dequantise"):
            _refuse_behind_a_layer(given)
            return
        total, steps, _ = source.args
        scales = held(self._module, steps).double().numpy()
        key = total, function, inverse, low, high
        if key not in self._made:
            with self._graph.inserting_before(node):
                self._made[key] = self._rescaled(total, scales, function, node.args[1:])
        node.replace_all_uses_with(self._made[key])

    def _rescaled(self, total: Any, scales: Array, function: str, grid: Any) -> fx.Node:
        inverse, low, high = grid
        if function == "tanh":
            bits = 8 if high - low < 2**8 else 16
            most = 2**15 - 1
            read = self._rescale(total, scales * arithmetic.TANH_INPUT, -most, most)
            table = self._hold("table", arithmetic.tanh_table(_INTERVALS[bits]))
            total = self._call("integer_tanh", read, table)
            scales = np.array([1 / arithmetic.TANH_OUTPUT])
        return self._rescale(
            total, scales * inverse, max(low, 0) if function == "relu" else low, high
        )

    def _rescale(self, total: Any, scales: Array, low: int, high: int) -> fx.Node:
        multipliers, shift = arithmetic.fixed_point(scales)
        return self._call("rescale", total, self._hold("by", multipliers), shift, low, high)

    def _call(self, name: str, *arguments: Any) -> fx.Node:
        return self._graph.call_function(getattr(OPERATORS, name).default, arguments)

    def _hold(self, kind: str, array: Array) -> fx.Node:
        number = sum(name.startswith(kind) for name, _ in self._module.named_buffers(recurse=False))
        name = f"{kind}{number}"
        self._module.register_buffer(name, torch.from_numpy(array))
        return self._graph.get_attr(name)


_FUNCTIONS: Final = {_ATEN.relu.default: "relu", _ATEN.tanh.default: "tanh"}


def _function_of(node: Any) -> tuple[str, Any]:
    """Return the activation function that a value comes of, none if empty, and what it is of."""
    if isinstance(node, fx.Node) and node.target in _FUNCTIONS:
        return _FUNCTIONS[node.target], node.args[0]
    return "", node


def _watched(total: Any) -> fx.Node:
    """Return the floats that a sum comes of."""
    node = total
    while not is_call(node, "quantise"):
        node = node.args[0]
    found: fx.Node = node.args[0]
    return found


def _refuse_behind_a_layer(node: fx.Node) -> None:
    seen: set[fx.Node] = set()
    _walk(node, lambda n: is_call(n, "dequantise"), seen)
    if any(is_call(each, "dequantise") for each in seen):
        name = getattr(getattr(node.target, "_overloadpacket", None), "__name__", node.target)
        raise InputError(
            f"A file of whole numbers can't hold `{name}` between layers: ReLU and tanh can stand "
            "there. Build the policy with one of these (`fcnet_activation: relu`), or take "
            "`--format c` without `--int8`."
        )


def _walk(node: fx.Node, ends: Callable[[fx.Node], bool], seen: set[fx.Node]) -> None:
    if node in seen:
        return
    seen.add(node)
    if not ends(node):
        for before in node.all_input_nodes:
            _walk(before, ends, seen)


def _refuse_floats(module: GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        tensor = held(module, node)
        if (
            isinstance(tensor, torch.nn.Parameter)
            and tensor.is_floating_point()
            and tensor.dim() > 1
        ):
            raise InputError(
                f"A file of whole numbers can't hold {str(node.target)!r}, which isn't quantised. "
                "Take `--format c` without `--int8`, or `--format onnx`."
            )
