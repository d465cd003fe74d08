"""From a captured graph to a program, node by node."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, fx
from torch.export import ExportedProgram

from rayprune.deploy.formats.c.elementwise import BINARY, UNARY, add_binary, add_unary
from rayprune.deploy.formats.c.lowering.nodes import (
    Lowered,
    as_value,
    constant,
    name_of,
    tensors,
    unsupported,
    values_in,
)
from rayprune.deploy.formats.c.lowering.operators import OPERATORS
from rayprune.deploy.formats.c.program import C_TYPES, Program, Value, c_name
from rayprune.deploy.policy.interface import Interface
from rayprune.errors import InputError


def lower(captured: ExportedProgram, interface: Interface, lanes: int | None) -> Program:
    """Turn a graph captured at batch 1 into a program; its last statements write the outputs.

    Raises:
        InputError: an operator isn't supported; all of them are named.
    """
    program = Program(lanes)
    graph = captured.graph
    values: dict[fx.Node, Lowered] = {}
    inputs = iter(interface.inputs)
    constants = {**captured.state_dict, **captured.constants}
    held = {
        **captured.graph_signature.inputs_to_parameters,
        **captured.graph_signature.inputs_to_buffers,
        **captured.graph_signature.inputs_to_lifted_tensor_constants,
    }
    _refuse_unknown(graph, held)
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in held:
            values[node] = constant(constants[held[node.name]])
        elif node.op == "placeholder":
            port = next(inputs)
            values[node] = Value(c_name(port.name), (1, *port.shape), C_TYPES[port.dtype])
        elif _is_computed(node):
            values[node] = _call(program, node, values)
        elif node.op == "output":
            _finish(program, [values[output] for output in node.args[0]], interface)
    _look_for_odd(program, interface)
    return program


def _look_for_odd(program: Program, interface: Interface) -> None:
    """Begin with whether an input is NaN or infinite, where something asks."""
    look = f"const int odd = {_any('odd_', _floats(interface))};"
    if "odd_" in program.kernels:
        program.statements.insert(0, look)
    elif "odd_" in program.kernels_when:
        condition = " || ".join(f"({each})" for each in sorted(program.kernels_when["odd_"]))
        program.statements[:0] = [f"#if {condition}", look, "#endif"]


def _floats(interface: Interface) -> list[tuple[str, int]]:
    """Return the inputs that can be NaN, each with its size."""
    ports = [port for port in interface.inputs if port.dtype == "float32"]
    return [(c_name(port.name), math.prod(port.shape)) for port in ports]


def _any(kernel: str, arrays: Sequence[tuple[str, int]]) -> str:
    """Return the C expression of what one of `odd_` and `nan_` says of any of the arrays."""
    return " | ".join(f"{kernel}({pointer}, {size})" for pointer, size in arrays) or "0"


def _finish(program: Program, outputs: Sequence[Value], interface: Interface) -> None:
    for port, value in zip(interface.outputs, outputs, strict=True):
        body = f"{c_name(port.name)}[i] = {program.pointer(value)}[i];"
        # Only the action is asked for always.
        guard = "" if port == interface.action else f"if ({c_name(port.name)}) "
        program.add(f"{guard}for (i = 0; i < {value.size}; i++) {body}")
    program.kernels.add("nan_")
    # A choice is a number whatever it was made of.
    floats = [(program.pointer(x), x.size) for x in outputs if x.ctype == "float"]
    program.add(f"return {_any('nan_', floats)};")


def _is_computed(node: fx.Node) -> bool:
    # A cast leaves an assertion behind, which nothing uses.
    return node.op == "call_function" and bool(node.users)


def _refuse_unknown(graph: fx.Graph, held: Collection[str]) -> None:
    folded: set[fx.Node] = set()
    for node in graph.nodes:
        read = node.all_input_nodes
        if node.op == "placeholder":
            folded |= {node} if node.name in held else set()
        elif folded.issuperset(read) and _is_pure(node):
            folded.add(node)
    names = {name_of(node) for node in graph.nodes if _is_computed(node) and node not in folded}
    unknown = sorted(names - OPERATORS.keys() - UNARY.keys() - BINARY.keys())
    if unknown:
        raise InputError(
            f"The C export doesn't know the operator(s) {unknown}. Build the module of others "
            f"({sorted({*UNARY, 'linear', 'conv2d', 'lstm', 'gru', 'layer_norm'})}, ...), or "
            "take `--format onnx` or `--format torch`."
        )


def _is_pure(node: fx.Node) -> bool:
    """Whether a node writes into nothing that another reads."""
    return not name_of(node).endswith("_") or all(
        len(x.users) == 1 for x in node.all_input_nodes[:1]
    )


def _call(program: Program, node: fx.Node, values: Mapping[fx.Node, Lowered]) -> Lowered:
    arguments: Any = fx.node.map_arg(node.args, lambda given: values[given])
    keywords: Any = fx.node.map_arg(node.kwargs, lambda given: values[given])
    folded = _folded(node, arguments, keywords)
    if folded is not None:
        return folded
    name = name_of(node)
    if name in OPERATORS:
        return OPERATORS[name](program, node, *arguments, **keywords)
    if name in UNARY:
        return add_unary(program, name, *arguments, **keywords)
    result = add_binary(program, name, *(as_value(given) for given in arguments[:2]))
    if result is None or keywords.get("alpha", 1) != 1:
        raise unsupported(node, "it broadcasts in a way that C code isn't written for")
    return result


def _folded(node: fx.Node, arguments: Any, keywords: Any) -> Lowered | None:
    """Compute what depends on no input when the file is written."""
    if node.target is operator.getitem:
        return None
    if any(value.constant is None for value in values_in((arguments, keywords))):
        return None
    given: Any = tensors((tuple(arguments), dict(keywords)))
    given[1].pop("pin_memory", None)
    assert callable(node.target)
    result = node.target(*given[0], **given[1])
    return constant(result) if isinstance(result, Tensor) else [constant(x) for x in result]
