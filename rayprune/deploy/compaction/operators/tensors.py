"""What torch's operators that are no layers do to units and constants.

An operator that only moves elements is run on the tensor of channels itself, and everything is run
on the tensor of constants: no rule is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from rayprune.deploy.compaction.abstract_values import (
    NAN,
    AbstractValue,
    along,
    columns,
    made,
    unknown,
    varies,
)
from rayprune.deploy.compaction.channels import FREE, PINNED
from rayprune.deploy.compaction.findings import Arguments, Findings, NormUse
from rayprune.deploy.compaction.norm_calls import NormCall
from rayprune.deploy.compaction.operators.call import Call, Run
from rayprune.deploy.compaction.parameter_axes import axes_of, sources
from rayprune.deploy.compaction.trace import tensors_in

# fmt: off
MOVES: Final = frozenset({
    "view", "reshape", "flatten", "unflatten", "ravel", "permute", "transpose", "t", "movedim",
    "swapaxes", "unsqueeze", "squeeze", "expand", "expand_as", "broadcast_to", "repeat", "tile",
    "cat", "concat", "concatenate", "stack", "view_as", "reshape_as", "_unsafe_view",
    "numpy_T", "mT", "flip", "roll", "repeat_interleave", "pixel_unshuffle",
})
"""The same elements in other places."""
CUTS: Final = frozenset({
    "select", "slice", "narrow", "split", "split_with_sizes", "chunk", "unbind",
})
"""Some of the elements, by position along `dim`."""
SAME: Final = frozenset({
    "to", "_to_copy", "contiguous", "clone", "detach", "alias", "lift_fresh", "lift_fresh_copy",
    "dropout", "feature_dropout", "type_as", "float", "double",
})
"""All elements in their places; dropout, because a network is read in evaluation mode."""
CREATES: Final = frozenset({
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full",
})
# fmt: on
POOLS: Final[Mapping[str, int]] = {
    f"{kind}{dims}d{suffix}": dims
    for dims in (1, 2, 3)
    for kind, suffix in (
        ("max_pool", ""),
        ("max_pool", "_with_indices"),
        ("avg_pool", ""),
        ("adaptive_avg_pool", ""),
        ("adaptive_max_pool", ""),
        ("upsample_nearest", ""),
        ("_upsample_nearest_exact", ""),
    )
} | {
    "upsample_linear1d": 1,
    "upsample_bilinear2d": 2,
    "_upsample_bilinear2d_aa": 2,
    "upsample_bicubic2d": 2,
    "_upsample_bicubic2d_aa": 2,
    "upsample_trilinear3d": 3,
}
"""By operator, how many of the last axes are places."""
REDUCTIONS: Final = frozenset({"mean", "sum", "amax", "amin"})

# fmt: off
ELEMENTWISE: Final = frozenset({
    "hardswish", "log_sigmoid", "where", "square", "masked_fill",
    "__and__", "__or__", "__xor__", "__lshift__", "__rshift__",
})
"""Elementwise, but torch doesn't tag them so."""
# fmt: on


def is_elementwise(operator: torch._ops.OpOverload) -> bool:
    """Whether each element of the result depends on one element of each tensor, and on no luck."""
    tags = operator.tags
    if torch.Tag.nondeterministic_seeded in tags:
        return False
    return torch.Tag.pointwise in tags or operator._overloadpacket.__name__ in ELEMENTWISE


def created(call: Call) -> list[AbstractValue]:
    """Constants that the forward makes itself."""
    constants = [made(leaf) for leaf in tensors_in(call.run(lambda value: value.known))]
    if call.name.endswith("_like"):  # they are sized by what they are like
        channels = call.tensors[0].channels
        return [AbstractValue(channels, constant.known) for constant in constants]
    return constants


def same(call: Call) -> list[AbstractValue]:
    """All elements in their places, maybe as another type."""
    value = call.tensors[0]
    if call.dtype.is_floating_point:
        kept = AbstractValue(value.channels, value.known, value.parameter, source=value.source)
        return [kept]
    whole = value.known.nan_to_num(posinf=0.0, neginf=0.0).to(call.dtype).double()
    return [AbstractValue(value.channels, whole.where(value.known.isfinite(), NAN))]


