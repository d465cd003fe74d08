"""Tracing one module's own code with sizes that stay open, and writing edits into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    fetch_sym_proxy,
    get_proxy_mode,
    get_proxy_slot,
    make_fx,
    track_tensor_tree,
)
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.fx.graph_module import _format_import_block
from torch.package.importer import sys_importer
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.module_calls import is_operator, operator_name
from rayprune.deploy.compaction.sizes.literals import After, Called, Change, Edit, Picked
from rayprune.deploy.compaction.sizes.resized_forward import TENSOR, ResizedForward
from rayprune.errors import InputError


@dataclass(frozen=True, slots=True)
class Given:
    """What a module was called with."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    open_dims: Sequence[Sequence[bool]]
    """By tensor among them, which axes may have any length."""
    operators: Sequence[str]
    """That its own forward ran."""


def resized_code(
    module: nn.Module, given: Given, changes: Mapping[int, Sequence[Change]]
) -> ResizedForward:
    """Trace a module's own forward, and write changes into it.

    Args:
        module: in evaluation mode, with the old sizes; its parts are called as they are.
        given: an example of its arguments.
        changes: by operator, counted among those that the forward itself runs.

    Raises:
        InputError: with open sizes it runs other operators.
    """
    traced, returned = _trace(module, given)
    graph, constants = traced.graph, dict[str, Tensor]()
    nodes = [node for node in graph.nodes if is_operator(node)]
    _name_held(traced, module, constants)
    if [operator_name(node) for node in nodes] != list(given.operators):
        raise InputError("its forward takes another way with sizes that are open")
    for place, wanted in changes.items():
        for change in wanted:
            _apply(graph, nodes[place], change, constants)
    _follow_devices(graph)
    graph.eliminate_dead_code(_stays)
    return ResizedForward(
        source=_source(graph),
        constants=constants,
        given=pytree.tree_map(_marked, (given.arguments, dict(given.keywords))),
        returned=pytree.tree_map(_marked, returned),
    )


def _marked(leaf: Any) -> Any:
    return TENSOR if _is_computed(leaf) else leaf


def _trace(module: nn.Module, given: Given) -> tuple[fx.GraphModule, Any]:
    """Return the graph, and what the forward returns."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    leaves, structure = pytree.tree_flatten((given.arguments, dict(given.keywords)))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    fakes = [
        _fake(mode, leaves[place], open_dims, place)
        for place, open_dims in zip(places, given.open_dims, strict=True)
    ]
    held = _held(module)
    returned: list[Any] = []

    def run(values: list[Tensor], tensors: list[Tensor]) -> list[Any]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        args, kwargs = pytree.tree_unflatten(filled, structure)
        given = dict(zip(held, values, strict=True))
        returned.append(torch.func.functional_call(module, given, args, kwargs))
        return [leaf for leaf in pytree.tree_leaves(returned[-1]) if _is_computed(leaf)]

    values = [mode.from_tensor(value.detach(), static_shapes=True) for value in held.values()]
    tracer = make_fx(run, tracing_mode="symbolic", pre_dispatch=True, _allow_non_fake_inputs=True)
    with _parts_as_they_are(module), torch.no_grad():
        traced = tracer(values, fakes)
    return traced, returned[-1]


def _held(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _is_computed(leaf: Any) -> bool:
    return isinstance(leaf, (Tensor, torch.SymInt, torch.SymFloat, torch.SymBool))


def _fake(mode: FakeTensorMode, tensor: Tensor, open_dims: Sequence[bool], place: int) -> Tensor:
    sizes = [DimDynamic.DYNAMIC if is_open else DimDynamic.STATIC for is_open in open_dims]
    return mode.from_tensor(
        tensor.detach(),
        symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes),
        source=ConstantSource(f"input{place}"),
    )


def _part(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Stand in a graph for the call of a part."""


@contextmanager
def _parts_as_they_are(module: nn.Module) -> Iterator[None]:
    """Let a trace take calls of a module's parts as one step each."""
    parts = {name: part for name, part in module.named_modules() if name}
    own = {name: vars(part).get("forward") for name, part in parts.items()}
    for name, part in parts.items():
        part.forward = _one_step(name, part.forward)
    try:
        yield
    finally:
        for name, part in parts.items():
            del part.forward
            if own[name] is not None:
                part.forward = own[name]


