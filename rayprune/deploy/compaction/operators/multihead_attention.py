"""How attention layers read units, and make new ones.

A row of queries meets the same row of keys, and nothing else: they go together. Their product can
go if either is zero whatever the inputs are; and if the row of keys is any constant, for all scores
of a query then shift by the same. A head that nothing reads needs none of its queries and keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.deploy.compaction.abstract_values import (
    NAN,
    AbstractValue,
    Columns,
    along,
    amplitudes,
    columns,
    unknown,
)
from rayprune.deploy.compaction.attention.heads import Heads
from rayprune.deploy.compaction.findings import (
    Arguments,
    Findings,
    Reliance,
    Shapes,
    Use,
    layer_of,
    named,
)
from rayprune.deploy.compaction.operators.linear_and_convolution import constant_rows
from rayprune.pruning.layers.attention import OUT, PACKED, SEPARATE


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of queries, keys or values."""

    channels: Tensor
    """Shape ``(rows,)``."""
    constants: Tensor
    """What each is whatever the inputs are, else NaN; float64, shape ``(rows,)``."""


def read_attention(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read a layer of torch's, or a narrow one."""
    names = dict(zip(given["names"], (p.parameter for p in given["params"]), strict=True))
    layer = layer_of(names.get(PACKED) or names[SEPARATE[0]])
    queries, keys, values = _project(findings, given, names, layer)
    keys, values = _extend(findings, given, names, keys, values)
    findings.channels.tie(queries.channels, keys.channels)
    for mask in ("key_padding_mask", "attn_mask"):
        if given[mask] is not None:
            findings.hold(given[mask].channels, f"{named(layer)} adds them to scores")
    count = given["heads"]
    by_number = given["need_weights"] or _has_mask_a_head(given)
    heads = Heads(
        queries.channels.unflatten(0, (count, -1)),
        values.channels.unflatten(0, (count, -1)),
        tuple(given["dense"]),
        whole=by_number,
    )
    findings.heads[layer] = heads
    read = ~(_is(queries, 0.0) | ~keys.constants.isnan()).unflatten(0, (count, -1))
    for of_queries, of_values, needed in zip(heads.queries, heads.values, read, strict=True):
        findings.reliances.append(Reliance(of_values, of_queries[needed]))
        if given["need_weights"]:
            findings.hold(of_queries[needed], f"the weights of {named(layer)} are read")
    if by_number:
        what = "weights are read" if given["need_weights"] else "`attn_mask` has one for each head"
        findings.note(torch.cat([heads.queries, heads.values], 1), f"no head can go: its {what}")
    mixed = _mixed(findings, given, values)
    return [_out(findings, names, mixed, shapes[0]), unknown(shapes[1])]


def _project(
    findings: Findings, given: Arguments, names: Mapping[str, str], layer: str
) -> tuple[_Rows, _Rows, _Rows]:
    inputs = [given[name] for name in ("query", "key", "value")]
    seen = {id(value): columns(value, -1) for value in inputs}
    weights = [names[PACKED]] * 3 if PACKED in names else [names[name] for name in SEPARATE]
    bias = names.get("in_proj_bias", "")
    # Three weights share one bias: constants that they read can't be folded into it.
    own_bias = bias if PACKED in names else ""
    found: list[_Rows] = []
    sizes = _sizes(findings, names)
    starts = [0, sizes[0], 2 * sizes[0]]
    uses: dict[tuple[str, int], Use] = {}
    for weight, value, start, size in zip(weights, inputs, starts, sizes, strict=True):
        key = (weight, id(value))
        if key not in uses:
            uses[key] = _use(findings, weight, own_bias, (value, seen[id(value)]), layer)
            findings.uses.append(uses[key])
        rows = slice(start, start + size) if PACKED in names else slice(None)
        constants = constant_rows(findings, uses[key])[rows]
        if bias and not own_bias:
            constants = constants + findings.parameters[bias][start : start + size]
        found.append(_Rows(uses[key].rows[rows], constants))
    if bias and not own_bias:
        findings.carry(bias, 0, torch.cat([rows.channels for rows in found]))
    return found[0], found[1], found[2]


def _sizes(findings: Findings, names: Mapping[str, str]) -> list[int]:
    """Return how many rows there are of queries, keys and values."""
    out = findings.parameters[names[OUT]].shape[1]
    if PACKED in names:
        queries = (findings.parameters[names[PACKED]].shape[0] - out) // 2
    else:
        queries = findings.parameters[names[SEPARATE[0]]].shape[0]
    return [queries, queries, out]


def _use(
    findings: Findings, weight: str, bias: str, read: tuple[AbstractValue, Columns], layer: str
) -> Use:
    value, seen = read
    constants = seen.constants
    stuck = constants.isnan() if bias else constants.isnan() | (constants != 0)
    return Use(
        weight=weight,
        bias=bias,
        rows=findings.units_of(weight, findings.parameters[weight].shape[0]),
        columns=findings.columns_of(value, seen, named(layer)),
        constants=constants,
        carried=amplitudes(seen.patterns.where(stuck, 0.0)),
    )


def _extend(
    findings: Findings, given: Arguments, names: Mapping[str, str], keys: _Rows, values: _Rows
) -> tuple[_Rows, _Rows]:
    """Take in the key that is learned, and the one that is zero: constants must be theirs, too."""
    found = []
    for rows, name in ((keys, "bias_k"), (values, "bias_v")):
        constants = rows.constants
        if name in names:
            findings.carry(names[name], 2, rows.channels)
            constants = _same(constants, findings.parameters[names[name]].flatten())
        if given["zero_key"]:
            constants = _same(constants, torch.zeros_like(constants))
        found.append(_Rows(rows.channels, constants))
    return found[0], found[1]


def _mixed(findings: Findings, given: Arguments, values: _Rows) -> _Rows:
    """Return what the heads give: of values that are constant the same, where weights sum to one.

    Where all keys are masked they sum to nothing.
    """
    masked = given["key_padding_mask"] is not None or given["attn_mask"] is not None
    dropped = findings.live and given["dropout"] > 0
    if masked or dropped:
        return _Rows(values.channels, values.constants.where(values.constants == 0, NAN))
    return values


def _out(
    findings: Findings, names: Mapping[str, str], mixed: _Rows, shape: torch.Size
) -> AbstractValue:
    weight, bias = names[OUT], names.get("out_proj.bias", "")
    stuck = mixed.constants.where(mixed.constants != 0, NAN)
    use = Use(
        weight=weight,
        bias=bias,
        rows=findings.units_of(weight, shape[-1]),
        columns=mixed.channels,
        constants=mixed.constants,
        carried=torch.full_like(stuck, NAN) if bias else stuck,
    )
    findings.uses.append(use)
    known = along(constant_rows(findings, use), shape, -1)
    return AbstractValue(along(use.rows, shape, -1), known)


def _has_mask_a_head(given: Arguments) -> bool:
    mask = given["attn_mask"]
    return mask is not None and mask.channels.dim() == 3 and mask.channels.shape[0] > 1


def _is(rows: _Rows, value: float) -> Tensor:
    return rows.constants == value


def _same(constants: Tensor, others: Tensor) -> Tensor:
    return constants.where(constants == others, NAN)
