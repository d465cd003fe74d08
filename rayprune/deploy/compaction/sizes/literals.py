"""Which sizes and positions of an operator's call no longer fit once units have gone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import torch
from torch import Tensor, nn

from rayprune.deploy.compaction.abstract_values import AbstractValue, columns
from rayprune.deploy.compaction.channels import FREE, Channels
from rayprune.deploy.compaction.findings import Arguments
from rayprune.deploy.compaction.operators.tensors import reduced_dims
from rayprune.pruning.layers.partial_norm import merged, partial_layer_norm, partial_rms_norm


@dataclass(frozen=True, slots=True)
class Edit:
    """One argument that becomes another."""

    argument: str
    """By the operator's schema."""
    place: int | None
    """In a list of sizes, tensors; None for the whole argument."""
    value: Any
    """A number, a list of numbers, a constant tensor, or :class:`Picked`."""


@dataclass(frozen=True, slots=True)
class Picked:
    """The same tensor, but these positions of it only."""

    dim: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Instead:
    """Another operator in its place."""

    operator: torch._ops.OpOverload
    given: Mapping[str, Any]
    """Its arguments, but for tensors: those are the old one's of the same name."""


@dataclass(frozen=True, slots=True)
class Called:
    """A function in its place."""

    function: Callable[..., Tensor]
    tensors: Sequence[str]
    """The old one's arguments that it is given, by their names."""
    given: Mapping[str, Any]
    """Its other arguments."""


@dataclass(frozen=True, slots=True)
class After:
    """What is done to its result."""

    scale: float
    shift: float


@dataclass(frozen=True, slots=True)
class Fit:
    """One call of an operator, and what is kept of its tensors."""

    name: str
    given: Arguments
    """By the names of its schema."""
    results: Sequence[AbstractValue]
    channels: Channels
    kept: Tensor

    def along(self, value: AbstractValue, dim: int) -> Tensor:
        """Return which positions of a tensor are kept along an axis; bool, shape ``(length,)``."""
        mask = self.kept[self.channels.sets(value.channels)]
        return mask.movedim(dim, 0).flatten(1).any(1) if mask.dim() > 1 else mask

    def ranks(self, value: AbstractValue, dim: int) -> list[int]:
        """Return how many positions are kept before each, and after the last one of all."""
        return [0, *accumulate(int(kept) for kept in self.along(value, dim))]


class UnfitError(Exception):
    """No arguments would do the same."""


Change = Edit | Instead | Called | After
Literals = Callable[[Fit], Sequence[Change]]
"""Returns what of a call must change; nothing if it fits as it is.

Raises:
    UnfitError: nothing does.
"""


def sizes_of(argument: str, first: str | None = None) -> Literals:
    """Return a rule for an operator that is told its result's sizes.

    Args:
        argument: that has the sizes.
        first: the argument that says which axis is the first one told of; None if all are.
    """

    def literals(fit: Fit) -> list[Change]:
        (result,), told = fit.results, fit.given[argument]
        shape = result.channels.shape
        start = fit.given[first] % fit.given["self"].channels.dim() if first else 0
        changes: list[Change] = []
        for place, size in enumerate(told):
            count = int(fit.along(result, start + place).sum())
            if count != shape[start + place] and size != -1:
                changes.append(Edit(argument, place, count))
        return changes

    return literals


def sliced(fit: Fit) -> list[Change]:
    """``x[start:end:step]``."""
    value, given = fit.given["self"], fit.given
    dim, old = given["dim"], slice(given["start"], given["end"], given["step"])
    ranks, kept = fit.ranks(value, dim), fit.along(value, dim)
    wanted = [ranks[p] for p in range(len(kept))[old] if kept[p]]
    if wanted == list(range(ranks[-1])[old]):
        return []
    if given["step"] == 1:
        return [Edit("start", None, wanted[0]), Edit("end", None, wanted[0] + len(wanted))]
    return [_pick(dim, wanted)]


def selected(fit: Fit) -> list[Change]:
    """``x[index]`` along an axis."""
    ranks = fit.ranks(fit.given["self"], fit.given["dim"])
    index = fit.given["index"]
    place = index % (len(ranks) - 1)
    new = ranks[place]
    fits = new == place if index >= 0 else ranks[-1] - new == -index
    return [] if fits else [Edit("index", None, new)]


