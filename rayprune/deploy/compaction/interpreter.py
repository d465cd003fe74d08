"""Walks through a traced forward, operator by operator, and reads it."""

from __future__ import annotations

import operator as python_operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.abstract_values import AbstractValue, made, unknown
from rayprune.deploy.compaction.double_precision import in_precision
from rayprune.deploy.compaction.findings import Arguments, Findings, Shapes, named
from rayprune.deploy.compaction.module_calls import operator_name
from rayprune.deploy.compaction.norm_calls import NormCall
from rayprune.deploy.compaction.operators import tensors as operators
from rayprune.deploy.compaction.operators.call import Call, Run, values_in
from rayprune.deploy.compaction.operators.norms import read_norm
from rayprune.deploy.compaction.operators.readers import READERS
from rayprune.deploy.compaction.operators.rules import MIXES, minds_parameters, rule_of
from rayprune.deploy.compaction.recurrent_states import find_states
from rayprune.deploy.compaction.trace import Trace, tensors_in
from rayprune.errors import InputError

# `view` refuses what is laid out otherwise than the tensors of the run were.
_RUN_AS = {
    "view": torch.ops.aten.reshape.default,
    "_unsafe_view": torch.ops.aten.reshape.default,
}

Target = torch._ops.OpOverload

# What they give may be the very memory that they are given.
_ALIASES = operators.MOVES | operators.CUTS | operators.SAME | {""}

_FORM = "`{}` reads them in a form that compaction doesn't know"
_UNKNOWN = "`{}` is not among the operators that compaction knows"


def read(findings: Findings, traced: Trace, *, shrink_states: bool) -> None:
    """Read a traced forward.

    Args:
        findings: what is found is added here.
        traced: the forward.
        shrink_states: whether recurrent states may come and go with fewer units.

    Raises:
        InputError: the forward writes into a tensor that others see.
    """
    states = find_states(traced)
    values = findings.values
    for node in traced.graph.nodes:
        if node in traced.parameters:
            own = unknown(node.meta["val"].shape)
            values[node] = AbstractValue(own.channels, own.known, traced.parameters[node])
        elif node in traced.inputs:
            shrinks = shrink_states and node in states.inputs
            values[node] = _input(findings, node, traced.inputs[node], shrinks=shrinks)
        elif node.op == "get_attr":
            values[node] = _held(traced, node)
        elif node in traced.norms.results:
            values[node] = _normalised(findings, traced.norms.results[node], values)
        elif node in traced.norms.inner:
            continue
        elif node.op == "call_function" and not _sets_a_mode(node):
            values[node] = _called(findings, node, values)
    for place, node in enumerate(traced.outputs):
        _return(findings, values[node], place, shrinks=shrink_states and place in states.outputs)


def _input(findings: Findings, node: fx.Node, place: int, *, shrinks: bool) -> AbstractValue:
    shape = node.meta["val"].shape
    if not shrinks:
        return unknown(shape)
    findings.states[place] = findings.channels.new(shape[-1])
    return unknown(shape, channels=findings.states[place])


def _return(findings: Findings, value: AbstractValue, place: int, *, shrinks: bool) -> None:
    if shrinks:
        findings.returned[place] = value.channels.reshape(-1, value.channels.shape[-1])[0]
    else:
        findings.channels.pin(value.channels)
    if value.parameter:
        findings.elsewhere.add(value.parameter)


def _held(traced: Trace, node: fx.Node) -> AbstractValue | None:
    """Return a tensor that the module holds beside its parameters; None for what is no tensor."""
    held = python_operator.attrgetter(str(node.target))(traced.graph.owning_module)
    if not isinstance(held, Tensor):
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(held):
        raise InputError(
            "The forward can't be traced through a transform of torch.func, such as vmap. "
            "Write it without one to have it compacted."
        )
    literal = all(operator_name(user) in ("lift_fresh", "lift_fresh_copy") for user in node.users)
    # `torch.tensor(2.0)` in a forward is the number that it is; a buffer may change.
    return _typed(made(held) if literal else unknown(held.shape), held)


