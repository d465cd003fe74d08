"""What a rewrite is, and the parts of one: the same function, of operators that take less time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from rayprune.deploy.policy.capture import drop_unused, quiet, recapture

Rewrite: TypeAlias = Callable[[GraphModule], bool]
"""Changes a graph where it can and says whether it did; what is unused then, others remove."""


class Convolution(NamedTuple):
    """The arguments of ``aten.conv2d``, with what torch fills in."""

    given: Any
    weight: Any
    bias: Any = None
    stride: Any = (1, 1)
    padding: Any = (0, 0)
    dilation: Any = (1, 1)
    groups: int = 1


def arguments_of(convolution: Node) -> Convolution:
    """Return the arguments of a call of ``aten.conv2d``."""
    given: Any = convolution.args
    held = Convolution(*given)
    # torch takes `(2,)` for both axes, too.
    pairs = {name: (getattr(held, name) * 2)[:2] for name in ("stride", "padding", "dilation")}
    return held._replace(**pairs)


def rewritten(captured: ExportedProgram, *rewrites: Rewrite) -> ExportedProgram:
    """Return a graph after each of ``rewrites``, or itself if none of them found a place."""
    for rewrite in rewrites:
        with quiet():
            module: Any = captured.module(check_guards=False)
        if rewrite(module):
            # A convolution's output may lie in another order now, which a view can't take.
            for view in calls(module.graph, torch.ops.aten.view.default):
                view.target = torch.ops.aten.reshape.default
            module.graph.eliminate_dead_code()
            drop_unused(module)
            module.recompile()
            captured = recapture(module, captured)
    return captured


def calls(graph: Graph, operator: Any) -> list[Node]:
    """Return the calls of an operator, in their order."""
    return [node for node in graph.nodes if node.target is operator]


def constant(module: GraphModule, node: Any) -> Tensor | None:
    """Return the parameter or buffer that a node reads; None if it is another kind of node."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    held: Any = module
    for part in str(node.target).split("."):
        held = getattr(held, part)
    return held.detach() if isinstance(held, Tensor) else None


def add_constant(module: GraphModule, before: Node, value: Tensor) -> Node:
    """Give a graph a new constant, to be read by ``before`` and what follows it."""
    name = next(name for n in itertools.count() if not hasattr(module, name := f"rewritten{n}"))
    module.register_buffer(name, value.contiguous())
    with module.graph.inserting_before(before):
        node: Node = module.graph.get_attr(name)
    return node


def shape_of(node: Node) -> tuple[Any, ...]:
    """Return the shape of what a node computes, as it was captured; its batch may be symbolic."""
    return tuple(node.meta["val"].shape)
