"""Operators that take elements by index, or move them between channels and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rayprune.deploy.compaction.abstract_values import NAN, AbstractValue, unknown, varies
from rayprune.deploy.compaction.operators.call import Call
from rayprune.deploy.compaction.operators.tensors import joined, moved, paired


def indexed(call: Call) -> list[AbstractValue] | None:
    """``x[indices]``: by constants anything; by what inputs say only along axes without units."""
    given = call.given["indices"]
    dims = [dim for dim, index in enumerate(given) if index is not None]
    return _taken(call, [index for index in given if index is not None], dims)


def index_selected(call: Call) -> list[AbstractValue] | None:
    """``x.index_select(dim, index)``."""
    return _taken(call, [call.given["index"]], [call.given["dim"]])


def windows(call: Call) -> list[AbstractValue] | None:
    """``x.unfold(dim, size, step)``, along an axis without units."""
    value = call.tensors[0]
    if varies(value.channels, call.given["dimension"]):
        call.findings.hold(value.channels, "windows of several of them are taken")
    return moved(call)


def pixels_shuffled(call: Call) -> list[AbstractValue]:
    """``pixel_shuffle``: the channels that make one go together."""
    value, factor = call.tensors[0], call.given["upscale_factor"]
    blocks = value.channels.unflatten(-3, (-1, factor * factor))
    first = blocks.narrow(-3, 0, 1)
    call.findings.channels.tie(blocks, first)
    one = AbstractValue(first.expand_as(blocks).flatten(-4, -3), value.known)
    return paired(call.run(lambda _: one.channels), call.run(lambda _: one.known))


def gated(call: Call) -> list[AbstractValue]:
    """``glu``: the first half times the sigmoid of the second; their units go together."""
    value, dim = call.tensors[0], call.given["dim"]
    first, second = (
        AbstractValue(channels, known)
        for channels, known in zip(
            value.channels.chunk(2, dim), value.known.chunk(2, dim), strict=True
        )
    )
    known = torch.where(first.known == 0, 0.0, first.known * torch.sigmoid(second.known))
    return [AbstractValue(joined(call.findings, [first, second], call.shapes[0], "glu"), known)]


def _taken(
    call: Call, indices: Sequence[AbstractValue], dims: Sequence[int]
) -> list[AbstractValue] | None:
    value = call.tensors[0]
    if all(not index.known.isnan().any() for index in indices):

        def constant(part: Tensor) -> Any:
            return call.run(lambda v: part if v is value else v.runnable)

        return paired(constant(value.channels), constant(value.known))
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        return None
    if any(varies(value.channels, dim) for dim in dims):
        call.findings.hold(value.channels, "they are taken by position, which inputs tell")
        return [unknown(call.shapes[0])]
    channels = call.run(
        lambda v: v.channels if v is value else torch.zeros(v.known.shape, dtype=torch.long)
    )
    return [AbstractValue(channels, torch.full(call.shapes[0], NAN, dtype=torch.float64))]
