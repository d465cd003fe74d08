"""Which module's own code ran which operators of a traced forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.utils import _pytree as pytree

_END: Final = 2**63 - 1
"""What torch writes for the end of an open slice."""


@dataclass(slots=True)
class ModuleCall:
    """One call of a module during a trace."""

    name: str
    """The module's full name; empty for the root."""
    inputs: list[fx.Node | None]
    """By tensor among its arguments; None for one that isn't traced."""
    dims: list[int]
    """By tensor, how many axes it has."""
    own: list[fx.Node] = field(default_factory=list)
    """The operators that its own forward runs, in order; not those of the modules it calls."""


class CallRecorder:
    """Follows a trace from module to module."""

    def __init__(self) -> None:
        self.calls: list[ModuleCall] = []
        self._open: list[ModuleCall] = []
        self._seen = 0

    def enter(self, name: str, arguments: Any) -> None:
        """Note that a module is called now."""
        tracer = get_proxy_mode().tracer  # type: ignore[union-attr]
        self._assign(tracer.graph)
        tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
        dims = [tensor.dim() for tensor in tensors]
        call = ModuleCall(name, [_node(tensor, tracer) for tensor in tensors], dims)
        self.calls.append(call)
        self._open.append(call)

    def leave(self) -> None:
        """Note that the module called last is done."""
        self._assign(get_proxy_mode().tracer.graph)  # type: ignore[union-attr]
        self._open.pop()

    def _assign(self, graph: fx.Graph) -> None:
        nodes = list(graph.nodes)
        if self._open:
            self._open[-1].own += [node for node in nodes[self._seen :] if is_operator(node)]
        self._seen = len(nodes)


@contextmanager
def recorded_calls(module: nn.Module) -> Iterator[list[ModuleCall]]:
    """Record the calls of a module and of its parts while a forward of it is traced."""
    recorder = CallRecorder()
    handles = []
    for name, part in module.named_modules():

        def enter(
            _: nn.Module, args: Any, kwargs: Any, name: str = name
        ) -> None:  # bound now, not when it is called
            recorder.enter(name, (args, kwargs))

        handles.append(part.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(part.register_forward_hook(lambda *_: recorder.leave()))
    try:
        yield recorder.calls
    finally:
        for handle in handles:
            handle.remove()


def given_to(
    module: nn.Module, run: Callable[[], Any], names: Iterable[str]
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return what some parts of a module are called with first.

    Args:
        module: any.
        run: runs a forward of it.
        names: of the parts; empty for the module itself.
    """
    found: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    handles = []
    for name in names:

        def note(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            found.setdefault(name, (args, kwargs))

        part = module.get_submodule(name)
        handles.append(part.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def is_operator(node: fx.Node) -> bool:
    """Whether a node is one of torch's operators on tensors, and not on sizes.

    Traces with symbolic sizes and with plain ones have the same of them, in the same order.
    """
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = operator_name(node)
    return not name.startswith(("sym_", "_assert_")) and not _is_whole(node)


def operator_name(node: fx.Node) -> str:
    """Return the name of a node's operator, without overload; empty for what is none."""
    packet = getattr(node.target, "_overloadpacket", None)
    return str(packet.__name__) if packet is not None else ""


def _is_whole(node: fx.Node) -> bool:
    """Whether this is the ``:`` of ``x[:, 1]``: it is a slice of its own where sizes are open."""
    if operator_name(node) != "slice":
        return False
    start, end, step = [*node.args[2:], *(None, None, 1)[len(node.args) - 2 :]][:3]
    return start in (0, None) and end in (None, _END) and step == 1  # type: ignore[return-value]


def _node(tensor: Tensor, tracer: Any) -> fx.Node | None:
    slot = get_proxy_slot(tensor, tracer, None)
    return slot.proxy.node if slot is not None else None
