"""Weights that a sparsity does not count: those that no mask can reach, or that are left alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from rayprune.pruning.layers.attach import Exclusions, join, not_excluded
from rayprune.pruning.layers.hooks import NORMS
from rayprune.pruning.layers.prunable import PrunableLayer

# What a weight-normalised layer keeps of its lengths beside the directions.
_LENGTHS = ("weight_g", "original0")

MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Uncovered:
    """The weights of a module by what pruning does with them; biases and norms count nowhere."""

    covered: int
    """The prunable weights, protected ones included: what a sparsity is of."""
    not_maskable: Mapping[str, int]
    """Of layers and parameters that have no masks, by full parameter name; 0 before it has a shape.
    """
    frozen: Mapping[str, int]
    """With ``requires_grad=False``, likewise."""
    exempt: Mapping[str, int]
    """Of maskable layers that the granularity or the caller leaves out, likewise."""

    @property
    def total(self) -> int:
        """All weights."""
        parts = (self.not_maskable, self.frozen, self.exempt)
        return self.covered + sum(sum(part.values()) for part in parts)

    def __bool__(self) -> bool:
        return bool(self.not_maskable or self.frozen)

    def line(self) -> str | None:
        """Say it in one line; None where pruning covers all that it can.

        >>> print(Uncovered(52, {"attn.in_proj_weight": 768}, {"enc.weight": 332}, {}).line())
        sparsity is of 52 of 1,152 weights; not covered: attn.in_proj_weight (768); frozen: \
enc.weight (332)
        """
        if not self:
            return None
        parts = {
            "not covered": self.not_maskable,
            "frozen": self.frozen,
            "exempt": self.exempt,
        }
        told = [f"{title}: {_listed(part)}" for title, part in parts.items() if part]
        return "; ".join([f"sparsity is of {self.covered:,} of {self.total:,} weights", *told])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "weights": self.total,
            "covered": self.covered,
            "not_maskable": dict(self.not_maskable),
            "frozen": dict(self.frozen),
            "exempt": dict(self.exempt),
        }


def uncovered_of(
    weights: Mapping[str, nn.Parameter],
    prunable: Sequence[PrunableLayer],
    maskable: Mapping[str, nn.Parameter],
    spared: Collection[str],
) -> Uncovered:
    """Sort a module's weights by what pruning does with them.

    Args:
        weights: all of them; see `weights_of`.
        prunable: the layers that are pruned or protected.
        maskable: every parameter that may hold a mask, by full name.
        spared: names of those that are left alone for being frozen.
    """
    covered = {id(weight) for layer in prunable for weight in layer.parameters.values()}
    held = {id(weight) for weight in maskable.values()}
    alone = {id(weight) for name, weight in maskable.items() if name in spared}
    left = {name: weight for name, weight in weights.items() if id(weight) not in covered}
    return Uncovered(
        covered=sum(layer.total for layer in prunable),
        not_maskable={n: count(w) for n, w in left.items() if id(w) not in held},
        frozen={n: count(w) for n, w in left.items() if id(w) in alone},
        exempt={n: count(w) for n, w in left.items() if id(w) in held - alone},
    )


def weights_of(module: nn.Module, exclude: Exclusions = ()) -> dict[str, nn.Parameter]:
    """Return the parameters of a module that are weights, shared ones once, by full name.

    Weights have two dimensions or more, and are neither biases nor a norm's scales.

    >>> net = nn.Sequential(nn.Embedding(4, 2), nn.LayerNorm([2, 2]), nn.Bilinear(2, 2, 1))
    >>> list(weights_of(net))
    ['0.weight', '2.weight']
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, parameter in _candidates(module, exclude):
        if id(parameter) not in seen:
            found[name] = parameter
            seen.add(id(parameter))
    return found


def count(parameter: nn.Parameter) -> int:
    """Return how many weights a parameter has; 0 before it has a shape."""
    return 0 if is_lazy(parameter) else parameter.numel()


def _candidates(module: nn.Module, exclude: Exclusions) -> Iterator[tuple[str, nn.Parameter]]:
    for name, layer in not_excluded(module, exclude):
        if not isinstance(layer, NORMS):
            for key, parameter in layer.named_parameters(recurse=False):
                if _is_weight(key, parameter):
                    yield join(name, key), parameter


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    if is_lazy(parameter):
        return "bias" not in name
    if parameter.dim() < 2 or "bias" in name or not parameter.numel():
        return False
    # A row or column by itself is a scale or an offset, such as a log-std, unless it says not.
    vector = parameter.numel() == max(parameter.shape)
    return not vector or (name.startswith(("weight", "original")) and name not in _LENGTHS)


def _listed(counts: Mapping[str, int], most: int = MOST_SHOWN) -> str:
    """List names and counts, the largest first.

    >>> _listed({"a": 1, "b": 2000, "c": 3}, most=2)
    'b (2,000), c (3) and 1 more (1)'
    """
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} ({size:,})" for name, size in ranked[:most])
    rest: Collection[int] = [size for _, size in ranked[most:]]
    return f"{shown} and {len(rest)} more ({sum(rest):,})" if rest else shown
