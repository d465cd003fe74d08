"""From what was read of a forward to a plan: what stays, and what the absence of others adds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.deploy.compaction.channels import FREE, PINNED
from rayprune.deploy.compaction.findings import Findings, by_column, layer_of, owner_of
from rayprune.deploy.compaction.fitting import Fitted, Sizes, TracedForward, fitted
from rayprune.deploy.compaction.interpreter import read
from rayprune.deploy.compaction.liveness import Matrix, Norm, last_units, liveness
from rayprune.deploy.compaction.plan import HeldBack, Kept, Plan, Removed
from rayprune.deploy.compaction.trace import Forward, as_arguments, trace
from rayprune.deploy.compaction.unremovable_weights import Stranded, stranded
from rayprune.pruning.layers.partial_norm import merged

_TIED = "no weight reaches them, but they can only go together with units that live"
_GROUPED = "nothing reads them, but a convolution in groups has as many in each"
_LAST = "no layer is left without units, and the last ones go together"
_UNREAD = "nothing reads them, but they change, and a norm takes the mean over all of them"
_FILLING = "nothing reads them, but all heads of a layer are as wide as the widest"
_UNKNOWN = "no weight reaches them, but what constants they become where they are read isn't known"

KINDS = {1: "neuron", 2: "neuron", 3: "filter", 4: "filter", 5: "filter"}
"""What a unit of a layer is called, by the number of dimensions of its weight."""


def plan_compaction(
    module: nn.Module,
    example_input: Any,
    forward: Forward | None = None,
    *,
    shrink_states: bool = False,
    merge: bool = True,
    keep: Iterable[str] = (),
    tied: Iterable[tuple[str, str]] = (),
    live: bool = False,
    wide_states: bool = False,
    sizes: Sizes = "trusted",
) -> Plan:
    """Find what of a module can go without changing what it computes; change nothing.

    Args:
        module: any module, in evaluation mode; its exact zeros are read.
        example_input: a tensor, a tuple of arguments, or a dict batch.
        forward: what to look at instead of ``module(*arguments)``: takes the module and the
            arguments. Parameters that it doesn't reach stay as they are.
        shrink_states: whether recurrent states that come in and go out may lose units too; they
            are then taken to start at zero.
        merge: whether of several constants that no bias can hold one may carry them all. Then
            weights become nonzero that were zero, which masks would not allow.
        keep: names of layers that keep all of their units.
        tied: pairs of weights, by full name, whose layers keep the same units: of a network and its
            target network.
        live: whether the module goes on learning, so that all must hold in training mode, too.
        wide_states: with `shrink_states`, let only the layers lose units, and states come and go as
            wide as before.
        sizes: what is done where the forward has sizes that no longer fit: ``trusted`` leaves it
            as it is, for it may compute them; ``rewritten`` plans new code; ``held`` keeps the
            units.

    Raises:
        InputError: the forward can't be traced.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> _ = nn.init.zeros_(net[2].weight[:, 1])
    >>> plan_compaction(net, torch.zeros(1, 2)).removed
    (Removed(layer='0', kind='neuron', units=1, of=3),)
    """
    arguments = as_arguments(example_input)
    traced = trace(module, arguments, forward)
    parameters = {n: p.detach().cpu().double() for n, p in module.named_parameters()}
    buffers = {n: b.detach().cpu().double() for n, b in module.named_buffers()}
    findings = Findings(parameters | buffers, live=live)
    read(findings, traced, shrink_states=shrink_states)
    for weight, units in findings.units.items():
        if owner_of(weight) in set(keep):
            findings.channels.pin(units)
    for one, other in tied:
        if one in findings.units and other in findings.units:
            findings.channels.tie(findings.units[one], findings.units[other])
    living = fitted(
        TracedForward(module, arguments, forward, traced), findings, merge=merge, sizes=sizes
    )
    plan = _plan(findings, living)
    read_as_they_are = {use.weight for use in findings.uses} - findings.elsewhere
    held = _by_layer(stranded(traced, parameters, read_as_they_are))
    return replace(plan, left=(*plan.left, *held), wide_states=wide_states)


def _plan(findings: Findings, found: Fitted) -> Plan:
    matrices, live, norms = found.matrices, found.live, found.norms
    kept = live | found.held
    unread = live & ~liveness(findings, matrices, note=False)[0]
    findings.note(_unread_in_groups(findings, matrices, live), _GROUPED)
    states = {place: _indices(findings, c, kept) for place, c in findings.states.items()}
    returned = {place: _of_units(findings, c, kept) for place, c in findings.returned.items()}
    picks = dict(_picks(matrices, kept)) | dict(_carried(findings, kept))
    last = live & last_units(findings, [*matrices, *norms.values()])
    return Plan(
        kept={n: p for n, p in picks.items() if _shrinks(findings.parameters[n], p)},
        emptied=dict(_emptied(matrices, kept, live))
        | dict(_emptied_in_heads(findings, kept, live)),
        folds=dict(_folds(findings, matrices, live)),
        units={owner_of(w): _lives_on(findings, u, kept, live) for w, u in findings.units.items()},
        states=states,
        returned=returned,
        grounded=dict(_grounded(findings)),
        norms=dict(_norms(findings, norms, kept)),
        normalised=dict(_normalised(findings, kept)),
        heads=dict(_heads(findings, kept)),
        misfits=found.misfits,
        resized=found.resized,
        removed=tuple(_removed(findings, kept)),
        left=(
            *_left(findings, matrices, live, unread),
            *_filling(findings, kept, live),
            *_together(findings, found.held | last),
        ),
    )


def _indices(findings: Findings, channels: Tensor, kept: Tensor) -> Tensor:
    return kept[findings.channels.sets(channels)].nonzero().flatten()


def _of_units(findings: Findings, channels: Tensor, kept: Tensor) -> Tensor:
    """Return which places of a state that goes out are of units: a narrow layer fills others."""
    return ((channels != FREE) & kept[findings.channels.sets(channels)]).nonzero().flatten()


def _grounded(findings: Findings) -> Iterator[tuple[int, Tensor]]:
    if findings.grounded:
        still = findings.channels.sets(torch.cat(findings.grounded))
        for place, channels in findings.states.items():
            found = torch.isin(findings.channels.sets(channels), still).nonzero().flatten()
            if found.numel():
                yield place, found


def _picks(matrices: list[Matrix], kept: Tensor) -> Iterator[tuple[str, Kept]]:
    for matrix in matrices:
        rows, columns = kept[matrix.rows], kept[matrix.columns]
        yield matrix.weight, tuple(_places(along) for along in _by_axis(matrix, rows, columns))
        for bias in matrix.biases:
            yield bias, (_places(rows),)


def _by_axis(matrix: Matrix, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is told of rows and columns along the weight's first two axes."""
    first, second = (rows, columns) if matrix.axes[0] == 0 else (columns, rows)
    return first, second.unflatten(0, (matrix.groups, -1)).any(0)