def _one_step(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    def step(*args: Any, **kwargs: Any) -> Any:
        mode = get_proxy_mode()
        if mode is None:  # within another part
            return forward(*args, **kwargs)
        tracer = mode.tracer
        given = pytree.tree_map(lambda leaf: _proxy(leaf, tracer), (args, kwargs))
        with disable_proxy_modes_tracing():
            result = forward(*args, **kwargs)
        proxy = tracer.create_proxy("call_function", _part, (name, *given), {})
        track_tensor_tree(result, proxy, constant=None, tracer=tracer)
        return result

    return step


def _proxy(leaf: Any, tracer: Any) -> Any:
    if isinstance(leaf, Tensor):
        return get_proxy_slot(leaf, tracer).proxy
    return fetch_sym_proxy(tracer)(leaf) if _is_computed(leaf) else leaf


def _name_held(traced: fx.GraphModule, module: nn.Module, constants: dict[str, Tensor]) -> None:
    """Have the graph read parameters, buffers and parts by name, and move constants out of it."""
    graph, held = traced.graph, list(_held(module))
    graph.set_codegen(fx.graph.CodeGen())
    graph.owning_module = None  # whose attributes are not those of the module that takes it
    for node in list(graph.nodes):
        with graph.inserting_before(node):
            if node.op == "placeholder" and held:
                node.replace_all_uses_with(_read(graph, held.pop(0)))
                graph.erase_node(node)
            elif node.target is _part:
                node.replace_all_uses_with(graph.create_node("call_module", *node.args))
                graph.erase_node(node)
            elif node.op == "get_attr" and node.target not in _held(module):
                node.target = _keep(getattr(traced, node.target), constants)


def _read(graph: fx.Graph, name: str) -> fx.Node:
    return graph.create_node("get_attr", name, (), {})


def _stays(node: fx.Node) -> bool:
    """Whether a node does something although nothing reads it: it writes in place, for one."""
    schema = getattr(node.target, "_schema", None)
    return node.op in ("placeholder", "output") or (schema is not None and schema.is_mutable)


def _keep(constant: Tensor, constants: dict[str, Tensor]) -> str:
    name = f"_resized_{len(constants)}"
    constants[name] = constant.detach().cpu()
    return name


def _apply(graph: fx.Graph, node: fx.Node, change: Change, constants: dict[str, Tensor]) -> None:
    def constant(value: Any) -> Any:
        return _read(graph, _keep(value, constants)) if isinstance(value, Tensor) else value

    if isinstance(change, After):
        _pass_on(graph, node, change)
        return
    with graph.inserting_before(node):
        old = _bound(node)
        if isinstance(change, Edit):
            value = constant(change.value)
            if isinstance(value, Picked):
                index = constant(torch.tensor(value.positions))
                select = torch.ops.aten.index_select.default
                value = graph.call_function(select, (old[change.argument], value.dim, index))
            if change.place is not None:
                several = list(old[change.argument])
                several[change.place] = value
                value = several
            node.args, node.kwargs = _laid_out(node.target, {**old, change.argument: value})
            return
        given = {name: constant(value) for name, value in change.given.items()}
        if isinstance(change, Called):
            own = {name: old.get(name) for name in change.tensors}
            node.replace_all_uses_with(graph.call_function(change.function, (), {**own, **given}))
        else:
            given = {**old, **given}
            args, kwargs = _laid_out(change.operator, given)
            node.replace_all_uses_with(graph.call_function(change.operator, args, kwargs))


def _pass_on(graph: fx.Graph, node: fx.Node, change: After) -> None:
    users = list(node.users)
    with graph.inserting_after(node):
        scaled = graph.call_function(torch.ops.aten.mul.Tensor, (node, change.scale))
    with graph.inserting_after(scaled):
        result = graph.call_function(torch.ops.aten.add.Tensor, (scaled, change.shift))
    for user in users:
        user.replace_input_with(node, result)


def _bound(node: fx.Node) -> dict[str, Any]:
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    return {**dict(zip([a.name for a in schema], node.args, strict=False)), **node.kwargs}


def _laid_out(function: Any, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments as an operator takes them, with what it doesn't take left out."""
    schema = function._schema.arguments
    told = {a.name: given.get(a.name, a.default_value) for a in schema}
    args = tuple(told[a.name] for a in schema if not a.kwarg_only)
    named = [a.name for a in schema if a.kwarg_only and a.name in given]
    return args, {name: told[name] for name in named}


def _follow_devices(graph: fx.Graph) -> None:
    """Make tensors where the inputs are, and not where those of the trace were."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if not inputs:
        return
    with graph.inserting_after(inputs[-1]):
        device = graph.call_function(getattr, (inputs[0], "device"))

    def follow(leaf: Any) -> Any:
        return device if isinstance(leaf, torch.device) else leaf

    for node in graph.nodes:
        if node is not device and node.op == "call_function":
            node.args, node.kwargs = pytree.tree_map(follow, (node.args, node.kwargs))


def _source(graph: fx.Graph) -> str:
    code = graph.python_code("self")
    return f"{_format_import_block(code.globals, sys_importer)}\n{code.src}"
