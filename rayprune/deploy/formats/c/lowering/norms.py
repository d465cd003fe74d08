"""Norms: of layers, groups and batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import fx

from rayprune.deploy.formats.c.lowering.nodes import Operator, constant, tensors, unsupported
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.formats.c.reductions import add_affine, add_normalised


def _layer_norm(
    program: Program,
    node: fx.Node,
    x: Value,
    over: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    size = math.prod(over)
    return add_normalised(program, x, size, eps, centre=True, weight=weight, bias=bias)


def _rms_norm(
    program: Program,
    node: fx.Node,
    x: Value,
    over: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> Value:
    eps = float(np.finfo(np.float32).eps) if eps is None else eps
    return add_normalised(program, x, math.prod(over), eps, centre=False, weight=weight)


def _group_norm(
    program: Program,
    node: fx.Node,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    normalised = add_normalised(program, x, x.size // groups, eps, centre=True)
    return add_affine(program, normalised, *(_by_channel(x, each) for each in (weight, bias)))


def _batch_norm(
    program: Program,
    node: fx.Node,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Value:
    if mean is None or variance is None or training:
        raise unsupported(node, "it normalises by the batch that it is given")
    if any(each is not None and each.constant is None for each in (weight, bias, mean, variance)):
        raise unsupported(node, "its weights are computed")
    scale = torch.rsqrt(tensors(variance).double() + eps)
    scale = scale if weight is None else scale * tensors(weight)
    shift = -tensors(mean) * scale + (0.0 if bias is None else tensors(bias))
    result = program.buffer(x.shape)
    program.loop(x.size, f"{result.pointer}[i] = {program.pointer(x)}[i];")
    by_channel = (_by_channel(x, constant(each.float())) for each in (scale, shift))
    return add_affine(program, result, *by_channel)


def _by_channel(x: Value, each: Value | None) -> Value | None:
    """Return a value for each channel as it broadcasts over an image."""
    return None if each is None else each.shaped((each.size, *[1] * (len(x.shape) - 2)))


OPERATORS: Final[Mapping[str, Operator]] = {
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}