def _places(mask: Tensor) -> Tensor:
    return mask.nonzero().flatten()


def _carried(findings: Findings, kept: Tensor) -> Iterator[tuple[str, Kept]]:
    for name, (axis, channels) in findings.carried.items():
        whole = [torch.arange(size) for size in findings.parameters[name].shape[:axis]]
        yield name, (*whole, _indices(findings, channels, kept))


def _norms(
    findings: Findings, norms: Mapping[str, Norm], kept: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield the constants of norms that lose inputs."""
    modules = {use.call.layer: use.call.module for use in findings.norms if use.call.given}
    for layer, norm in norms.items():
        gone = ~kept[norm.columns]
        if layer in modules and gone.any():
            # Of a norm that nothing reads they may not even be constants.
            yield layer, merged(modules[layer], norm.patterns[:, gone].nan_to_num())


def _normalised(findings: Findings, kept: Tensor) -> Iterator[tuple[str, tuple[int, ...]]]:
    for layer, (shape, axis, channels) in findings.normalised.items():
        size = _indices(findings, channels, kept).numel()
        yield layer, (*shape[:axis], size, *shape[axis + 1 :])


def _heads(findings: Findings, kept: Tensor) -> Iterator[tuple[str, int]]:
    every = findings.channels.sets(torch.arange(len(findings.channels)))
    for layer, heads in findings.heads.items():
        yield layer, heads.left(kept[every])


def _shrinks(parameter: Tensor, kept: Kept) -> bool:
    return any(k.numel() < size for k, size in zip(kept, parameter.shape, strict=False))


def _emptied(matrices: list[Matrix], kept: Tensor, live: Tensor) -> Iterator[tuple[str, Kept]]:
    for matrix in matrices:
        stays = _by_axis(matrix, kept[matrix.rows], kept[matrix.columns])
        lives = _by_axis(matrix, live[matrix.rows], live[matrix.columns])
        axes = tuple(_places(~some[all_]) for all_, some in zip(stays, lives, strict=True))
        if any(axis.numel() for axis in axes):
            yield matrix.weight, axes
        rows = _places(~live[matrix.rows[kept[matrix.rows]]])
        for bias in matrix.biases if rows.numel() else ():
            yield bias, (rows,)


def _emptied_in_heads(findings: Findings, kept: Tensor, live: Tensor) -> Iterator[tuple[str, Kept]]:
    """Yield what a head's biases and learned keys have of rows that only fill it."""
    for name, (axis, channels) in findings.carried.items():
        if layer_of(name) in findings.heads:
            sets = findings.channels.sets(channels)
            dead = (~live[sets[kept[sets]]]).nonzero().flatten()
            if dead.numel():
                yield name, (*[torch.empty(0, dtype=torch.long)] * axis, dead)


def _folds(
    findings: Findings, matrices: list[Matrix], live: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield what biases and carriers take over from columns that go."""
    for matrix in matrices:
        weight = findings.parameters[matrix.weight]
        dead = ~live[matrix.columns]
        gone = dead & ~matrix.constants.isnan() & (matrix.constants != 0)
        if gone.any():
            (bias,) = matrix.biases
            entries = by_column(weight, matrix.axes, matrix.groups)
            yield bias, entries.sum(-1)[:, gone] @ matrix.constants[gone]
        gone = dead & ~matrix.carried.isnan()
        if gone.any() and not dead[matrix.carrier]:
            shares = matrix.carried[gone] / matrix.carried[matrix.carrier]
            turned = weight.movedim(matrix.axes, (0, 1))
            shift = torch.zeros_like(turned)
            shift[:, matrix.carrier] = torch.tensordot(turned[:, gone], shares, ([1], [0]))
            yield matrix.weight, shift.movedim((0, 1), matrix.axes)


def _lives_on(findings: Findings, units: Tensor, kept: Tensor, live: Tensor) -> Tensor:
    sets = findings.channels.sets(units)
    places = kept[sets].nonzero().flatten()
    return torch.where(live[sets[places]], places, -1)


def _removed(findings: Findings, kept: Tensor) -> Iterator[Removed]:
    left = dict(_heads(findings, kept))
    for layer, count in left.items():
        of = len(findings.heads[layer].queries)
        if count < of:
            yield Removed(layer, "head", of - count, of)
    for weight, units in findings.units.items():
        gone = int((~kept[findings.channels.sets(units)]).sum())
        if layer_of(weight) in left:
            heads = len(findings.heads[layer_of(weight)].queries)
            gone -= (heads - left[layer_of(weight)]) * units.numel() // heads
        if gone:
            recurrent = weight.rpartition(".")[2].startswith(("weight_ih", "weight_hh"))
            kind = "hidden unit" if recurrent else KINDS[findings.parameters[weight].dim()]
            yield Removed(owner_of(weight), kind, gone, units.numel())


def _by_layer(found: Iterable[Stranded]) -> Iterator[HeldBack]:
    """Tell of each layer once, with the most dead units that any of its weights has."""
    most: dict[str, Stranded] = {}
    for one in found:
        layer = layer_of(one.parameter)
        if layer not in most or one.units > most[layer].units:
            most[layer] = one
    for layer, one in most.items():
        yield HeldBack(layer, one.units, one.reason)


def _left(
    findings: Findings, matrices: list[Matrix], live: Tensor, unread: Tensor
) -> Iterator[HeldBack]:
    """Tell what holds units back that compaction doesn't understand, or can't make up for.

    Args:
        findings: of the forward.
        matrices: its weights.
        live: which sets of channels live.
        unread: those of them that only a norm's mean needs.
    """
    told: set[tuple[str, str]] = set()
    for hold in findings.holds:
        for weight, units in findings.units.items():
            held = torch.isin(units, hold.channels) & live[findings.channels.sets(units)]
            key = (owner_of(weight), hold.reason)
            if held.any() and key not in told:
                told.add(key)
                yield HeldBack(key[0], int(held.sum()), hold.reason)
    for weight, units in findings.units.items():
        count = int(unread[findings.channels.sets(units)].sum())
        if count:
            yield HeldBack(owner_of(weight), count, _UNREAD)
    reached = {m.weight: m.filled[:, live[m.columns]].any(1) for m in matrices}
    yield from _silent(findings, reached, live & ~unread)


def _filling(findings: Findings, kept: Tensor, live: Tensor) -> Iterator[HeldBack]:
    """Tell of dead rows that make heads as wide as the widest."""
    for layer, heads in findings.heads.items():
        sets = findings.channels.sets(torch.cat([heads.queries, heads.queries, heads.values], 1))
        dead = int((kept[sets] & ~live[sets]).sum())
        if dead and live[sets].any():
            yield HeldBack(layer, dead, _FILLING)


def _unread_in_groups(findings: Findings, matrices: list[Matrix], live: Tensor) -> Tensor:
    """Return channels of groups that live, which no weight reads themselves."""
    by_weight = {(m.weight, m.axes, m.groups): m for m in matrices}
    empty = torch.empty(0, dtype=torch.long)
    seen, read, whole = [empty], [empty], [empty]
    for use in findings.uses:
        matrix = by_weight[use.weight, use.axes, use.groups]
        seen.append(use.columns)
        read.append(use.columns[matrix.filled[live[matrix.rows]].any(0)])
        if use.groups > 1:
            whole.append(use.whole[live[findings.channels.sets(use.whole)]])
    channels = torch.cat(whole)
    return channels[torch.isin(channels, torch.cat(seen)) & ~torch.isin(channels, torch.cat(read))]


def _together(findings: Findings, held: Tensor) -> Iterator[HeldBack]:
    """Tell of layers whose last unit can't go, and takes others with it."""
    for weight, units in findings.units.items():
        count = int(held[findings.channels.sets(units)].sum())
        if count > 1 and layer_of(weight) not in findings.heads:
            yield HeldBack(owner_of(weight), count, _LAST)


def _silent(findings: Findings, reached: Mapping[str, Tensor], live: Tensor) -> Iterator[HeldBack]:
    """Tell of units that no weight reaches, that stay, and that nothing was said of."""
    told = torch.cat([torch.empty(0, dtype=torch.long), *(h.channels for h in findings.holds)])
    members = findings.channels.sets(torch.arange(len(findings.channels))).bincount()
    for weight, units in findings.units.items():
        sets = findings.channels.sets(units)
        silent = ~reached.get(weight, torch.ones(0, dtype=torch.bool))
        if len(silent) != len(units):  # gates have several rows a unit
            continue
        stays = silent & live[sets] & (sets != PINNED) & ~torch.isin(units, told)
        tied = members[sets] > 1
        for some, why in ((stays & tied, _TIED), (stays & ~tied, _UNKNOWN)):
            if some.any():
                yield HeldBack(owner_of(weight), int(some.sum()), why)
