"""What is found in a traced forward: which weights meet which units, and what is constant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from rayprune.deploy.compaction.abstract_values import AbstractValue, Columns
from rayprune.deploy.compaction.attention.heads import Heads
from rayprune.deploy.compaction.channels import FREE, PINNED, Channels
from rayprune.deploy.compaction.norm_calls import NormCall

Arguments = Mapping[str, Any]
"""An operator's arguments by the names of its schema; tensors as :class:`AbstractValue`."""
Shapes = Sequence[torch.Size]
"""Of an operator's results."""


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a weight: rows of units from columns of units."""

    weight: str
    bias: str
    """The parameter that takes a folded constant; empty where there is none."""
    rows: Tensor
    """Channel of each row; shape ``(out,)``."""
    columns: Tensor
    """Channel of each column; shape ``(in,)``."""
    constants: Tensor
    """Value of each column that is the same whatever the inputs are, else NaN; shape ``(in,)``."""
    carried: Tensor
    """Strength of each column that is a constant pattern which no bias can hold (zeros surround
    it, or there is no bias), all of them the same pattern; NaN for others; shape ``(in,)``."""
    axes: tuple[int, int] = (0, 1)
    """Along which axes of the weight the rows and the columns are."""
    groups: int = 1
    """Of a convolution: its weight's second axis has what one group has of it."""

    @property
    def whole(self) -> Tensor:
        """Channels along the weight's first axis, of which a group has some."""
        return self.rows if self.axes[0] == 0 else self.columns

    @property
    def within(self) -> Tensor:
        """Channels of what the weight's second axis has for each group, one after the other."""
        return self.columns if self.axes[0] == 0 else self.rows


@dataclass(frozen=True, slots=True)
class NormUse:
    """One use of a norm that takes the mean over units: it reads all that are not constant."""

    call: NormCall
    channels: Tensor
    """Channel of each column that it is over; shape ``(in,)``."""
    patterns: Tensor
    """What is constant of each column, over all places, else NaN; shape ``(places, in)``."""


@dataclass(frozen=True, slots=True)
class Reliance:
    """Units that are needed wherever others are, though no weight reads them."""

    readers: Tensor
    """Channels, any of which needs all of the others."""
    channels: Tensor


@dataclass(frozen=True, slots=True)
class Hold:
    """Units that something holds back, and what."""

    channels: Tensor
    reason: str


