"""Products with parameters of no layer: ``x @ w.T``, ``torch.addmm(b, x, w)``."""

from __future__ import annotations

import torch

from rayprune.deploy.compaction.abstract_values import NAN, AbstractValue, columns
from rayprune.deploy.compaction.findings import Use, named, owner_of
from rayprune.deploy.compaction.operators import attention_products
from rayprune.deploy.compaction.operators.call import Call
from rayprune.deploy.compaction.operators.linear_and_convolution import affine
from rayprune.deploy.compaction.parameter_axes import axes_of


def multiplied(call: Call) -> list[AbstractValue] | None:
    """``matmul`` and ``mm``: a parameter is read as a layer's weight, others as attention."""
    first, second = call.tensors
    if not (first.parameter or second.parameter):
        return attention_products.multiplied(call)
    if first.parameter and second.parameter:
        return None
    if second.parameter:
        return read_product(call, first, second, rows=1, axis=-1, result=-1)
    axis = -2 if second.channels.dim() > 1 else -1
    return read_product(call, second, first, rows=0, axis=axis, result=axis)


def added(call: Call) -> list[AbstractValue] | None:
    """``addmm``: a bias, and a product."""
    bias, value, weight = (call.given[name] for name in ("self", "mat1", "mat2"))
    if (
        not weight.parameter
        or value.parameter
        or (call.given["beta"], call.given["alpha"]) != (1, 1)
    ):
        return None
    return read_product(call, value, weight, rows=1, axis=-1, result=-1, bias=bias)


def turned(call: Call) -> list[AbstractValue] | None:
    """``linear`` with a weight that was turned around before."""
    value, weight = call.given["input"], call.given["weight"]
    if not weight.parameter or value.parameter:
        return None
    return read_product(call, value, weight, rows=0, axis=-1, result=-1, bias=call.given["bias"])


def read_product(
    call: Call,
    value: AbstractValue,
    weight: AbstractValue,
    *,
    rows: int,
    axis: int,
    result: int,
    bias: AbstractValue | None = None,
) -> list[AbstractValue] | None:
    """Read a product.

    Args:
        call: of the operator.
        value: what is multiplied.
        weight: a parameter, maybe turned around.
        rows: which of its two axes counts what comes out.
        axis: of the value, that is summed over.
        result: which axis of the result counts what comes out.
        bias: that is added.
    """
    findings, name, shape = call.findings, weight.parameter, call.shapes[0]
    axes = axes_of(weight, findings.parameters[name].shape)
    if axes is None or set(axes) != {0, 1} or findings.parameters[name].dim() != 2:
        return None
    if bias is not None and (not bias.parameter or bias.source is not None):
        return None
    ours = (0, 1) if axes[rows] == 0 else (1, 0)
    seen = columns(value, axis)
    use = Use(
        weight=name,
        bias=bias.parameter if bias is not None else "",
        rows=findings.units_of(name, shape[result], ours),
        columns=findings.columns_of(value, seen, named(owner_of(name))),
        constants=seen.constants,
        carried=torch.full_like(seen.constants, NAN),
        axes=ours,
    )
    return [affine(findings, use, seen, shape, result)]