def moved(call: Call) -> list[AbstractValue] | None:
    """Elements in other places: views, permutations, concatenations."""
    if call.operator._overloadname == "dtype":
        return None
    results = paired(call.run(lambda v: v.channels), call.run(lambda v: v.known))
    names = {value.parameter for value in call.tensors} - {""}
    if len(call.tensors) > 1:
        call.findings.elsewhere.update(names)
    elif names:
        moves = tensors_in(call.run(sources))
        return [
            replace(result, parameter=call.tensors[0].parameter, source=move)
            for result, move in zip(results, moves, strict=True)
        ]
    return results


def pooled(call: Call) -> list[AbstractValue]:
    """Pooling over the last dimensions."""
    return gathered(call, [-1 - place for place in range(POOLS[call.name])])


def reduced(call: Call) -> list[AbstractValue]:
    """Sums and the like over dimensions."""
    value = call.tensors[0]
    dims = reduced_dims(call.given, value.channels.dim())
    varying = [dim for dim in dims if varies(value.channels, dim)]
    if call.name in ("mean", "sum") and varying and len(dims) == 1 and call.dtype.is_floating_point:
        return _added_up(call, value, varying[0])
    return gathered(call, dims)


def _added_up(call: Call, value: AbstractValue, dim: int) -> list[AbstractValue]:
    """Add units up: all that change are needed, and of constants their sum is."""
    findings, seen = call.findings, columns(value, dim)
    if seen.mixed:
        findings.hold(value.channels, "units are pooled with each other")
    # What comes out has no units: it is needed, as all that stays whatever happens.
    channels = torch.cat([torch.tensor([PINNED]), seen.channels])
    patterns = torch.cat([torch.zeros(1), seen.constants]).unsqueeze(0)
    called = NormCall(f"{call.name} {len(findings.norms)}", nn.Identity(), {}, None, training=False)
    findings.norms.append(NormUse(called, channels, patterns))
    return [AbstractValue(torch.full(call.shapes[0], PINNED), call.run(lambda v: v.known))]


def padded(call: Call) -> list[AbstractValue]:
    """Padding of any kind."""
    return gathered(call, padded_dims(call.given["pad"]))


def gathered(call: Call, dims: Sequence[int]) -> list[AbstractValue]:
    """Places gathered or surrounded within each unit: pooling, padding, means over places."""
    channels, shape = call.tensors[0].channels, call.shapes[0]
    if any(varies(channels, dim) for dim in dims):
        call.findings.hold(channels, "units are pooled with each other")
        return [unknown(shape) for shape in call.shapes]
    for dim in dims:
        channels = channels.narrow(dim, 0, 1)
    if len(shape) < channels.dim():  # a reduction that drops its dimensions
        channels = channels.squeeze([dim % channels.dim() for dim in dims])
    channels = channels.expand(shape).contiguous()
    first, *places = tensors_in(call.run(lambda v: v.known))
    return [AbstractValue(channels, known) for known in (first, *(p * NAN for p in places))]


def elementwise(call: Call) -> list[AbstractValue] | None:
    """Activations, sums, products. Units that meet go together, or not at all."""
    if len(call.shapes) != 1:
        return None
    findings, shape, name = call.findings, call.shapes[0], call.name
    by_unit = {id(value): _by_unit(call, value) for value in call.tensors}
    values = list(by_unit.values())
    meeting = [value for value in values if not _is_common(findings, value, values, shape, name)]
    channels = joined(findings, meeting, shape, name)

    def run(part: Callable[[AbstractValue], Tensor]) -> Any:
        return call.run(lambda value: part(by_unit[id(value)]))

    return [AbstractValue(channels, _constants(values, run, shape, is_product=name == "mul"))]


def leaking(call: Call) -> list[AbstractValue] | None:
    """Read ``prelu``: below zero each unit has a slope of its own, or all have one."""
    value, slope = call.tensors
    shape, many = [1] * value.channels.dim(), slope.channels.numel()
    shape[min(1, len(shape) - 1)] = many
    known = slope.known
    if many == 1 and slope.parameter:
        known = call.findings.parameters[slope.parameter].double()
    laid = replace(
        slope,
        channels=slope.channels.reshape(shape),
        known=known.reshape(shape),
        source=sources(slope).reshape(shape),
    )

    def run(part: Callable[[AbstractValue], Tensor]) -> Tensor:
        x = part(value)
        return x.where(x >= 0, part(laid) * x)

    return elementwise(replace(call, given={"self": value, "weight": laid}, run=run))


