"""What a module's forward computes, as a graph of torch's operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.attention.layer_operator import as_operators, forget_unread_weights
from rayprune.deploy.compaction.module_calls import ModuleCall, recorded_calls
from rayprune.deploy.compaction.norm_calls import NormCalls, Watch
from rayprune.errors import InputError
from rayprune.pruning.layers.narrow_recurrent import states_by_literals

Forward = Callable[..., Any]
"""Takes the module and its arguments; returns tensors in any nesting of dicts and sequences."""


@dataclass(frozen=True)
class Trace:
    """A forward's graph, with names for what goes in."""

    graph: fx.Graph
    parameters: dict[fx.Node, str]
    """Placeholder -> the parameter's full name; of a shared one the first."""
    inputs: dict[fx.Node, int]
    """Placeholder -> place among :func:`tensors_in` of the arguments."""
    outputs: list[fx.Node]
    """In the order of :func:`tensors_in` of what the forward returns."""
    norms: NormCalls
    calls: list[ModuleCall]
    """Of the module and its parts, in order."""


def trace(module: nn.Module, arguments: tuple[Any, ...], forward: Forward | None = None) -> Trace:
    """Record the operators that one forward runs.

    Args:
        module: in evaluation mode; left as it is.
        arguments: an example of them.
        forward: what to run instead of ``module(*arguments)``.

    Raises:
        InputError: the forward fails on these arguments, or can't be recorded.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> recorded = trace(net, (torch.zeros(1, 2),))
    >>> [node.name for node in recorded.graph.nodes if node.op == "call_function"]
    ['linear', 'relu']
    """
    leaves, structure = pytree.tree_flatten(arguments)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    whole = _Whole(module, forward)
    parameters = dict(whole.named_parameters())

    def run(values: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        given = dict(zip(parameters, values, strict=True))
        return tensors_in(
            torch.func.functional_call(whole, given, pytree.tree_unflatten(filled, structure))
        )

    # Copies: one tensor given twice would be one input.
    inputs = [list(parameters.values()), [leaves[place].detach().clone() for place in places]]
    watch = Watch(module)
    with (
        watch.installed(),
        as_operators(module),
        states_by_literals(module),
        recorded_calls(module) as calls,
    ):
        recorded = _try(lambda: make_fx(run, pre_dispatch=True)(*inputs), _UNTRACEABLE)
    forget_unread_weights(recorded.graph)
    names = [name.removeprefix("module.") for name in parameters]
    return _named(recorded.graph, names, watch, calls)


def check_runs(module: nn.Module, arguments: tuple[Any, ...], forward: Forward | None) -> None:
    """Run a forward once.

    Raises:
        InputError: it fails on these arguments.
    """
    _try(lambda: call(module, arguments, forward), _FAILS)


def call(module: nn.Module, arguments: tuple[Any, ...], forward: Forward | None) -> Any:
    """Run ``forward``, or the module itself."""
    return module(*arguments) if forward is None else forward(module, *arguments)


def as_arguments(example_input: Any) -> tuple[Any, ...]:
    """Return the arguments that an example stands for: a tuple's members, or the one thing."""
    return example_input if isinstance(example_input, tuple) else (example_input,)


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors of any nesting of dicts and sequences, in a fixed order.

    >>> len(tensors_in({"a": torch.zeros(1), "b": [torch.ones(1), None]}))
    2
    """
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


_FAILS = (
    "The forward fails on `example_input`: {}. Give what the module takes: a tensor, a tuple of "
    "arguments, or a dict batch."
)
_UNTRACEABLE = (
    "The forward can't be traced: {}. It must not depend on the values of its inputs; pass as "
    "`forward=` a function that doesn't."
)


class _Whole(nn.Module):
    """A module and a forward of it that may be another than its own."""

    def __init__(self, module: nn.Module, forward: Forward | None) -> None:
        super().__init__()
        self.module = module
        self._forward_of = forward

    def forward(self, *arguments: Any) -> Any:
        return call(self.module, arguments, self._forward_of)


def _try(run: Callable[[], Any], message: str) -> Any:
    try:
        with torch.no_grad():
            return run()
    # Whatever a user's forward may raise.
    except Exception as error:
        told = str(error).rstrip(".")
        raise InputError(message.format(f"{type(error).__name__}: {told}")) from error


def _named(graph: fx.Graph, parameters: list[str], watch: Watch, calls: list[ModuleCall]) -> Trace:
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    weights, inputs = placeholders[: len(parameters)], placeholders[len(parameters) :]
    (outputs,) = next(node for node in graph.nodes if node.op == "output").args
    return Trace(
        graph=graph,
        parameters=dict(zip(weights, parameters, strict=True)),
        inputs={node: place for place, node in enumerate(inputs)},
        outputs=list(outputs),
        norms=watch.calls(graph, weights),
        calls=calls,
    )
