"""How norm modules read units and pass them on.

A BatchNorm or InstanceNorm gives each channel its own, so that units pass as through an activation.
A GroupNorm's groups pass whole. A LayerNorm or RMSNorm needs all of its inputs: one that changes is
read wherever any output of the norm is, but one that is constant can go, and the norm keeps what it
adds (`rayprune.pruning.layers.partial_norm`). What a constant becomes changes, unless its weight is
zero, so that only units go which nothing reads behind the norm.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from rayprune.deploy.compaction.abstract_values import (
    EVEN,
    NAN,
    AbstractValue,
    along,
    columns,
    unknown,
    varies,
)
from rayprune.deploy.compaction.findings import Arguments, Findings, NormUse, Shapes, named
from rayprune.deploy.compaction.norm_calls import NormCall
from rayprune.errors import InputError

_MEANS = (nn.LayerNorm, nn.RMSNorm)
_SAME: Final = 1e-12
"""As near as two ways to one constant come: torch scales first, and then takes the mean away."""


def read_norm(findings: Findings, call: NormCall, value: AbstractValue) -> AbstractValue:
    """Read one call of a norm module."""
    known = _constants(findings, call, value)
    if isinstance(call.module, _MEANS):
        return _read_mean(findings, call, value, known)
    seen = columns(value, 1)
    channels = findings.columns_of(value, seen, named(call.layer))
    if isinstance(call.module, nn.GroupNorm):
        _tie_groups(findings, call, channels, seen.constants)
    _carry(findings, call, torch.Size([channels.numel()]), 0, channels)
    return AbstractValue(along(channels, value.channels.shape, 1), known)


def _tie_groups(findings: Findings, call: NormCall, channels: Tensor, constants: Tensor) -> None:
    count = call.module.num_groups
    groups, still = channels.unflatten(0, (count, -1)), ~constants.isnan().unflatten(0, (count, -1))
    findings.channels.tie(groups, groups[:, :1])
    some = still & ~still.all(1, keepdim=True)
    findings.note(
        groups[some], f"{named(call.layer)} takes the mean of groups, not all of them dead"
    )


def _carry(
    findings: Findings, call: NormCall, shape: torch.Size, axis: int, channels: Tensor
) -> None:
    """Let weights, and running statistics, go with their units."""
    if call.given:
        findings.normalised[call.layer] = (shape, axis, channels)
    shaped = [name for name in call.names.values() if findings.parameters[name].shape == shape]
    for name in shaped:
        findings.carry(name, axis, channels)
    if findings.live and not shaped and (len(shape) > 1 or isinstance(call.module, nn.GroupNorm)):
        findings.hold(channels, f"{named(call.layer)} has no weights that tell its size")


def read_layer_norm(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read a call of ``layer_norm`` as a function, of weights that are parameters."""
    size, weight, bias = given["normalized_shape"], given["weight"], given["bias"]
    if weight is None and bias is not None:
        raise InputError("it has a bias without a weight")
    norm = nn.LayerNorm(
        size, given["eps"], elementwise_affine=weight is not None, bias=bias is not None
    )
    return [_read_function(findings, norm, given)]


def read_rms_norm(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read a call of ``rms_norm`` as a function, of a weight that is a parameter."""
    weighted = given["weight"] is not None
    norm = nn.RMSNorm(given["normalized_shape"], given["eps"], elementwise_affine=weighted)
    return [_read_function(findings, norm, given)]


def _read_function(findings: Findings, norm: nn.Module, given: Arguments) -> AbstractValue:
    names = {key: given[key].parameter for key, _ in norm.named_parameters()}
    name = f"{type(norm).__name__} {len(findings.norms)}, a function,"
    return read_norm(findings, NormCall(name, norm, names, None, training=False), given["input"])


def _read_mean(
    findings: Findings, call: NormCall, value: AbstractValue, known: Tensor
) -> AbstractValue:
    dims = len(call.module.normalized_shape)  # type: ignore[arg-type]
    shape, over = value.channels.shape, value.channels.shape[-dims:]
    axes = [axis for axis in range(-dims, 0) if varies(value.channels, axis)]
    if not axes:
        # It is over places within each unit.
        return AbstractValue(value.channels, known)
    if len(axes) > 1 or columns(value, axes[0]).mixed:
        findings.hold(
            value.channels, f"{named(call.layer)} reads them in another order than by unit"
        )
        return unknown(shape)
    (axis,) = axes
    units = columns(value, axis).channels
    places = math.prod(over) // units.numel()
    patterns = value.known.movedim(axis, -1).reshape(-1, places, units.numel())
    even = ((patterns - patterns[0]).abs() <= EVEN * patterns[0].abs()).all(0)
    findings.norms.append(NormUse(call, units, patterns[0].where(even, NAN)))
    _carry(findings, call, over, axis + dims, units)
    return AbstractValue(along(units, shape, axis), known)


def _constants(findings: Findings, call: NormCall, value: AbstractValue) -> Tensor:
    """Return what the module makes of constants; of weights that are zero its biases."""
    norm = copy.deepcopy(call.module).double().train(call.training)
    held = {key: findings.parameters[name] for key, name in call.names.items()}
    known = _run(norm, held, value.known)
    if isinstance(norm, nn.RMSNorm) and norm.eps is None:
        # Each precision has its own then.
        norm.eps = torch.finfo(torch.float32).eps
        known = _agreed(known, _run(norm, held, value.known))
    if findings.live and "running_mean" in held:
        # By the batch while it learns; its running mean comes to a constant after some updates.
        known = _agreed(known, _run(norm.train(not call.training), held, value.known))
    if "weight" not in held:
        return known
    weight = _laid_out(norm, held["weight"], known)
    bias = _laid_out(norm, held["bias"], known) if "bias" in held else torch.zeros_like(weight)
    return torch.where(weight == 0, bias, known)


def _run(norm: nn.Module, held: Mapping[str, Tensor], given: Tensor) -> Tensor:
    tensors = {key: tensor.clone() for key, tensor in held.items() if tensor.dim()}
    result: Tensor = torch.func.functional_call(norm, tensors, (given,))
    return result


def _agreed(one: Tensor, other: Tensor) -> Tensor:
    return one.where((one - other).abs() <= _SAME, NAN)


def _laid_out(norm: nn.Module, weight: Tensor, value: Tensor) -> Tensor:
    """Return a weight as it broadcasts over what is normalised."""
    axis = value.dim() - weight.dim() if isinstance(norm, _MEANS) else 1
    return weight.reshape([*weight.shape, *[1] * (value.dim() - axis - weight.dim())])
