"""Per-sample gradients of a layer: which inputs meet which output gradients.

Each weight matrix multiplies inputs at some *positions* of a sample: one for a Linear on vectors,
every place of the image for a Conv, every time step for a recurrent layer. The gradient of one
sample in the weight is the sum over its positions of (output gradient) x (input).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune.pruning.layers.attention_projections import project_again
from rayprune.pruning.layers.recurrent import unroll
from rayprune.pruning.precision import scored

# Floats of per-sample gradients at a time: small enough for a core's cache to help.
CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class LayerSamples:
    """What one weight sees of some samples."""

    inputs: Tensor
    """Shape ``(samples, positions, groups, in)``."""
    deltas: Tensor | None
    """Gradients at its outputs, ``(samples, positions, groups, out)``; None where not asked for."""


def samples_of(
    layer: nn.Module, args: Sequence[Tensor], deltas: Sequence[Tensor | None], samples: int
) -> dict[str, LayerSamples]:
    """Return the rows of each weight of a layer in one call.

    Args:
        layer: Linear, Conv1d, Conv2d, LSTM, GRU or MultiheadAttention.
        args: as `rayprune.pruning.evidence.layer_calls.LayerCall` has them.
        deltas: the gradients at its outputs (a recurrent layer's final states too); empty if only
            the inputs are asked for.
        samples: of the minibatch. Where a module folds time into the batch, each sample's steps
            lie side by side and are gathered again.
    """
    if isinstance(layer, nn.RNNBase):
        return _recurrent_rows(layer, args, deltas)
    if isinstance(layer, nn.MultiheadAttention):
        return _attention_rows(layer, args, deltas, samples)
    x, delta = args[0].detach(), deltas[0] if deltas else None
    if isinstance(layer, nn.Linear):
        inputs = x.reshape(len(x), -1, 1, x.shape[-1])
        at_outputs = None if delta is None else delta.reshape(len(x), -1, 1, delta.shape[-1])
    else:
        assert isinstance(layer, (nn.Conv1d, nn.Conv2d))
        inputs = _patches(layer, x)
        groups = layer.groups
        at_outputs = None
        if delta is not None:
            shaped = delta.reshape(len(x), groups, delta.shape[1] // groups, -1)
            at_outputs = shaped.permute(0, 3, 1, 2)
    if at_outputs is not None:
        at_outputs = _refold(at_outputs, samples)
    return {"weight": LayerSamples(_refold(inputs, samples), at_outputs)}


def squared_gradients(rows: LayerSamples) -> Tensor:
    """Return the sum over samples of the squared gradient in each weight.

    Args:
        rows: with deltas.

    Returns:
        Shape ``(groups, out, in)``.

    >>> inputs, deltas = torch.tensor([[[[1.0]]], [[[2.0]]]]), torch.tensor([[[[3.0]]], [[[1.0]]]])
    >>> squared_gradients(LayerSamples(inputs, deltas))
    tensor([[[13.]]])
    """
    assert rows.deltas is not None
    inputs, deltas = scored(rows.inputs), scored(rows.deltas)
    samples, positions, groups, width = inputs.shape
    if positions == 1 and groups == 1:
        # One outer product a sample, whose square is the outer product of the squares.
        return (deltas.reshape(samples, -1).square().T @ inputs.reshape(samples, -1).square())[None]
    total = inputs.new_zeros(groups, deltas.shape[-1], width)
    step = max(1, CHUNK // total.numel())
    for start in range(0, samples, step):
        piece = slice(start, start + step)
        x = inputs[piece].permute(0, 2, 1, 3)
        each = deltas[piece].permute(0, 2, 3, 1) @ x
        total += each.square_().sum(dim=0)
    return total


def squared_inputs(rows: LayerSamples) -> Tensor:
    """Return the sum over samples and positions of each squared input, ``(groups, 1, in)``."""
    return scored(rows.inputs).square().sum(dim=(0, 1))[:, None, :]


def joined(rows: Sequence[LayerSamples]) -> list[LayerSamples]:
    """Join the calls of one layer in one pass: a sample's gradient is the sum over all of them."""
    if len({len(row.inputs) for row in rows}) > 1:
        return list(rows)
    deltas = [row.deltas for row in rows if row.deltas is not None]
    inputs = [row.inputs for row in rows if row.deltas is not None]
    return [LayerSamples(torch.cat(inputs, 1), torch.cat(deltas, 1))] if deltas else []


def _refold(rows: Tensor, samples: int) -> Tensor:
    if len(rows) == samples or len(rows) % samples:
        return rows
    return rows.reshape(samples, -1, *rows.shape[2:])


def _patches(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """Return what each place of a Conv's output sees, ``(n, places, groups, in * kernel)``."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if isinstance(layer, nn.Conv1d):
        x = x.unsqueeze(2)
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
    columns: Tensor = functional.unfold(x, kernel, dilation=dilation, stride=stride)
    count, _, places = columns.shape
    width = x.shape[1] // layer.groups * math.prod(kernel)
    shaped = columns.reshape(count, layer.groups, width, places)
    return shaped.permute(0, 3, 1, 2)


def _attention_rows(
    layer: nn.MultiheadAttention,
    args: Sequence[Tensor],
    deltas: Sequence[Tensor | None],
    samples: int,
) -> dict[str, LayerSamples]:
    """Return what each projection reads, with the gradients that come back to it.

    A packed weight is seen in groups of rows that read the same, as many as it takes for all to be
    of one size: one where a sequence attends to itself.
    """
    at_weights = deltas[1] if len(deltas) > 1 else None
    seen, output, weights = project_again(layer, args, need_weights=at_weights is not None)
    known = [] if not deltas or deltas[0] is None else [(output, deltas[0])]
    if at_weights is not None and weights is not None:
        averaged = at_weights.numel() < weights.numel()
        known.append((weights.mean(1) if averaged else weights, at_weights))
    opened = [zeros for each in seen.opened.values() for zeros in each]
    gradients: list[Tensor | None] = [None] * len(opened)
    if known:
        ends = [end for end, _ in known]
        at_ends = [delta.reshape(end.shape) for end, delta in known]  # a batch may be left out
        gradients = list(torch.autograd.grad(ends, opened, at_ends, allow_unused=True))
    rows: dict[str, LayerSamples] = {}
    for name, inputs in seen.inputs.items():
        sizes = [made.shape[-1] for made in seen.outputs[name]]
        size, longest = math.gcd(*sizes), max(x.shape[1] for x in inputs)
        repeated = [
            _padded(x, longest)[:, :, None].expand(-1, -1, rows_of // size, -1)
            for x, rows_of in zip(inputs, sizes, strict=True)
        ]
        found = [gradients.pop(0) for _ in inputs]
        at_rows = None
        if known:
            whole = [
                _padded(torch.zeros_like(z) if delta is None else delta, longest)
                for z, delta in zip(seen.outputs[name], found, strict=True)
            ]
            at_rows = _refold(torch.cat(whole, -1).unflatten(-1, (-1, size)), samples)
        rows[name] = LayerSamples(_refold(torch.cat(repeated, 2), samples), at_rows)
    return rows


def _padded(x: Tensor, length: int) -> Tensor:
    return functional.pad(x, (0, 0, 0, length - x.shape[1]))


def _recurrent_rows(
    layer: nn.RNNBase, args: Sequence[Tensor], deltas: Sequence[Tensor | None]
) -> dict[str, LayerSamples]:
    with torch.enable_grad():
        run = unroll(layer, args[0], args[1:])
    ends = zip((run.output, *run.finals), deltas, strict=False)  # no deltas: the inputs will do
    known = [(end, delta) for end, delta in ends if delta is not None]
    gates: list[Tensor | None] = [None] * (2 * len(run.directions))
    if known:
        opened = [gate for s in run.directions for gate in (s.input_gates, s.hidden_gates)]
        outputs, at_outputs = zip(*known, strict=True)
        gates = list(torch.autograd.grad(outputs, opened, at_outputs, allow_unused=True))
    rows: dict[str, LayerSamples] = {}
    for strand in run.directions:
        for kind, inputs in (("ih", strand.inputs), ("hh", strand.hidden)):
            delta = gates.pop(0)
            rows[f"weight_{kind}_{strand.suffix}"] = LayerSamples(
                inputs.detach().unsqueeze(2), None if delta is None else delta.unsqueeze(2)
            )
    return rows
