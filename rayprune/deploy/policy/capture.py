"""Capturing a policy as a graph of torch operators, which all formats are made from."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import InputError, first_line
from rayprune.pruning.layers.attach import unmask
from rayprune.pruning.layers.plain_parameters import bake, copied
from rayprune.pruning.quantisation.quantiser import with_rounded_weights

_EXAMPLES = 3
"""Batch size of the captured run; sizes of 0 and 1 would be taken for constants."""


def plain_copy(policy: DeployablePolicy) -> DeployablePolicy:
    """Return a copy on the CPU in eval mode, whose layers are torch's own classes.

    What torch computes a weight from, such as a weight norm, is resolved.
    Of a quantised policy the weights are rounded, and what layers read is not.
    """
    plain = copied(policy).cpu().eval()
    bake(with_rounded_weights(plain))
    unmask(plain)
    return plain.requires_grad_(False)


def capture(policy: DeployablePolicy, *, batch: int | None = None) -> ExportedProgram:
    """Capture a policy's operators; what doesn't contribute to its outputs is left out.

    Args:
        policy: a `plain_copy`.
        batch: a fixed batch size, None for any.

    Raises:
        InputError: it can't be traced; says where.
    """
    inputs = example_inputs(policy, batch or _EXAMPLES)
    shapes = None if batch else tuple({0: Dim("batch")} for _ in inputs)
    # The policy takes `*inputs`, the module that was captured of it each by a name of its own.
    whole = _capture(policy, inputs, shapes and (shapes,))
    return _capture(_without_unused(whole), inputs, shapes)


def recapture(module: nn.Module, captured: ExportedProgram) -> ExportedProgram:
    """Capture a rewritten graph, for any batch size or a fixed one as before.

    Args:
        module: computes what ``captured`` does, of the same inputs.
        captured: the graph before.
    """
    inputs, _ = captured.example_inputs
    fixed = not captured.range_constraints
    return _capture(module, inputs, None if fixed else tuple({0: Dim("batch")} for _ in inputs))


def example_inputs(policy: DeployablePolicy, batch: int) -> tuple[Tensor, ...]:
    """Return zeros for each input of a policy."""
    return tuple(torch.from_numpy(port.zeros(batch)) for port in policy.interface.inputs)


def _capture(module: nn.Module, inputs: tuple[Tensor, ...], shapes: Any) -> ExportedProgram:
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises whatever the module's own code meets
        raise InputError(
            f"The policy can't be exported, since its forward pass can't be traced: "
            f"{first_line(error)}. Make it free of branches on tensor values and of Python side "
            "effects; rerun with --debug for where."
        ) from error


def _without_unused(captured: ExportedProgram) -> nn.Module:
    with quiet():
        module: Any = captured.module(check_guards=False)
    # An LSTM counts as impure, for its dropout; here nothing but inputs and outputs is.
    module.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    drop_unused(module)
    module.recompile()
    return module  # type: ignore[no-any-return]


def drop_unused(module: GraphModule) -> None:
    """Delete parameters and buffers that a graph doesn't read."""
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in [*module.named_parameters(), *module.named_buffers()]:
        if name not in used:
            owner, _, attribute = name.rpartition(".")
            delattr(module.get_submodule(owner), attribute)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what exporters remark on themselves, such as an LSTM's flat weights."""
    loggers = [logging.getLogger(name) for name in ("", "torch.export", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
