"""The calls of a forward whose sizes don't fit what is left of their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.abstract_values import AbstractValue
from rayprune.deploy.compaction.findings import Findings
from rayprune.deploy.compaction.module_calls import is_operator, operator_name
from rayprune.deploy.compaction.operators.tensors import is_elementwise
from rayprune.deploy.compaction.sizes.literals import (
    LITERALS,
    Change,
    Fit,
    constants_cut,
)
from rayprune.deploy.compaction.trace import Trace
from rayprune.pruning.layers.resizing import tells_sizes


@dataclass(frozen=True, slots=True)
class Misfit:
    """One call that has a size written into it."""

    module: str | None
    """Whose own forward makes it; None for code that is no module's forward."""
    place: int
    """Which one it is among the operators of that forward."""
    changes: Sequence[Change] | None
    """What it would take; None if nothing does."""
    channels: Sequence[Tensor]
    """Of the tensors that it reads."""
    reason: str


def find_misfits(
    traced: Trace, findings: Findings, module: nn.Module, kept: Tensor
) -> Iterator[Misfit]:
    """Find what would have to change in a forward's code.

    Args:
        traced: the forward.
        findings: of it.
        module: that it is a forward of.
        kept: sets of channels that stay.
    """
    places = _places(traced)
    for node in traced.graph.nodes:
        if not is_operator(node) or node not in findings.given:
            continue
        owner, place = places.get(node, (None, -1))
        # A layer of torch's is told its new sizes itself.
        if owner is not None and tells_sizes(module.get_submodule(owner)):
            continue
        changes = _changes(node, findings, kept)
        if changes is None or changes:
            read = [v.channels for v in _values(findings.given[node])]
            name = operator_name(node)
            why = f"`{name}` is called with sizes that are written into the forward"
            yield Misfit(owner, place, changes, read, why)


def _places(traced: Trace) -> Mapping[fx.Node, tuple[str, int]]:
    return {node: (c.name, place) for c in traced.calls for place, node in enumerate(c.own)}


def _changes(node: fx.Node, findings: Findings, kept: Tensor) -> Sequence[Change] | None:
    name, given = operator_name(node), findings.given[node]
    literals = LITERALS.get(name)
    if literals is None and is_elementwise(node.target):  # type: ignore[arg-type]
        literals = constants_cut
    results = _values(findings.values[node])
    if literals is None or not results:
        return ()
    try:
        return literals(Fit(name, given, results, findings.channels, kept))
    # Also an operator in a form that its rule did not foresee.
    except Exception:
        return None


def _values(tree: object) -> list[AbstractValue]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, AbstractValue)]
