"""One call of an operator, as a rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.abstract_values import AbstractValue
from rayprune.deploy.compaction.findings import Arguments, Findings, Shapes

Run = Callable[[Callable[[AbstractValue], Tensor]], Any]
"""Runs the operator on what a function makes of each of its tensors."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operator with its arguments."""

    findings: Findings
    operator: torch._ops.OpOverload
    given: Arguments
    """By the names of its schema, defaults filled in."""
    shapes: Shapes
    dtype: torch.dtype
    """Of the (first) result."""
    run: Run

    @property
    def name(self) -> str:
        """Without overload: ``layer_norm``."""
        return str(self.operator._overloadpacket.__name__)

    @property
    def tensors(self) -> Sequence[AbstractValue]:
        """All tensors among the arguments, in order."""
        return values_in(self.given)


def values_in(tree: Any) -> list[AbstractValue]:
    """Return the tensors of any nesting of dicts and sequences."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, AbstractValue)]
