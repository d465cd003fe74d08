"""Which units of which layers each number of a forward carries, followed while it runs.

The rows of each layer's weight are tagged with their numbers, and every operator of torch hands the
tags on by its rule. So no layer has to be called as a module, and nothing is hooked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rayprune.pruning.layers.attention import OUT
from rayprune.pruning.layers.kinds import axes_of, kind_of
from rayprune.pruning.layers.masked import prunable_parameters
from rayprune.pruning.tracing.operator_rules import Call, rule_for, tensors_in
from rayprune.pruning.tracing.unit_numbers import NONE, carries, same


@dataclass(frozen=True, slots=True)
class _Rows:
    """The tags of a weight: its rows' numbers, not written out, since weights are large."""

    start: int
    """Where the weight begins in its storage."""
    length: int
    """Numbers in a row."""
    count: int
    """Rows; those of a recurrent layer have one for each gate of a unit. Of a weight whose inputs
    come first, each kernel is a row."""
    units: int
    """Of each block."""
    block: int
    """Rows of one group of a grouped transposed convolution; all rows of any other layer."""

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
        group = rows.div(self.block, rounding_mode="floor")
        return torch.where(inside, group * self.units + rows % self.units, NONE)


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
        return {name for name, found in units.items() if found is not None and carries(found)}

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
        given, made = tensors_in((args, kwargs)), tensors_in(out)
        known = {_key(t): self._held[_key(t)] for t in given if _key(t) in self._held}
        mutates = func._schema.is_mutable
        if not made or not known:
            return
        if not mutates and all(_key(t) in {_key(g) for g in given} for t in made):
            return  # a view
        call = Call(func, args, kwargs, made)
        if call.creates:
            return
        self._note_weights(known.values())
        layers = {layer for held in known.values() for layer in held.layers}
        rule = rule_for(call)
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
        kind, axes = kind_of(layer), axes_of(layer)
        for name_in_layer, weight in prunable_parameters(layer).items():
            if isinstance(layer, nn.MultiheadAttention) and name_in_layer != OUT:
                continue  # its output projection reads them: they never leave it
            held = self._hold(weight)
            rows = weight.shape[:2].numel() if kind.transposed else len(weight)
            # The gates of a recurrent layer are rows of one unit.
            units = weight.shape[1] if kind.transposed else rows // kind.gates
            length = weight.numel() // max(rows, 1)
            start, block = int(weight.storage_offset()), max(rows // axes.groups, 1)
            held.rows[name] = _Rows(start, length, rows, units, block)

    def same(self, tensor: Tensor, layer: str, dims: Sequence[int]) -> Tensor | None:
        """Return the one unit that numbers carry along some dimensions, kept with length 1."""
        held = self._held.get(_key(tensor))
        rows = None if held is None else held.rows.get(layer)
        if rows is None:
            units = self.units(tensor, layer)
            return None if units is None else same(units, dims)
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
        if any(units is not None and carries(units) for units in held):
            self.read_on.add(layer)
        return left


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