def narrowed(fit: Fit) -> list[Change]:
    """``x.narrow(dim, start, length)``."""
    ranks, start = fit.ranks(fit.given["self"], fit.given["dim"]), fit.given["start"]
    new, count = ranks[start], ranks[start + fit.given["length"]] - ranks[start]
    changes = (("start", start, new), ("length", fit.given["length"], count))
    return [Edit(name, None, value) for name, old, value in changes if old != value]


def split(fit: Fit) -> list[Change]:
    """``x.split(size)``, ``x.split(sizes)`` and ``x.chunk(count)``."""
    value, dim = fit.given["self"], fit.given["dim"]
    counts = [int(fit.along(result, dim).sum()) for result in fit.results]
    total = int(fit.along(value, dim).sum())
    if "chunks" in fit.given:
        told: Any = -(-total // fit.given["chunks"])
    else:
        told = fit.given.get("split_sizes", fit.given.get("split_size"))
    if counts == (_parts(total, told) if isinstance(told, int) else list(told)):
        return []
    return [Instead(torch.ops.aten.split_with_sizes.default, {"split_sizes": counts, "dim": dim})]


def indexed(fit: Fit) -> list[Change]:
    """``x[indices]`` by constant whole numbers."""
    value, indices = fit.given["self"], fit.given["indices"]
    dims = [dim for dim in range(value.channels.dim()) if not fit.along(value, dim).all()]
    given = {dim: index for dim, index in enumerate(indices) if index is not None}
    changes: list[Change] = []
    for dim in (dim for dim in dims if dim in given):
        old = given[dim]
        if not _is_list(old) or len(given) > 1:
            raise UnfitError
        new = _new_positions(fit, value, dim, old.known.long())
        if new is not None:
            changes.append(Edit("indices", dim, torch.tensor(new)))
    return changes


def index_selected(fit: Fit) -> list[Change]:
    """``x.index_select(dim, index)`` by a constant."""
    value, dim, index = fit.given["self"], fit.given["dim"], fit.given["index"]
    if fit.along(value, dim).all():
        return []
    if not _is_list(index):
        raise UnfitError
    new = _new_positions(fit, value, dim, index.known.long())
    return [] if new is None else [Edit("index", None, torch.tensor(new))]


def rolled(fit: Fit) -> list[Change]:
    """``x.roll(shifts, dims)``."""
    value, dims, shifts = fit.given["self"], fit.given["dims"], fit.given["shifts"]
    shrunk = [dim for dim in range(value.channels.dim()) if not fit.along(value, dim).all()]
    if not shrunk:
        return []
    (dim, *more) = shrunk
    moved = [d % value.channels.dim() for d in dims]
    if more or not moved:
        raise UnfitError
    if dim not in moved:
        return []
    size = value.channels.shape[dim]
    order = torch.arange(size).roll(shifts[moved.index(dim)])
    ranks, kept = fit.ranks(value, dim), fit.along(value, dim)
    wanted = [ranks[p] for p in order.tolist() if kept[p]]
    if wanted == torch.arange(ranks[-1]).roll(shifts[moved.index(dim)]).tolist():
        return []
    if len(moved) > 1:
        raise UnfitError
    return [_pick(dim, wanted)]


def grouped(fit: Fit) -> list[Change]:
    """A convolution in groups that go whole."""
    groups, (result,) = fit.given["groups"], fit.results
    if groups == 1:
        return []
    axis = result.channels.dim() - fit.given["weight"].channels.dim() + 1
    kept = fit.along(result, axis).reshape(groups, -1).any(1)
    return [] if kept.all() else [Edit("groups", None, int(kept.sum()))]


def attention_scaled(fit: Fit) -> list[Change]:
    """``scaled_dot_product_attention``, which divides by the root of a head's width."""
    query = fit.given["query"]
    size = query.channels.shape[-1]
    if fit.given["scale"] is not None or fit.along(query, -1).all():
        return []
    return [Edit("scale", None, 1 / math.sqrt(size))]


def normalised(fit: Fit) -> list[Change]:
    """``layer_norm`` and ``rms_norm``, which keep what constants add."""
    value, shape = fit.given["input"], torch.Size(fit.given["normalized_shape"])
    cut = [axis for axis in range(-len(shape), 0) if not fit.along(value, axis).all()]
    if not cut:
        return []
    (axis,) = cut
    gone = ~fit.along(value, axis)
    # Of a batch the first: those that go are the same in all of it.
    patterns = value.known.movedim(axis, -1)[..., gone].flatten(0, -len(shape) - 1)[0]
    centred = fit.name == "layer_norm"
    constants = merged((nn.LayerNorm if centred else nn.RMSNorm)(shape), patterns.nan_to_num())
    told = {"constants": constants, "over": len(shape), "eps": fit.given["eps"]}
    if centred:
        return [Called(partial_layer_norm, ("input", "weight", "bias"), told)]
    return [Called(partial_rms_norm, ("input", "weight"), told)]


def gathered(fit: Fit) -> list[Change]:
    """``mean`` and ``sum`` over units, of which constants have gone."""
    value = fit.given["self"]
    dims = reduced_dims(fit.given, value.channels.dim())
    cut = [dim for dim in dims if not fit.along(value, dim).all()]
    if not cut:
        return []
    (dim,) = cut
    gone = ~fit.along(value, dim)
    total = float(columns(value, dim).constants[gone].nan_to_num().sum())
    if fit.name == "sum":
        return [After(1.0, total)] if total else []
    return [After(float((~gone).double().mean()), total / gone.numel())]


def constants_cut(fit: Fit) -> list[Change]:
    """An elementwise operator: constants of a written size lose what the others lose."""
    result = fit.results[0]
    shape, changes = result.channels.shape, list[Change]()
    for name, value in fit.given.items():
        if not isinstance(value, AbstractValue) or not bool((value.channels == FREE).all()):
            continue
        offset = len(shape) - value.channels.dim()
        for dim, size in enumerate(value.channels.shape):
            kept = fit.along(result, dim + offset)
            if size > 1 and not kept.all():
                changes.append(Edit(name, None, Picked(dim, tuple(_places(kept)))))
    return changes


def _parts(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)] if size else []


