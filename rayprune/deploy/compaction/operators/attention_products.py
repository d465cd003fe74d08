"""What attention written by hand does to units: products of activations, and softmax.

In ``q @ k.T`` units of one meet those of the other and are gone: their pairs live if the product
does. The product has a channel of its own for each batch of matrices (each head), so that it lives
only if something reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.deploy.compaction.abstract_values import NAN, AbstractValue, varies
from rayprune.deploy.compaction.channels import PINNED
from rayprune.deploy.compaction.findings import Findings, Reliance
from rayprune.deploy.compaction.operators.call import Call

_JOINED = "a product joins them with what can't shrink"


@dataclass(frozen=True, slots=True)
class _Factor:
    """A batch of matrices in a product, their last axis the one that is summed over."""

    channels: Tensor
    """Shape ``(batch, rows, summed)``."""
    known: Tensor

    @property
    def by_row(self) -> bool:
        """Whether its rows are units."""
        return varies(self.channels, 1)

    @property
    def by_sum(self) -> bool:
        """Whether units are summed over."""
        return varies(self.channels, 2)

    def still(self) -> Tensor:
        """Return what is zero in all rows; bool, ``(batch, summed)``."""
        return (self.known == 0).all(1)


def normalised(call: Call) -> list[AbstractValue] | None:
    """A softmax over places, each unit for itself; over units it compares them with each other."""
    (value,) = call.tensors
    if varies(value.channels, call.given["dim"]):
        return None
    return [AbstractValue(value.channels, call.run(lambda v: v.known))]


def multiplied(call: Call) -> list[AbstractValue] | None:
    """A product of two matrices, or of batches of them, neither of them a parameter."""
    first, second = call.tensors
    if first.channels.dim() < 2 or second.channels.dim() < 2:
        return None
    shape = call.shapes[0]
    product = multiply(call.findings, first, second, shape[:-2])
    if product is None:
        return None
    return [AbstractValue(product.channels.reshape(shape), product.known.reshape(shape))]


def multiply(
    findings: Findings, first: AbstractValue, second: AbstractValue, batch: torch.Size | None = None
) -> AbstractValue | None:
    """Return a product of batches of matrices, shape ``(batch, rows, columns)``.

    Args:
        findings: of the forward.
        first: matrices, the last axis summed over.
        second: matrices, the last axis but one summed over.
        batch: what both are spread to; None where their first axis is one of batches already.

    Returns:
        None where units of both are left beside each other.
    """
    batch = first.channels.shape[:-2] if batch is None else batch
    left = _factor(first, batch, transposed=False)
    right = _factor(second, batch, transposed=True)
    channels = _product(findings, left, right)
    if channels is None:
        return None
    meets = (left.known != 0).double() @ (right.known != 0).double().mT
    known = torch.where(meets == 0, 0.0, torch.nan).double()
    return AbstractValue(channels.expand(known.shape), known)


def attended(call: Call) -> list[AbstractValue] | None:
    """``scaled_dot_product_attention``."""
    given, findings = call.given, call.findings
    query, key, value, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    lengths = {len(x.channels.shape) for x in (query, key, value)}
    if given["enable_gqa"] or len(lengths) > 1:
        return None
    batch = call.shapes[0][:-2]
    queries, keys = (_factor(x, batch, transposed=False) for x in (query, key))
    values = _factor(value, batch, transposed=True)
    if queries.by_row or keys.by_row or values.by_sum:
        return None
    if mask is not None:
        _meet_mask(findings, mask, value, batch)
    read, pairs = values.channels[:, :, 0], _tied(findings, queries, keys)
    constant = (keys.known == keys.known[:, :1]).all(1)
    _rely(findings, read, pairs, queries.still() | constant)
    same = (values.known == values.known[:, :, :1]).all(2)
    known = values.known[:, :, 0].where(same, NAN)
    if mask is not None or (findings.live and given["dropout_p"]):
        known = known.where(known == 0, NAN)  # its weights may not sum to one
    shape = call.shapes[0]
    channels, known = (
        x[:, None].expand(-1, shape[-2], -1).reshape(shape).contiguous() for x in (read, known)
    )
    return [AbstractValue(channels, known)]


def _factor(value: AbstractValue, batch: torch.Size, *, transposed: bool) -> _Factor:
    parts = []
    for part in (value.channels, value.known):
        matrices = part.transpose(-2, -1) if transposed else part
        whole = matrices.expand(*batch, *matrices.shape[-2:])
        parts.append(whole.reshape(-1, *matrices.shape[-2:]))
    return _Factor(*parts)


def _product(findings: Findings, left: _Factor, right: _Factor) -> Tensor | None:
    """Return the channels of a product's elements, shape ``(batch, rows or 1, columns or 1)``."""
    if left.by_row and right.by_row:
        return None
    if not left.by_row and not right.by_row:
        return _scores(findings, left, right)
    rows, other = (left, right) if left.by_row else (right, left)
    if rows.by_sum or other.by_sum:
        return None
    units, mixed_by = rows.channels[:, :, 0], other.channels[:, 0, :1]
    _rely(findings, units, mixed_by, torch.zeros_like(mixed_by, dtype=torch.bool))
    return units[:, :, None] if left.by_row else units[:, None, :]


def _scores(findings: Findings, left: _Factor, right: _Factor) -> Tensor:
    pairs = _tied(findings, left, right)
    of_units = (pairs > PINNED).any(1)
    rows, places = pairs.unique(dim=0, return_inverse=True)
    channels = findings.channels.new(len(rows))[places]
    channels = torch.where(of_units, channels, PINNED)
    _rely(findings, channels[:, None], pairs, left.still() | right.still())
    return channels[:, None, None]


def _tied(findings: Findings, left: _Factor, right: _Factor) -> Tensor:
    """Tie units that are multiplied with each other; return their channels, ``(batch, summed)``."""
    ours, theirs = left.channels[:, 0], right.channels[:, 0]
    for one, other in ((ours, theirs), (theirs, ours)):
        findings.hold(one[other == PINNED], _JOINED)
    findings.channels.tie(ours, theirs)
    return torch.maximum(ours, theirs)


def _rely(findings: Findings, readers: Tensor, read: Tensor, spared: Tensor) -> None:
    """Let units live if what is made of them does.

    Args:
        findings: of the forward.
        readers: ``(batch, any)``.
        read: ``(batch, units)``.
        spared: those of them that add nothing; bool, of that shape. One of all always stays.
    """
    spared = spared & ~(spared.all(1, keepdim=True) & (torch.arange(read.shape[1]) == 0))
    told: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for some, units, gone in zip(readers, read, spared, strict=True):
        key = tuple(some.tolist()), tuple(units[~gone].tolist())
        if key not in told:
            told.add(key)
            findings.reliances.append(Reliance(some, units[~gone]))


def _meet_mask(
    findings: Findings, mask: AbstractValue, value: AbstractValue, batch: torch.Size
) -> None:
    """Hold what a mask is made of; and heads, if it has one for each."""
    findings.hold(mask.channels, "a mask is made of them")
    offset = len(batch) + 2 - mask.channels.dim()
    for dim in range(mask.channels.dim() - 2):
        if mask.channels.shape[dim] > 1 and varies(value.channels, dim + offset):
            findings.hold(value.channels, "a mask has one part for each head")
