"""Per-sample gradients of a layer: which inputs meet which output gradients.

Each weight matrix multiplies inputs at some *positions* of a sample: one for a Linear on vectors,
every place of the image for a Conv, every time step for a recurrent layer. The gradient of one
sample in the weight is the sum over its positions of (output gradient) x (input).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune.pruning.evidence.lookups import squared_lookups, squared_row_gradients
from rayprune.pruning.evidence.patches import ones_written, patches, written
from rayprune.pruning.layers.attention_projections import project_again
from rayprune.pruning.layers.kinds import kind_of
from rayprune.pruning.layers.parametrised import effective
from rayprune.pruning.layers.recurrent import unroll
from rayprune.pruning.precision import scored

# Floats of per-sample gradients at a time: small enough for a core's cache to help.
CHUNK = 1 << 22
TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, slots=True)
class LayerSamples:
    """What one weight sees of some samples."""

    inputs: Tensor
    """Shape ``(samples, positions, groups, in)``."""
    deltas: Tensor | None
    """Gradients at its outputs, ``(samples, positions, groups, out)``; None where not asked for."""


Call = tuple[Sequence[Tensor], Sequence["Tensor | None"]]
"""What a layer was called with (its input, and a recurrent layer's initial states), and the
gradients at its outputs (a recurrent layer's final states too)."""


def squared_gradients(layer: nn.Module, calls: Sequence[Call], samples: int) -> dict[str, Tensor]:
    """Return the sum over samples of the squared gradient in each weight of a layer.

    Args:
        layer: a maskable one, with torch's own forward.
        calls: those of one pass; a sample's gradient is the sum over all of them.
        samples: of the minibatch. Where a module folds time into the batch, each sample's steps
            lie side by side and are gathered again.

    Returns:
        Shaped like the weights, by their name in the layer.
    """
    if isinstance(layer, nn.Embedding):
        return {"weight": _looked_up(layer, calls, samples)}
    rows = [samples_of(layer, args, deltas, samples) for args, deltas in calls]
    sums: dict[str, Tensor] = {}
    for key in rows[0]:
        for together in joined([row[key] for row in rows]):
            squares = summed_squares(together).view_as(effective(layer, key))
            sums[key] = squares if key not in sums else sums[key] + squares
    return sums


def squared_inputs(layer: nn.Module, args: Sequence[Tensor], samples: int) -> dict[str, Tensor]:
    """Return the sum over samples and positions of the square of each weight's input, in one call.

    Returns:
        Shaped like the weights, with one row for all where they read the same, by their name.
    """
    if isinstance(layer, nn.Embedding):
        return {"weight": squared_lookups(layer, args[0])}
    if isinstance(layer, TRANSPOSED):
        return {"weight": _squares_before_transposed(layer, args[0].detach())}
    found: dict[str, Tensor] = {}
    for key, rows in samples_of(layer, args, (), samples).items():
        weight = effective(layer, key)
        squares = scored(rows.inputs).square().sum(dim=(0, 1))[:, None, :]
        groups = len(squares)
        shaped = squares.expand(-1, len(weight) // groups if groups > 1 else 1, -1)
        found[key] = shaped.reshape(-1, *weight.shape[1:])
    return found


def samples_of(
    layer: nn.Module, args: Sequence[Tensor], deltas: Sequence[Tensor | None], samples: int
) -> dict[str, LayerSamples]:
    """Return the rows of each weight of a layer in one call; see `squared_gradients`.

    Args:
        layer: a maskable one that isn't an Embedding.
        args: as `rayprune.pruning.evidence.layer_calls.LayerCall` has them.
        deltas: the gradients at its outputs; empty if only the inputs are asked for.
        samples: of the minibatch.
    """
    if kind_of(layer).recurrent:
        return _recurrent_rows(layer, args, deltas)
    if isinstance(layer, nn.MultiheadAttention):
        return _attention_rows(layer, args, deltas, samples)
    x, delta = args[0].detach(), deltas[0] if deltas else None
    if isinstance(layer, TRANSPOSED):
        assert delta is not None
        # Each weight multiplies an input and adds to an output: as in a convolution, turned round.
        inputs, at_outputs = written(layer, delta, x.shape[2:]), _by_group(x, layer.groups)
        return {"weight": LayerSamples(_refold(inputs, samples), _refold(at_outputs, samples))}
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        inputs = patches(layer, x)
        found = None if delta is None else _by_group(delta, layer.groups)
    else:
        if isinstance(layer, nn.Bilinear):
            x = (x[..., :, None] * args[1].detach()[..., None, :]).flatten(-2)
        inputs = x.reshape(len(x), -1, 1, x.shape[-1])
        found = None if delta is None else delta.reshape(len(x), -1, 1, delta.shape[-1])
    found = None if found is None else _refold(found, samples)
    return {"weight": LayerSamples(_refold(inputs, samples), found)}


def summed_squares(rows: LayerSamples) -> Tensor:
    """Return the sum over samples of the squared gradient in each weight.

    Args:
        rows: with deltas.

    Returns:
        Shape ``(groups, out, in)``.

    >>> inputs, deltas = torch.tensor([[[[1.0]]], [[[2.0]]]]), torch.tensor([[[[3.0]]], [[[1.0]]]])
    >>> summed_squares(LayerSamples(inputs, deltas))
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


def _by_group(values: Tensor, groups: int) -> Tensor:
    """Reshape ``(n, channels, *places)`` to ``(n, places, groups, channels of a group)``."""
    shaped = values.reshape(len(values), groups, values.shape[1] // groups, -1)
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


def _looked_up(layer: nn.Embedding, calls: Sequence[Call], samples: int) -> Tensor:
    pairs = [(args[0], deltas[0]) for args, deltas in calls if deltas[0] is not None]
    indices = [index.reshape(samples, -1) for index, _ in pairs]
    deltas = [delta.reshape(samples, -1, layer.embedding_dim) for _, delta in pairs]
    return squared_row_gradients(layer, torch.cat(indices, 1), torch.cat(deltas, 1), samples)


def _squares_before_transposed(layer: Any, x: Tensor) -> Tensor:
    """Return the squared norm of what each weight multiplies, without what padding cuts off."""
    squares = scored(x).square().sum(0).flatten(1) @ scored(ones_written(layer, x))
    shape = layer.weight.shape
    return squares.view(shape[0], 1, *shape[2:]).expand(shape)


def _recurrent_rows(
    layer: nn.Module, args: Sequence[Tensor], deltas: Sequence[Tensor | None]
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
            rows[f"weight_{kind}{strand.suffix}"] = LayerSamples(
                inputs.detach().unsqueeze(2), None if delta is None else delta.unsqueeze(2)
            )
    return rows