@dataclass
class Findings:
    """What has been found so far in a forward."""

    parameters: Mapping[str, Tensor]
    """By full name, on the CPU, in double precision; buffers of floats too."""
    live: bool = False
    """Whether the network goes on learning: then what is told must hold in training as well."""
    channels: Channels = field(default_factory=Channels)
    units: dict[str, Tensor] = field(default_factory=dict)
    """Channel of each unit, by the layer's (first) weight; shape ``(units,)``."""
    uses: list[Use] = field(default_factory=list)
    reliances: list[Reliance] = field(default_factory=list)
    heads: dict[str, Heads] = field(default_factory=dict)
    """Of attention layers, by layer."""
    holds: list[Hold] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    """Parameters that something else than a layer reads."""
    states: dict[int, Tensor] = field(default_factory=dict)
    """Channels along the last axis of inputs that are recurrent states, by the input's place."""
    returned: dict[int, Tensor] = field(default_factory=dict)
    """Likewise of outputs, by the output's place."""

    norms: list[NormUse] = field(default_factory=list)
    normalised: dict[str, tuple[torch.Size, int, Tensor]] = field(default_factory=dict)
    """By norm module: the shape that its weights have or would have, along which of its axes units
    are, and their channels."""
    carried: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    """Parameters and buffers of a value for each unit: along which axis, and its channels."""
    rectangles: list[Tensor] = field(default_factory=list)
    """Channels of which only a rectangle can stay, though no tensor of the forward shows it."""
    values: dict[fx.Node, Any] = field(default_factory=dict)
    """What each step of the forward gives."""
    given: dict[fx.Node, Arguments] = field(default_factory=dict)
    """What each operator is given."""
    earnest: list[Tensor] = field(default_factory=list)
    """Channels of units that can't stand empty only to fill a layer: they live if they stay."""
    grounded: list[Tensor] = field(default_factory=list)
    """Channels of hidden units that stay at zero if their state starts there."""

    def units_of(self, weight: str, count: int, axes: tuple[int, int] = (0, 1)) -> Tensor:
        """Return the channels of a layer's units; the same ones at each of its uses.

        Args:
            weight: by name.
            count: of units.
            axes: along which its rows, whose units they are, and its columns lie; of a weight that
                is also read across, such as a tied embedding's, each reading has units of its own.
        """
        if any(use.weight == weight and use.axes != axes for use in self.uses):
            return self.channels.new(count)
        if weight not in self.units:
            self.units[weight] = self.channels.new(count)
        return self.units[weight]

    def hold(self, channels: Tensor, reason: str) -> None:
        """Keep units, and remember why."""
        held = channels.unique()
        held = held[(held != FREE) & (held != PINNED)]
        if held.numel():
            self.channels.pin(held)
            self.holds.append(Hold(held, reason))

    def note(self, channels: Tensor, reason: str) -> None:
        """Remember why units may have to stay, without keeping them."""
        if channels.numel():
            self.holds.append(Hold(channels.unique(), reason))

    def carry(self, name: str, axis: int, channels: Tensor) -> None:
        """Say that a parameter or buffer has a value for each unit along an axis."""
        before = self.carried.setdefault(name, (axis, channels))
        self.channels.tie(before[1], channels)

    def columns_of(self, value: AbstractValue, columns: Columns, reader: str) -> Tensor:
        """Return the channels of a layer's columns; mixed ones are held."""
        if columns.mixed:
            self.hold(value.channels, f"{reader} reads them in another order than by unit")
        return columns.channels


def by_column(weight: Tensor, axes: tuple[int, int] = (0, 1), groups: int = 1) -> Tensor:
    """Return a weight with all that a row reads of a column in one axis, the third.

    Args:
        weight: of a layer.
        axes: along which it has rows and columns.
        groups: of a convolution; rows read nothing of other groups.

    >>> by_column(torch.zeros(4, 3, 2, 2)).shape, by_column(torch.zeros(0, 3)).shape
    (torch.Size([4, 3, 4]), torch.Size([0, 3, 1]))
    >>> by_column(torch.ones(2, 1, 1), groups=2)[:, :, 0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    # Not -1: of a layer without units that could be any length.
    flat = weight.reshape(*weight.shape[:2], math.prod(weight.shape[2:]))
    if groups > 1:
        apart = flat.unflatten(0, (groups, -1))
        each = torch.arange(groups)
        whole = flat.new_zeros(groups, apart.shape[1], groups, *flat.shape[1:])
        whole[each, :, each] = apart
        flat = whole.flatten(2, 3).flatten(0, 1)
    return flat.movedim(axes, (0, 1))


def layer_of(parameter: str) -> str:
    """Return the layer's name of a parameter's.

    >>> layer_of("pi.0.weight"), layer_of("weight")
    ('pi.0', '')
    """
    return parameter.rpartition(".")[0]


def owner_of(weight: str) -> str:
    """Return what the units of a weight are told as: the layer's, or those of a bare parameter.

    >>> owner_of("pi.0.weight"), owner_of("cell.weight_ih_l0"), owner_of("pi.w1")
    ('pi.0', 'cell', 'pi.w1')
    """
    last = weight.rpartition(".")[2]
    of_layer = last == "weight" or last.startswith("weight_ih") or last.endswith("_proj_weight")
    return layer_of(weight) if of_layer else weight


def named(layer: str) -> str:
    """Return how a layer is called in messages; the root has no name of its own."""
    return repr(layer) if layer else "the module itself"