def _pick(dim: int, positions: Sequence[int]) -> Instead:
    index = torch.tensor(positions)
    return Instead(torch.ops.aten.index_select.default, {"dim": dim, "index": index})


def _is_list(index: Any) -> bool:
    return isinstance(index, AbstractValue) and index.channels.dim() == 1 and not _is_mask(index)


def _is_mask(index: AbstractValue) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def _new_positions(fit: Fit, value: AbstractValue, dim: int, old: Tensor) -> list[int] | None:
    """Return the new positions of what stays; None if the old ones say the same."""
    ranks, kept = fit.ranks(value, dim), fit.along(value, dim)
    old = old % len(kept)
    new = [ranks[place] for place in old.tolist() if kept[place]]
    return None if new == old.tolist() else new


def _places(kept: Tensor) -> list[int]:
    return [int(place) for place in kept.nonzero().flatten()]


LITERALS: Final[Mapping[str, Literals]] = {
    "view": sizes_of("size"),
    "_unsafe_view": sizes_of("size"),
    "reshape": sizes_of("shape"),
    "expand": sizes_of("size"),
    "broadcast_to": sizes_of("size"),
    "unflatten": sizes_of("sizes", "dim"),
    "slice": sliced,
    "select": selected,
    "narrow": narrowed,
    "split": split,
    "split_with_sizes": split,
    "chunk": split,
    "index": indexed,
    "index_select": index_selected,
    "roll": rolled,
    "scaled_dot_product_attention": attention_scaled,
    "layer_norm": normalised,
    "rms_norm": normalised,
    "mean": gathered,
    "sum": gathered,
    "conv1d": grouped,
    "conv2d": grouped,
    "conv3d": grouped,
    "conv_transpose1d": grouped,
    "conv_transpose2d": grouped,
    "conv_transpose3d": grouped,
}
"""By operator; others fit at any size, or mix units that are held anyway."""