def _called(findings: Findings, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    if node.target is python_operator.getitem:
        return values[node.args[0]][node.args[1]]  # type: ignore[index]
    returned = node.meta.get("val")
    shapes = _shapes(returned)
    try:
        results = _followed(findings, node, values, shapes)
    except InputError:
        raise
    # An operator in a form that its rule did not foresee: nothing is known of it then.
    except Exception as error:
        read = values_in(fx.node.map_arg((node.args, node.kwargs), values.get))
        why = f"`{_shown(node)}` can't be followed: {type(error).__name__}: {error}"
        results = _opaque(findings, read, shapes, why)
    return _as_returned(results, returned)


def _normalised(findings: Findings, call: NormCall, values: Mapping[fx.Node, Any]) -> AbstractValue:
    assert call.given is not None
    value: AbstractValue = values[call.given]
    try:
        return read_norm(findings, call, value)
    # As for operators.
    except Exception as error:
        why = f"{named(call.layer)} can't be followed: {type(error).__name__}: {error}"
        findings.elsewhere |= set(call.names.values())
        return _opaque(findings, [value], [value.channels.shape], why)[0]


def _followed(
    findings: Findings, node: fx.Node, values: Mapping[fx.Node, Any], shapes: Shapes
) -> list[AbstractValue]:
    if not isinstance(node.target, Target):
        read = values_in(fx.node.map_arg((node.args, node.kwargs), values.get))
        return _opaque(findings, read, shapes, _UNKNOWN.format(_shown(node)))
    given = findings.given[node] = _bound(node, values)
    if _reads_parameters(node, given):
        return READERS[operator_name(node)](findings, given, shapes)
    return _applied(findings, node, given, shapes)


def _opaque(
    findings: Findings, tensors: Sequence[AbstractValue], shapes: Shapes, why: str
) -> list[AbstractValue]:
    """Hold whatever an operator reads, weights too: nothing is known of what it gives."""
    for tensor in tensors:
        findings.hold(tensor.channels, why)
        findings.elsewhere |= {tensor.parameter} - {""}
        if tensor.parameter in findings.units:
            findings.hold(findings.units[tensor.parameter], why)
    return [unknown(shape) for shape in shapes]


def _as_returned(results: Sequence[AbstractValue], returned: Any) -> Any:
    """Lay an operator's results out as it returns them, with None for what is no tensor."""
    left = iter(results)
    leaves, structure = pytree.tree_flatten(returned)
    told = [_typed(next(left), leaf) if isinstance(leaf, Tensor) else None for leaf in leaves]
    return pytree.tree_unflatten(told, structure)


def _typed(value: AbstractValue, like: Tensor) -> AbstractValue:
    return value if like.is_floating_point() else replace(value, dtype=like.dtype)


def _shown(node: fx.Node) -> str:
    name = operator_name(node)
    return f"aten.{name}" if name else str(getattr(node.target, "__name__", node.target))


def _reads_parameters(node: fx.Node, given: Arguments) -> bool:
    """Whether this is a layer, and all its weights are parameters as they are."""
    if operator_name(node) not in READERS or "data" in given:  # `data`: packed sequences
        return False
    keys = ("weight", "bias", "w_ih", "w_hh", "b_ih", "b_hh")
    weights = given["params"] if "params" in given else [given.get(key) for key in keys]
    return all(w is None or (w.parameter and w.source is None) for w in weights)


def _applied(
    findings: Findings, node: fx.Node, given: Arguments, shapes: Shapes
) -> list[AbstractValue]:
    function = _function(node)
    dtype = next((leaf.dtype for leaf in tensors_in(node.meta["val"])), torch.float64)
    call = Call(findings, function, given, shapes, dtype, _runner(function, given))
    if not minds_parameters(call):
        findings.elsewhere |= {tensor.parameter for tensor in call.tensors if tensor.parameter}
    rule = rule_of(call) if call.tensors else operators.created
    read = rule(call) if rule else None
    if read is not None:
        return read
    form = _FORM if call.name in READERS else _UNKNOWN
    why = MIXES.get(call.name, form.format(f"aten.{call.name}"))
    return _opaque(findings, call.tensors, shapes, why)


def _function(node: fx.Node) -> Target:
    """Return the operator, for one that writes in place the one that doesn't.

    ``nn.ReLU(inplace=True)`` is common, and harmless: what it writes into has no other reader.
    """
    function = node.target
    assert isinstance(function, Target)
    if not function._schema.is_mutable:
        return function
    name = operator_name(node).removesuffix("_")
    written = node.args[0]
    packet = getattr(torch.ops.aten, name, None)
    pure: Target | None = getattr(packet, function._overloadname, None)
    if pure is not None and name in operators.SAME:
        return pure  # `detach_`, as in `torch.tensor(2.0)`: no element changes
    if pure is None or not isinstance(written, fx.Node) or not _is_last_to_read(node, written):
        raise InputError(
            f"`aten.{operator_name(node)}` writes into a tensor that others may read. "
            "Write the forward without it to have it compacted."
        )
    return pure


def _is_last_to_read(node: fx.Node, written: fx.Node) -> bool:
    """Whether what a node writes into is new, and read before only by what made something else."""
    if written.op != "call_function" or operator_name(written) in _ALIASES:
        return False
    order = {other: place for place, other in enumerate(node.graph.nodes)}
    return all(
        order[user] < order[node] and operator_name(user) not in _ALIASES
        for user in written.users
        if user is not node
    )


def _runner(function: Target, given: Arguments) -> Run:
    arguments = function._schema.arguments
    function = _RUN_AS.get(function._overloadpacket.__name__, function)

    def run(part: Callable[[AbstractValue], Tensor]) -> Any:
        filled = pytree.tree_map(
            lambda leaf: part(leaf) if isinstance(leaf, AbstractValue) else leaf, dict(given)
        )
        positional = [filled[a.name] for a in arguments if not a.kwarg_only]
        named = {a.name: filled[a.name] for a in arguments if a.kwarg_only}
        # `0.1 * torch.arange(4)` is a constant of the default type.
        with in_precision(torch.float64):
            return function(*positional, **named)

    return run


def _sets_a_mode(node: fx.Node) -> bool:
    """Whether this only switches gradients on or off, as ``torch.no_grad()`` in a forward does."""
    if node.target is python_operator.getitem or isinstance(node.target, Target):
        return False
    return not tensors_in(node.meta.get("val"))


def _bound(node: fx.Node, values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    """Return an operator's arguments by name, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    given |= dict(zip([a.name for a in schema.arguments], node.args, strict=False))
    given |= node.kwargs
    return {key: fx.node.map_arg(value, lambda n: values[n]) for key, value in given.items()}


def _shapes(result: Any) -> list[torch.Size]:
    return [leaf.shape for leaf in tensors_in(result)]
