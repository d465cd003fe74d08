"""From what was read of a forward to a plan: which units live, and what their absence adds up to.

A unit lives if something that stays reads it: an output, or by a weight that is not zero a unit
that lives. Found backwards from the outputs, this removes loops of dead units too, and needs no
rounds: a unit that only dead ones read is never reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.deploy.channels import PINNED
from rayprune.deploy.interpreter import read
from rayprune.deploy.plan import Kept, Left, Plan, Removed
from rayprune.deploy.reading import Reading, Use, layer_of
from rayprune.deploy.tracing import Forward, as_arguments, trace

KINDS = {2: "neuron", 3: "filter", 4: "filter"}
"""What a unit of a layer is called, by the number of dimensions of its weight."""


def plan_compaction(
    module: nn.Module,
    example_input: Any,
    forward: Forward | None = None,
    *,
    shrink_states: bool = False,
    keep: Iterable[str] = (),
) -> Plan:
    """Find what of a module can go without changing what it computes; change nothing.

    Args:
        module: any module, in evaluation mode; its exact zeros are read.
        example_input: a tensor, a tuple of arguments, or a dict batch.
        forward: what to look at instead of ``module(*arguments)``: takes the module and the
            arguments. Parameters that it doesn't reach stay as they are.
        shrink_states: whether recurrent states that come in and go out may lose units too.
        keep: names of layers that keep all of their units.

    Raises:
        InputError: the forward can't be traced.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> _ = nn.init.zeros_(net[2].weight[:, 1])
    >>> plan_compaction(net, torch.zeros(1, 2)).removed
    (Removed(layer='0', kind='neuron', units=1, of=3),)
    """
    traced = trace(module, as_arguments(example_input), forward)
    parameters = {n: p.detach().cpu().double() for n, p in module.named_parameters()}
    reading = read(traced, parameters, shrink_states=shrink_states)
    for weight, units in reading.units.items():
        if layer_of(weight) in set(keep):
            reading.channels.pin(units)
    return _plan(reading)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """All uses of one weight, over sets of channels."""

    weight: str
    biases: frozenset[str]
    filled: Tensor
    """Which weights are not zero; bool, shape ``(out, in)``."""
    rows: Tensor
    columns: Tensor
    constants: Tensor
    """Of columns whose absence a bias can make up for, else NaN; shape ``(in,)``."""


def _plan(reading: Reading) -> Plan:
    _tie_shared(reading)
    matrices = list(_matrices(reading))
    live = _living(matrices, len(reading.channels))
    kept = live | _placeholders(reading, live)
    states = {place: _indices(reading, c, kept) for place, c in reading.states.items()}
    returned = {place: _indices(reading, c, kept) for place, c in reading.returned.items()}
    picks = dict(_picks(matrices, kept))
    return Plan(
        kept={n: p for n, p in picks.items() if _shrinks(reading.parameters[n], p)},
        emptied=dict(_emptied(matrices, kept, live)),
        folds=dict(_folds(reading, matrices, live)),
        units={layer_of(w): _lives_on(reading, u, kept, live) for w, u in reading.units.items()},
        states=states,
        returned=returned,
        removed=tuple(_removed(reading, kept)),
        left=tuple(_left(reading, live)),
    )


def _tie_shared(reading: Reading) -> None:
    """Let all uses of one parameter keep the same rows and columns."""
    columns: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    for use in reading.uses:
        reading.channels.tie(use.columns, columns.setdefault(use.weight, use.columns))
        for name in filter(None, (use.weight, use.bias)):
            reading.channels.tie(use.rows, rows.setdefault(name, use.rows))
            if name in reading.elsewhere:
                reading.hold(use.rows, f"something else reads {name!r}")
                reading.hold(use.columns, f"something else reads {name!r}")


def _matrices(reading: Reading) -> Iterator[_Matrix]:
    by_weight: dict[str, list[Use]] = defaultdict(list)
    owners: dict[str, set[str]] = defaultdict(set)
    for use in reading.uses:
        by_weight[use.weight].append(use)
        owners[use.bias].add(use.weight)
    for weight, uses in by_weight.items():
        biases = frozenset(use.bias for use in uses)
        folds = len(biases) == 1 and all(b and len(owners[b]) == 1 for b in biases)
        first = uses[0].constants
        same = torch.stack([use.constants == first for use in uses]).all(0)
        # Without a bias of its own a layer can do without zeros only.
        foldable = same if folds else same & (first == 0)
        parameter = reading.parameters[weight]
        yield _Matrix(
            weight=weight,
            biases=biases - {""},
            filled=(parameter != 0).reshape(*parameter.shape[:2], -1).any(-1),
            rows=reading.channels.sets(uses[0].rows),
            columns=reading.channels.sets(uses[0].columns),
            constants=torch.where(foldable, first, torch.nan),
        )


def _living(matrices: list[_Matrix], count: int) -> Tensor:
    """Return which sets of channels are needed; bool, shape ``(count,)``."""
    live = torch.zeros(count, dtype=torch.bool)
    live[PINNED] = True
    before = -1
    while before != (before := int(live.sum())):
        for matrix in reversed(matrices):
            read_by = matrix.filled[live[matrix.rows]].any(0) & matrix.constants.isnan()
            live[matrix.columns[read_by]] = True
    return live


def _placeholders(reading: Reading, live: Tensor) -> Tensor:
    """Return one set of channels for each layer that would be left without any."""
    held = torch.zeros_like(live)
    for units in reading.units.values():
        sets = reading.channels.sets(units)
        if not (live | held)[sets].any():
            held[sets[0]] = True
    return held


def _indices(reading: Reading, channels: Tensor, kept: Tensor) -> Tensor:
    return kept[reading.channels.sets(channels)].nonzero().flatten()


def _picks(matrices: list[_Matrix], kept: Tensor) -> Iterator[tuple[str, Kept]]:
    for matrix in matrices:
        rows = kept[matrix.rows].nonzero().flatten()
        yield matrix.weight, (rows, kept[matrix.columns].nonzero().flatten())
        for bias in matrix.biases:
            yield bias, (rows,)


def _shrinks(parameter: Tensor, kept: Kept) -> bool:
    return any(k.numel() < size for k, size in zip(kept, parameter.shape, strict=False))


def _emptied(matrices: list[_Matrix], kept: Tensor, live: Tensor) -> Iterator[tuple[str, Kept]]:
    for matrix in matrices:
        axes = tuple(
            (~live[channels[kept[channels]]]).nonzero().flatten()
            for channels in (matrix.rows, matrix.columns)
        )
        if any(axis.numel() for axis in axes):
            yield matrix.weight, axes
            for bias in matrix.biases:
                yield bias, axes[:1]


def _folds(reading: Reading, matrices: list[_Matrix], live: Tensor) -> Iterator[tuple[str, Tensor]]:
    for matrix in matrices:
        gone = ~live[matrix.columns] & ~matrix.constants.isnan() & (matrix.constants != 0)
        if gone.any():
            weight = reading.parameters[matrix.weight]
            by_column = weight.reshape(*weight.shape[:2], -1).sum(-1)
            (bias,) = matrix.biases
            yield bias, by_column[:, gone] @ matrix.constants[gone]


def _lives_on(reading: Reading, units: Tensor, kept: Tensor, live: Tensor) -> Tensor:
    sets = reading.channels.sets(units)
    places = kept[sets].nonzero().flatten()
    return torch.where(live[sets[places]], places, -1)


def _removed(reading: Reading, kept: Tensor) -> Iterator[Removed]:
    for weight, units in reading.units.items():
        gone = int((~kept[reading.channels.sets(units)]).sum())
        if gone:
            recurrent = not weight.endswith("weight")
            kind = "hidden unit" if recurrent else KINDS[reading.parameters[weight].dim()]
            yield Removed(layer_of(weight), kind, gone, units.numel())


def _left(reading: Reading, live: Tensor) -> Iterator[Left]:
    """Tell what holds units back that compaction doesn't understand, or can't make up for."""
    told: set[tuple[str, str]] = set()
    for hold in reading.holds:
        for weight, units in reading.units.items():
            held = torch.isin(units, hold.channels) & live[reading.channels.sets(units)]
            key = (layer_of(weight), hold.reason)
            if held.any() and key not in told:
                told.add(key)
                yield Left(key[0], int(held.sum()), hold.reason)
