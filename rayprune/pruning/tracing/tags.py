"""Which units of which layers each number of a forward carries, followed while it runs.

The rows of each layer's weight are tagged with their numbers, and every operator of torch hands the
tags on: elementwise ones and those that move numbers keep them, a product of matrices leaves those
that are the same along what is summed over. So no layer has to be called as a module, and nothing
is hooked. What an operator does to tags that isn't known here counts as keeping units apart: that
errs towards leaving units alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from rayprune.pruning.layers.masked import prunable_parameters

NONE: Final = -1
"""The tag of a number that carries no unit of a layer."""

# fmt: off
_MOVES: Final = frozenset({
    "cat", "stack", "index", "index_select", "gather", "repeat", "roll", "flip", "take_along_dim",
    "repeat_interleave", "constant_pad_nd", "tril", "triu", "masked_select",
})
"""Operators that are run on the tags of their first argument (views need nothing at all)."""
_SUMS: Final = frozenset({
    "sum", "nansum", "mean", "prod", "var", "std", "var_mean", "std_mean", "norm",
    "linalg_vector_norm", "logsumexp",
})
_PRODUCTS: Final[Mapping[str, tuple[int, int]]] = {
    "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "vdot": (0, 1),
    "addmm": (1, 2), "baddbmm": (1, 2), "addmv": (1, 2), "_addmm_activation": (1, 2),
}
"""Where the two factors stand; before them, what is added."""
_SOURCES: Final = ("src", "source", "values")
"""What operators that put numbers in the place of others call those."""
_LAYERS: Final = frozenset({
    "embedding", "_embedding_bag", "_trilinear", "mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn",
    "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
})
"""Whole layers in one operator: nothing passes but the units of their own weights."""
_CLEARS: Final = frozenset({
    "zero_", "fill_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_",
})
# fmt: on
_HIGHEST: Final = 2**62 - 1


@dataclass(frozen=True, slots=True)
class _Rows:
    """The tags of a weight: its rows' numbers, not written out, since weights are large."""

    start: int
    """Where the weight begins in its storage."""
    length: int
    """Numbers in a row."""
    count: int
    """Rows; those of an LSTM or GRU have one for each gate of a unit."""
    units: int

    def of(self, tensor: Tensor, ends: Mapping[int, int] | None = None) -> Tensor:
        """Return the row of each number of a tensor over the same storage.

        Args:
            tensor: a view of the weight, or of what lies beside it.
            ends: dimension -> the only index to look at, kept with length 1.
        """
        places = torch.tensor(tensor.storage_offset() - self.start)
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            end = (ends or {}).get(dim)
            steps = torch.arange(size) if end is None else torch.tensor([end])
            shape = [1] * tensor.dim()
            shape[dim] = -1
            places = places + (steps * stride).view(shape)
        rows = places.div(self.length, rounding_mode="floor")
        inside = (rows >= 0) & (rows < self.count)
        return torch.where(inside, rows % self.units, NONE)


@dataclass(slots=True)
class _Held:
    """What is known of one storage; each tensor over it sees its part by its own strides."""

    storage: Any
    """Kept, so that no other takes its place while tags refer to it."""
    itemsize: int
    weight: bool = False
    """Whether it holds parameters, or what was made of parameters alone."""
    rows: dict[str, _Rows] = field(default_factory=dict)
    """Of layers whose weights are here; each weight is one layer's."""
    units: dict[str, Tensor] = field(default_factory=dict)
    """Layer -> unit numbers or `NONE`; int64, one for each number in the storage."""

    @property
    def layers(self) -> set[str]:
        return {*self.rows, *self.units}

    def numbered(self, layer: str) -> Tensor:
        """Return a layer's units for the whole storage, which may have grown."""
        count, flat = self.storage.nbytes() // self.itemsize, self.units.get(layer)
        if flat is None or flat.numel() < count:
            grown = torch.full((count,), NONE)
            if flat is not None:
                grown[: flat.numel()] = flat
            self.units[layer] = flat = grown
        return flat