def _axis_of(value: AbstractValue, shape: torch.Size, dims: Sequence[int]) -> int | None:
    axes = axes_of(value, shape)
    return axes[dims[0]] if axes is not None and len(dims) == 1 else None


def _by_unit(call: Call, value: AbstractValue) -> AbstractValue:
    """Return a parameter with a value for each unit as such: it goes with them."""
    findings, name, shape = call.findings, value.parameter, call.shapes[0]
    if not name:
        return value
    others = [o.channels.broadcast_to(shape) for o in call.tensors if not o.parameter]
    offset = len(shape) - value.channels.dim()
    dims = [
        dim
        for dim, size in enumerate(value.channels.shape)
        if size > 1 and any(varies(other, dim + offset) for other in others)
    ]
    weight = findings.parameters[name]
    axis = _axis_of(value, weight.shape, dims)
    if axis is None or findings.carried.get(name, (axis,))[0] != axis:
        findings.elsewhere.add(name)
        return value
    units = (
        findings.carried[name][1]
        if name in findings.carried
        else findings.channels.new(weight.shape[axis])
    )
    findings.carry(name, axis, units)
    known = weight.flatten()[sources(value)]
    if findings.live and call.name in ("mul", "div"):
        known = known.where(known != 0, NAN)  # it may learn again
    return AbstractValue(along(units, value.channels.shape, dims[0]), known)


def joined(
    findings: Findings, values: Sequence[AbstractValue], shape: torch.Size, name: str
) -> Tensor:
    """Return the channels of what is made of values element by element: those that meet are tied.

    Args:
        findings: of the forward.
        values: which broadcast to ``shape``.
        shape: of the result.
        name: of the operator, for messages.
    """
    channels = torch.full(shape, FREE)
    for value in values:
        other = value.channels.broadcast_to(shape)
        _tie(findings, channels, other, name)
        channels = torch.where(channels == FREE, other, channels)
    return channels if values else torch.full(shape, PINNED)


def _is_common(
    findings: Findings,
    value: AbstractValue,
    values: Sequence[AbstractValue],
    shape: torch.Size,
    name: str,
) -> bool:
    """Whether each of its elements meets several units of another tensor; then it is held."""
    offset = len(shape) - value.channels.dim()
    spread = [
        dim
        for dim in range(len(shape))
        if shape[dim] > 1 and (dim < offset or value.channels.shape[dim - offset] == 1)
    ]
    others = [other.channels.broadcast_to(shape) for other in values if other is not value]
    common = any(varies(other, dim) for other in others for dim in spread)
    if common:
        findings.hold(value.channels, f"`{name}` meets each of them with several units")
    return common


def _tie(findings: Findings, ours: Tensor, theirs: Tensor, name: str) -> None:
    for one, other in ((ours, theirs), (theirs, ours)):
        findings.hold(one[other == PINNED], f"`{name}` joins them with what can't shrink")
    findings.channels.tie(ours, theirs)


def _constants(
    values: Sequence[AbstractValue], run: Run, shape: torch.Size, *, is_product: bool
) -> Tensor:
    varying = torch.zeros(shape, dtype=torch.bool)
    zero = torch.zeros(shape, dtype=torch.bool)
    for value in values:
        varying |= value.known.isnan().broadcast_to(shape)
        zero |= (value.known == 0).broadcast_to(shape)
    # Comparisons say False of NaN where they should say nothing.
    constants = torch.where(varying, torch.nan, run(lambda v: v.runnable).double())
    return torch.where(zero, 0.0, constants) if is_product else constants


def paired(channels: Any, known: Any) -> list[AbstractValue]:
    """Return values from their channels and constants, one or several of each."""
    if isinstance(channels, Tensor):
        channels, known = [channels], [known]
    return [
        AbstractValue(c.contiguous(), k.contiguous()) for c, k in zip(channels, known, strict=True)
    ]


def reduced_dims(given: Arguments, dims: int) -> list[int]:
    """Return which dimensions a reduction goes over; all, if it names none."""
    dim = given.get("dim")
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(dims))
    return list(dim) if isinstance(dim, (list, tuple)) else [dim]


def padded_dims(pad: Sequence[int]) -> list[int]:
    """Return the dimensions that are really padded, from ``aten.pad``'s list of both ends.

    >>> padded_dims([1, 1, 0, 0])
    [-1]
    """
    pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
    return [-1 - i for i, pair in enumerate(pairs) if any(pair)]
