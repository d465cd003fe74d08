"""Which parts of a traced forward are calls of norm modules, and of which."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from rayprune.pruning.layers.norm_sizes import NORMS


@dataclass(frozen=True, slots=True)
class NormCall:
    """One call of a norm module."""

    layer: str
    """The module's name; of a shared one the first."""
    module: nn.Module
    names: Mapping[str, str]
    """Full name of each of its parameters and buffers, by its own; of shared ones the first."""
    given: fx.Node | None
    """What it normalises; None if it is no module's call, but a function's."""
    training: bool
    """Whether it ran in training mode."""


@dataclass
class NormCalls:
    """All calls of norm modules in a graph."""

    results: dict[fx.Node, NormCall] = field(default_factory=dict)
    """By the node that a call returns."""
    inner: set[fx.Node] = field(default_factory=set)
    """Nodes of which no one knows outside the module."""


@dataclass
class _Span:
    """Names of the nodes that one call added to the graph, the result's last."""

    module: nn.Module
    layer: str
    training: bool
    begin: int
    nodes: Sequence[str] = ()


class Watch:
    """Notes while a forward is traced which norm module adds which nodes."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._spans: list[_Span] = []

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch a forward that is traced in here."""
        handles: list[Any] = []
        for name, part in self._module.named_modules():
            if type(part) in NORMS:
                handles.append(part.register_forward_pre_hook(partial(self._enter, name)))
                handles.append(part.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def calls(self, graph: fx.Graph, parameters: Collection[fx.Node]) -> NormCalls:
        """Return the calls, as nodes of the finished graph."""
        nodes = {node.name: node for node in graph.nodes}
        held = [*self._module.named_parameters(), *self._module.named_buffers()]
        full = {id(tensor): name for name, tensor in reversed(held)}
        found = NormCalls()
        for span in self._spans:
            inside = [nodes[name] for name in span.nodes if name in nodes]
            own = [*span.module.named_parameters(), *span.module.named_buffers()]
            given = _given(inside, parameters)
            if given is not None and inside[-1].name == span.nodes[-1]:
                names = {key: full[id(tensor)] for key, tensor in own}
                found.results[inside[-1]] = NormCall(
                    span.layer, span.module, names, given, span.training
                )
                found.inner |= set(inside[:-1])
        return found

    def _enter(self, layer: str, module: nn.Module, given: Any) -> None:
        self._spans.append(_Span(module, layer, module.training, len(_recorded())))

    def _leave(self, module: nn.Module, given: Any, output: Any) -> None:
        span = next(s for s in reversed(self._spans) if s.module is module and not s.nodes)
        span.nodes = _recorded()[span.begin :]


def _recorded() -> list[str]:
    mode: Any = get_proxy_mode()
    return [] if mode is None else [node.name for node in mode.tracer.graph.nodes]


def _given(inside: Sequence[fx.Node], parameters: Collection[fx.Node]) -> fx.Node | None:
    """Return what a module's nodes read that is neither theirs, nor a weight, nor a constant."""
    for node in inside:
        for read in node.all_input_nodes:
            if read not in inside and read not in parameters and read.op != "get_attr":
                return read
    return None
