"""An attention layer's projections, looked at: what each weight reads, and gives.

torch's own attention runs in one function that shows neither the heads' outputs nor the gradients
at the projections. Fisher information, input norms and activations need both.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune.pruning.layers.attention import ArrangedCall, attend, batch_first, merged_mask


def arranged(
    layer: nn.MultiheadAttention, args: Sequence[Any], named: Mapping[str, Any]
) -> ArrangedCall:
    """Return the arguments of a call in one form, detached, without dropout.

    Args:
        layer: what was called.
        args: by place.
        named: by name.
    """
    bound = _SIGNATURE.bind(layer, *args, **named)
    given = {name: _detached(value) for name, value in bound.arguments.items() if name != "self"}
    # One tensor stays one.
    if bound.arguments["query"] is bound.arguments["key"]:
        given["query"] = given["key"]
    if bound.arguments["value"] is bound.arguments["key"]:
        given["value"] = given["key"]
    query = given["query"]
    mask = merged_mask(layer, query, given.get("attn_mask"), given.get("key_padding_mask"))
    return ArrangedCall(batch_first(layer, query, given["key"], given["value"]), mask)


def uses(
    layer: nn.MultiheadAttention, args: Sequence[Any], named: Mapping[str, Any]
) -> list[tuple[int, Tensor]]:
    """Return the weights of an attention layer, each with how many positions a call used it at.

    Args:
        layer: what was called.
        args: by place.
        named: by name.

    >>> layer, x = nn.MultiheadAttention(4, 2, batch_first=True), torch.zeros(1, 5, 4)
    >>> [(count, tuple(weight.shape)) for count, weight in uses(layer, (x, x, x), {})]
    [(5, (12, 4)), (5, (4, 4))]
    """
    found: list[tuple[int, Tensor]] = []

    def note(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found.append((x.shape[:-1].numel(), weight.detach()))
        return functional.linear(x, weight, bias)

    attend(layer, arranged(layer, args, named), need_weights=False, project=note)
    return found


@dataclass(slots=True)
class Projections:
    """Follows what each weight of one call reads, and what gradients come back to it."""

    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    """What each weight reads, ``(batch, time, in)``; a packed one what each third of it reads."""
    opened: dict[str, list[Tensor]] = field(default_factory=dict)
    """Zeros that are added to what it makes of them, for their gradient."""
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    """What it makes of them."""

    def __call__(self, name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply, and note."""
        made = functional.linear(x, weight.detach(), None if bias is None else bias.detach())
        zeros = torch.zeros_like(made).requires_grad_()
        self.inputs.setdefault(name, []).append(x)
        self.opened.setdefault(name, []).append(zeros)
        self.outputs.setdefault(name, []).append(made)
        return made + zeros


def project_again(
    layer: nn.MultiheadAttention, args: Sequence[Tensor], *, need_weights: bool = False
) -> tuple[Projections, Tensor, Tensor | None]:
    """Compute what a call did in a graph of its own, its projections followed. Leaves dropout out.

    Args:
        layer: what was called.
        args: queries, keys, values and, if there is one, the mask, as `arranged` gives them.
        need_weights: as for `attend`.

    Returns:
        What was followed, the output with the axes that the layer gives it, and what attention
        weights `attend` returns.
    """
    seen = Projections()
    call = ArrangedCall((args[0], args[1], args[2]), args[3] if len(args) > 3 else None)
    with torch.enable_grad():
        output, weights = attend(layer, call, need_weights=need_weights, project=seen)
        return seen, output if layer.batch_first else output.transpose(0, 1), weights


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


_SIGNATURE: Final = inspect.signature(nn.MultiheadAttention.forward)