class UnitTags(TorchDispatchMode):
    """Follows units through all that runs within its context.

    Args:
        layers: maskable ones by name.
        weights: all parameters of what is going to run.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    >>> with UnitTags({"0": net[0]}, net.parameters()) as tags:
    ...     y = net(torch.zeros(1, 2)).flip(-1)
    >>> tags.units(y, "0").tolist()
    [[2, 1, 0]]
    """

    def __init__(self, layers: Mapping[str, nn.Module], weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held: dict[int, _Held] = {}
        self.reached: set[str] = set()
        """The layers whose weights were used."""
        self.read_on: set[str] = set()
        """The layers whose units a weight was multiplied with."""
        for weight in weights:
            self._hold(weight).weight = True
        for name, layer in layers.items():
            self._tag_rows(name, layer)

    def units(self, tensor: Tensor, layer: str) -> Tensor | None:
        """Return which unit of a layer each number carries, `NONE` for none; shaped like it.

        Returns:
            None where no number carries any.
        """
        held = self._held.get(_key(tensor))
        # Complex numbers seen as pairs of real ones, for one, are not followed.
        if held is None or held.itemsize != tensor.element_size():
            return None
        if layer in held.rows:
            return held.rows[layer].of(tensor)
        if layer not in held.units:
            return None
        place = tensor.size(), tensor.stride(), tensor.storage_offset()
        return held.units[layer].as_strided(*place)

    def carried(self, tensor: Tensor) -> set[str]:
        """Return the layers of which a tensor carries units."""
        held = self._held.get(_key(tensor))
        units = {} if held is None else {x: self.units(tensor, x) for x in held.layers}
        return {name for name, found in units.items() if found is not None and _any(found)}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise torch imports its compiler, which takes seconds.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode they arrive whole: a Linear and not its matrix product.
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        out = func(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            self._follow(func, args, kwargs, out)
        return out

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        given, made = _tensors((args, kwargs)), _tensors(out)
        known = {_key(t): self._held[_key(t)] for t in given if _key(t) in self._held}
        mutates = func._schema.is_mutable
        if not made or not known:
            return
        if not mutates and all(_key(t) in {_key(g) for g in given} for t in made):
            return  # a view
        if _creates(func._overloadpacket.__name__):
            return
        self._note_weights(known.values())
        layers = {layer for held in known.values() for layer in held.layers}
        call = _Call(func, args, kwargs, made)
        rule = _rule(call)
        found = {layer: rule(self, call, layer) for layer in layers}
        floating = [t for t in given if t.is_floating_point()]
        weight = bool(floating) and all(self._is_weight(t) for t in floating)
        for place, tensor in enumerate(made):
            held = self._hold(tensor)
            if held.itemsize != tensor.element_size():
                continue
            held.weight = weight
            self._write(tensor, {layer: units[place] for layer, units in found.items()})

    def _note_weights(self, known: Iterable[_Held]) -> None:
        for held in known:
            if held.weight:
                self.reached |= held.layers

    def _write(self, tensor: Tensor, found: Mapping[str, Tensor | None]) -> None:
        held = self._hold(tensor)
        place = tensor.size(), tensor.stride(), tensor.storage_offset()
        for layer in {*held.units, *found}:
            units = found.get(layer)
            if units is None and layer not in held.units:
                continue
            part = held.numbered(layer).as_strided(*place)
            part.copy_(torch.tensor(NONE) if units is None else units)

    def _hold(self, tensor: Tensor) -> _Held:
        storage = tensor.untyped_storage()
        return self._held.setdefault(_key(tensor), _Held(storage, tensor.element_size()))

    def _is_weight(self, tensor: Tensor) -> bool:
        held = self._held.get(_key(tensor))
        return held is not None and held.weight

    def _tag_rows(self, name: str, layer: nn.Module) -> None:
        for weight in prunable_parameters(layer).values():
            held = self._hold(weight)
            rows = len(weight)
            # An LSTM's and a GRU's gates are rows of one unit.
            units = int(layer.hidden_size) if isinstance(layer, nn.RNNBase) else rows
            length = weight.numel() // max(rows, 1)
            held.rows[name] = _Rows(int(weight.storage_offset()), length, rows, units)

    def same(self, tensor: Tensor, layer: str, dims: Sequence[int]) -> Tensor | None:
        """Return the one unit that numbers carry along some dimensions, kept with length 1."""
        held = self._held.get(_key(tensor))
        rows = None if held is None else held.rows.get(layer)
        if rows is None:
            units = self.units(tensor, layer)
            return None if units is None else _same(units, dims)
        dims = [dim % tensor.dim() for dim in dims]
        first = rows.of(tensor, dict.fromkeys(dims, 0))
        last = rows.of(tensor, {dim: tensor.shape[dim] - 1 for dim in dims})
        return torch.where(first == last, first, NONE)

    def readable(self, tensors: Sequence[Tensor], layer: str) -> list[Tensor]:
        """Return those that still carry a layer's units: what a weight multiplies does not."""
        if not any(self._is_weight(t) for t in tensors):
            return list(tensors)
        left = [t for t in tensors if self._is_weight(t)]
        held = [self.units(t, layer) for t in tensors if not self._is_weight(t)]
        if any(units is not None and _any(units) for units in held):
            self.read_on.add(layer)
        return left


@dataclass(frozen=True, slots=True)
class _Call:
    func: Any
    args: Any
    kwargs: Any
    made: list[Tensor]

    @property
    def name(self) -> str:
        """The operator's, without the underscore of its form in place."""
        return str(self.func._overloadpacket.__name__).rstrip("_")

    @property
    def clears(self) -> bool:
        return self.func._overloadpacket.__name__ in _CLEARS

    @property
    def source(self) -> Tensor | None:
        """What is put in the place of other numbers, for an operator that does so."""
        named = [self.argument(name) for name in _SOURCES]
        return next((t for t in named if isinstance(t, Tensor)), None)

    @property
    def given(self) -> list[Tensor]:
        return _tensors((self.args, self.kwargs))

    def argument(self, name: str) -> Any:
        """Return an argument by its name in torch's schema."""
        for place, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                given = self.args[place] if place < len(self.args) else None
                return self.kwargs.get(name, given)
        return None


Rule = Callable[[UnitTags, _Call, str], "list[Tensor | None]"]


def _rule(call: _Call) -> Rule:
    if call.name in _PRODUCTS:
        return _multiplied
    if call.name in ("convolution", "_convolution"):
        return _convolved
    if call.name in _SUMS:
        return _summed
    if call.name in _MOVES:
        return _moved
    if call.clears:
        return _cleared
    if call.name == "copy":
        return _copied
    if call.source is not None:
        return _written
    return _alternatives if call.name == "_softmax" else _apart


def _apart(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    """Elementwise, normalising and unknown operators: all numbers keep their units."""
    left = tags.readable(call.given, layer) if call.name in _LAYERS else call.given
    given = [tags.units(t, layer) for t in left]
    return [_joined([_spread(units, tensor.shape) for units in given]) for tensor in call.made]


def _alternatives(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    """A softmax: its numbers are shares of one choice, of which a sum makes an expectation."""
    return [None if u is None else u.clamp(max=0) for u in _apart(tags, call, layer)]


def _cleared(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    return [None] * len(call.made)


def _copied(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    return [_spread(tags.units(call.given[1], layer), t.shape) for t in call.made]


def _moved(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    """Run the operator on the tags themselves; what tells the places makes a choice."""
    first = tree_map(
        lambda t: _or_none(tags.units(t, layer), t) if isinstance(t, Tensor) else t, call.args[0]
    )
    args, kwargs = tree_map(
        lambda t: t.cpu() if isinstance(t, Tensor) else t, (call.args[1:], call.kwargs)
    )
    if call.name == "constant_pad_nd":
        args = [args[0], NONE]
    (moved,) = _tensors(call.func(first, *args, **kwargs))
    chosen = [tags.units(t, layer) for t in _tensors((call.args[1:], call.kwargs))]
    others = [_spread(units, moved.shape) for units in chosen]
    return [_joined([moved, *others])]


def _written(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    """Numbers put in the place of others: so are their tags."""
    target, source = call.argument("self"), call.source

    def stand_in(value: Any) -> Any:
        if isinstance(value, Tensor) and (value is target or value is source):
            return _or_none(tags.units(value, layer), value).clone()
        return value.cpu() if isinstance(value, Tensor) else value

    args, kwargs = tree_map(stand_in, (call.args, call.kwargs))
    return list(_tensors(call.func(*args, **kwargs)))


def _or_none(units: Tensor | None, tensor: Tensor) -> Tensor:
    return torch.full(tensor.shape, NONE) if units is None else units


def _summed(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    """Sums and means: they keep the one unit that all their terms carry."""
    given, dims = call.given[0], call.argument("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(given.dim()))
    kept = tags.same(given, layer, dims)
    if kept is None:
        return [None] * len(call.made)
    return [kept.reshape(t.shape) if t.numel() == kept.numel() else None for t in call.made]


def _multiplied(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    """Products of matrices and vectors, perhaps added to something."""
    places = _PRODUCTS[call.name]
    one, other = (call.args[place] for place in places)
    left = tags.readable([one, other], layer)
    (tensor,) = call.made
    found = []
    if any(t is one for t in left):
        rows = tags.same(one, layer, [-1])
        found.append(rows if rows is None or other.dim() > 1 else rows.squeeze(-1))
    if any(t is other for t in left):
        found.append(tags.same(other, layer, [-2 if other.dim() > 1 else -1]))
    found += [tags.units(t, layer) for t in call.args[: places[0]]]
    return [_joined([_spread(units, tensor.shape) for units in found])]


def _convolved(tags: UnitTags, call: _Call, layer: str) -> list[Tensor | None]:
    weight = call.args[1]
    tags.readable([call.args[0], weight], layer)
    filters = tags.same(weight, layer, list(range(1, weight.dim())))
    if filters is None or call.argument("transposed"):
        return [None]
    return [filters.view(-1, *[1] * (weight.dim() - 2)).expand(call.made[0].shape)]


def _same(units: Tensor, dims: Sequence[int]) -> Tensor:
    """Return the one unit along some dimensions, kept with length 1; `NONE` where there are more.

    Numbers without a unit don't count: what is added to a head leaves it one.
    """
    if not units.numel() or not dims:
        return units
    highest = units.amax(tuple(dims), keepdim=True)
    lowest = torch.where(units < 0, _HIGHEST, units).amin(tuple(dims), keepdim=True)
    return torch.where(lowest == highest, highest, NONE)


def _spread(units: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Return what numbers of this shape carry that were made of numbers with these units."""
    if units is None or not _any(units):
        return None
    if _broadcasts(units.shape, shape):
        return units.expand(shape)
    if units.dim() == len(shape) > 2 and units.shape[:2] == shape[:2]:
        # Pooled, padded or resized within each channel.
        channels = _same(units, list(range(2, units.dim())))
        if _any(channels):
            return channels.expand(shape)
    return torch.arange(shape.numel()).view(shape)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False)
    )


def _joined(found: Iterable[Tensor | None]) -> Tensor | None:
    """Let numbers that meet carry the units of each; two units of one layer make another."""
    joined: Tensor | None = None
    for units in found:
        if joined is None or units is None:
            joined = units if joined is None else joined
            continue
        both = (joined >= 0) & (units >= 0) & (joined != units)
        mixed = (joined * 1_000_003 + units) & _HIGHEST
        joined = torch.where(both, mixed, torch.maximum(joined, units))
    return joined


def _any(units: Tensor) -> bool:
    return bool((units >= 0).any())


def _creates(name: str) -> bool:
    """Whether an operator reads nothing of its tensors but their shapes."""
    return name.endswith("_like") or name.startswith(("new_", "empty"))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
