"""The operators without parameters, and the rule that says what each does to units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rayprune.deploy.compaction.abstract_values import AbstractValue
from rayprune.deploy.compaction.operators import (
    attention_products,
    einsum,
    positions,
    products,
    tensors,
)
from rayprune.deploy.compaction.operators.call import Call

Rule = Callable[[Call], "list[AbstractValue] | None"]
"""Reads one call of an operator; None where it is in a form that the rule doesn't know."""

RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(tensors.CREATES, tensors.created),
    **dict.fromkeys(tensors.SAME, tensors.same),
    **dict.fromkeys(tensors.MOVES, tensors.moved),
    **dict.fromkeys(tensors.CUTS, tensors.moved),
    **dict.fromkeys(tensors.POOLS, tensors.pooled),
    **dict.fromkeys(tensors.REDUCTIONS, tensors.reduced),
    **dict.fromkeys(("softmax", "_softmax"), attention_products.normalised),
    "bmm": attention_products.multiplied,
    **dict.fromkeys(("matmul", "mm"), products.multiplied),
    "addmm": products.added,
    "linear": products.turned,
    "einsum": einsum.summed,
    "scaled_dot_product_attention": attention_products.attended,
    **dict.fromkeys(("pad", "constant_pad_nd"), tensors.padded),
    "index": positions.indexed,
    "index_select": positions.index_selected,
    "unfold": positions.windows,
    "pixel_shuffle": positions.pixels_shuffled,
    "glu": positions.gated,
    "prelu": tensors.leaking,
}
"""By operator; what torch tags as pointwise needs none.."""

MIXES: Final[Mapping[str, str]] = {
    "layer_norm": "a LayerNorm takes the mean over all of them",
    "group_norm": "a GroupNorm takes the mean over several of them",
    "softmax": "a softmax compares them with each other",
}
"""Why an operator without a rule holds the units that it reads, where more can be said of it."""


_READ = (
    {"matmul", "mm", "addmm", "linear", "einsum", "prelu"}
    | tensors.MOVES
    | tensors.CUTS
    | tensors.SAME
)


def minds_parameters(call: Call) -> bool:
    """Whether the rule itself says what becomes of parameters among an operator's tensors."""
    return call.name in _READ or (
        call.name not in RULES and tensors.is_elementwise(call.operator) and len(call.shapes) == 1
    )


def rule_of(call: Call) -> Rule | None:
    """Return the rule for an operator, if there is one."""
    if call.name in RULES:
        return RULES[call.name]
    return tensors.elementwise if tensors.is_elementwise(call.operator) else None
