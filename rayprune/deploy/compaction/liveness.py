"""Which units live: those that something reads which stays.

A unit lives if an output reads it, or by a weight that is not zero a unit that lives. Found
backwards from the outputs, this drops loops of dead units too, and needs no rounds: a unit that
only dead ones read is never reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.abstract_values import NAN, AbstractValue
from rayprune.deploy.compaction.channels import PINNED
from rayprune.deploy.compaction.findings import Findings, NormUse, Use, by_column
from rayprune.deploy.compaction.sizes.rectangles import IN_A_BLOCK, completed, rectangles


@dataclass(frozen=True, slots=True)
class Matrix:
    """All uses of one weight, over sets of channels."""

    weight: str
    biases: frozenset[str]
    filled: Tensor
    """Which weights are not zero; bool, shape ``(out, in)``."""
    rows: Tensor
    columns: Tensor
    constants: Tensor
    """Of columns whose absence a bias can make up for, else NaN; shape ``(in,)``."""
    carried: Tensor
    """Strengths of columns of one pattern, whose absence the strongest one can make up for."""
    axes: tuple[int, int] = (0, 1)
    """Along which axes of the weight rows and columns are."""
    groups: int = 1

    @property
    def carrier(self) -> int:
        """The column that carries the others of its pattern."""
        return int(self.carried.abs().nan_to_num(nan=-1.0).argmax())

    def reads(self, live: Tensor) -> Tensor:
        """Return which columns are needed if these sets of channels live; bool, ``(in,)``."""
        read = self.filled[live[self.rows]].any(0) & self.constants.isnan()
        carried = ~self.carried.isnan()
        if (read & carried).any():
            read &= ~carried
            read[self.carrier] = True
        return read


@dataclass(frozen=True, slots=True)
class Norm:
    """All uses of one norm that takes the mean over units, over sets of channels."""

    columns: Tensor
    patterns: Tensor
    """What is constant of each column at every use, else NaN; shape ``(places, in)``."""

    def reads(self, live: Tensor) -> Tensor:
        """Return which columns are needed if these sets of channels live; bool, ``(in,)``."""
        varying = self.patterns.isnan().any(0)
        return varying if bool(live[self.columns].any()) else torch.zeros_like(varying)


@dataclass(frozen=True, slots=True)
class Needed:
    """A `Reliance`, over sets of channels."""

    readers: Tensor
    columns: Tensor

    def reads(self, live: Tensor) -> Tensor:
        """Return which columns are needed if these sets of channels live; bool, ``(in,)``."""
        return live[self.readers].any().expand(self.columns.shape)


Reader = Matrix | Norm | Needed
"""What needs units that other units are made of."""


def read_norms(findings: Findings) -> dict[str, Norm]:
    """Gather the uses of each norm that takes the mean over units, by layer.

    Its weights keep the same places at all of its uses, and so do its constants.
    """
    by_layer: dict[str, list[NormUse]] = defaultdict(list)
    for use in findings.norms:
        by_layer[use.call.layer].append(use)
    for uses in by_layer.values():
        for use in uses[1:]:
            findings.channels.tie(use.channels, uses[0].channels)
    return {layer: _norm(findings, uses) for layer, uses in by_layer.items()}


def _norm(findings: Findings, uses: list[NormUse]) -> Norm:
    first = uses[0].patterns
    same = torch.stack([use.patterns == first for use in uses]).all(0)
    return Norm(findings.channels.sets(uses[0].channels), first.where(same, NAN))


def read_matrices(findings: Findings, *, merge: bool) -> list[Matrix]:
    """Gather the uses of each weight; all uses of a parameter keep the same rows and columns.

    Args:
        findings: of a whole forward; its channels are tied further.
        merge: whether one constant may carry others.
    """
    _tie_shared(findings)
    return list(_matrices(findings, merge=merge))


def liveness(
    findings: Findings, readers: Sequence[Reader], *, note: bool = True
) -> tuple[Tensor, Tensor]:
    """Return which sets of channels live, and which are held only so that no layer is empty.

    Args:
        findings: of a whole forward.
        readers: what needs units that other units are made of.
        note: whether what must stay beside others is noted.

    Returns:
        Two bool tensors, shape ``(sets,)``; no set is in both.
    """
    live = torch.zeros(len(findings.channels), dtype=torch.bool)
    live[PINNED] = True
    readers = [*readers, *_reliances(findings)]
    blocks = rectangles(_tensors(findings), findings.rectangles)
    while True:
        live, held = _lively(findings, readers, live)
        missing = list(completed(findings.channels, blocks, live | held))
        if not missing:
            return live, held
        more = torch.cat(missing)
        if note:
            findings.note(more, IN_A_BLOCK)
        live[findings.channels.sets(more)] = True


def last_units(findings: Findings, readers: Sequence[Reader]) -> Tensor:
    """Return which sets of channels stay only so that no layer is empty; bool, ``(sets,)``.

    Also those that live in earnest since they do.
    """
    needed = torch.zeros(len(findings.channels), dtype=torch.bool)
    needed[PINNED] = True
    return _placeholders(findings, _living([*readers, *_reliances(findings)], needed))


def _tensors(findings: Findings) -> Iterator[AbstractValue]:
    for value in pytree.tree_leaves(list(findings.values.values())):
        if isinstance(value, AbstractValue):
            yield value


def _lively(findings: Findings, readers: Sequence[Reader], live: Tensor) -> tuple[Tensor, Tensor]:
    live, before = _living(readers, live), -1
    # What comes to live by one placeholder may spare another.
    while before != (before := int(live.sum())):
        held = _placeholders(findings, live)
        # What its state would be is no longer known; one that is returned lives in earnest.
        for channels in (*findings.returned.values(), *findings.earnest):
            sets = findings.channels.sets(channels)
            live[sets] |= held[sets]
        # And one that a norm would take for a zero, instead of for the constant that it was.
        for norm in (reader for reader in readers if isinstance(reader, Norm)):
            live[norm.columns] |= held[norm.columns] & live[norm.columns].any()
        live = _living(readers, live)
    held = _with_heads_of_one_width(findings, live, held)
    return live, held & ~live


def _tie_shared(findings: Findings) -> None:
    """Let all uses of one parameter keep the same along each of its axes."""
    by_axis: dict[tuple[str, int, int], Tensor] = {}
    for use in findings.uses:
        axes = {(use.weight, 0, use.groups): use.whole, (use.weight, 1, use.groups): use.within}
        if use.bias:
            axes[use.bias, 0, 1] = use.rows
        for (name, axis, groups), channels in axes.items():
            findings.channels.tie(channels, by_axis.setdefault((name, axis, groups), channels))
            if name in findings.elsewhere:
                findings.hold(channels, f"something else reads {name!r}")
                findings.hold(use.rows, f"something else reads {name!r}")
    for name, (axis, channels) in findings.carried.items():
        findings.channels.tie(channels, by_axis.setdefault((name, axis, 1), channels))
        if name in findings.elsewhere:
            findings.hold(channels, f"something else reads {name!r}")


def _matrices(findings: Findings, *, merge: bool) -> Iterator[Matrix]:
    by_weight: dict[tuple[str, tuple[int, int], int], list[Use]] = defaultdict(list)
    owners: dict[str, set[str]] = defaultdict(set)
    for use in findings.uses:
        by_weight[use.weight, use.axes, use.groups].append(use)
        owners[use.bias].add(use.weight)
    for (weight, axes, groups), uses in by_weight.items():
        biases = frozenset(use.bias for use in uses)
        folds = len(biases) == 1 and all(
            b and len(owners[b]) == 1 and b not in findings.carried for b in biases
        )
        first = uses[0].constants
        same = torch.stack([use.constants == first for use in uses]).all(0)
        # Without a bias of its own a layer can do without zeros only.
        foldable = same if folds else same & (first == 0)
        parameter = findings.parameters[weight]
        yield Matrix(
            weight=weight,
            biases=biases - {""},
            filled=(by_column(parameter, axes, groups) != 0).any(-1),
            rows=findings.channels.sets(uses[0].rows),
            columns=findings.channels.sets(uses[0].columns),
            constants=torch.where(foldable, first, torch.nan),
            carried=_carried(uses) if merge else torch.full_like(first, NAN),
            axes=axes,
            groups=groups,
        )


def _carried(uses: list[Use]) -> Tensor:
    """Return the strengths that columns have at every use of a weight, else NaN."""
    first = uses[0].carried
    return first.where(torch.stack([use.carried == first for use in uses]).all(0), NAN)


def _living(readers: Sequence[Reader], needed: Tensor) -> Tensor:
    """Return which sets of channels are needed by what needs these; bool, ``(sets,)``."""
    live, before = needed.clone(), -1
    while before != (before := int(live.sum())):
        for reader in reversed(readers):
            live[reader.columns[reader.reads(live)]] = True
    return live


def _placeholders(findings: Findings, live: Tensor) -> Tensor:
    """Return one set of channels for each layer that would be left without any."""
    held = torch.zeros_like(live)
    for units in findings.units.values():
        sets = findings.channels.sets(units)
        if units.numel() and not (live | held)[sets].any():
            held[sets[0]] = True
    return held


def _reliances(findings: Findings) -> list[Needed]:
    sets = findings.channels.sets
    return [Needed(sets(one.readers), sets(one.channels)) for one in findings.reliances]


def _with_heads_of_one_width(findings: Findings, live: Tensor, held: Tensor) -> Tensor:
    """Return what is held so that the heads of each attention layer are of one width, too."""
    held, every = held.clone(), findings.channels.sets(torch.arange(len(findings.channels)))
    before = -1
    while before != (before := int(held.sum())):
        for heads in findings.heads.values():
            fillers = heads.fillers((live | held)[every], told=findings.live)
            held[every[fillers]] = True
    return held
