"""Selection: the scores of a scope, and which of its weights stay. Changes nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.errors import InputError, RunError
from rayprune.pruning.budgets import PrunableLayer, Scope
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.criteria import ELEMENTWISE, inputs_of, lookup
from rayprune.pruning.granularity import Part
from rayprune.pruning.masks import find_cut, keep_above
from rayprune.pruning.thresholds import threshold_of

Eligible = Callable[[str], "Tensor | None"]
"""Full parameter name -> the weights that may still be chosen; None for all of them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Scores and selects for one mask update."""

    config: PruningConfig
    eligible: Eligible
    seed: int
    index: int
    """How many mask updates came before: every one draws its own random scores."""

    def score(self, name: str, weight: Tensor) -> Tensor:
        """Score one parameter.

        Args:
            name: its full name.
            weight: the parameter.

        Returns:
            Scores shaped like ``weight``; higher = keep.

        Raises:
            InputError: a registered criterion gave something of another shape or kind.
        """
        weight = weight.detach()
        criterion = lookup(self.config.criterion)
        supply: Mapping[str, Callable[[], object]] = {
            "weight": lambda: weight,
            "generator": lambda: generator_for(self.seed, name, self.index),
        }
        scores = criterion(**{key: supply[key]() for key in inputs_of(criterion)})
        return _check_scores(self.config.criterion, scores, weight)

    def keep_scope(self, scope: Scope) -> dict[str, Tensor]:
        """Choose what stays, so that exactly ``scope.keep`` weights (or units) do.

        Returns:
            Bool tensors by full parameter name, True = keep; empty when nothing must go.

        Raises:
            NonFiniteError: a score is NaN.
        """
        parts = [(layer, part) for layer in scope.layers for part in layer.parts(self.config)]
        live = [self._live(layer, part) for layer, part in parts]
        if sum(_count(part, alive) for (_, part), alive in zip(parts, live, strict=True)) <= (
            scope.keep
        ):
            return {}
        names = [layer.full_name(part.parameters[0]) for layer, part in parts]
        # In pieces and without a copy of all scores, where the criterion allows it.
        criterion = lookup(self.config.criterion)
        in_pieces = self.config.granularity == "weight" and criterion in ELEMENTWISE
        transform = criterion if in_pieces else None
        score = self._weights if in_pieces else self._pooled
        scores = [score(layer, part) for layer, part in parts]
        cut = find_cut(scores, scope.keep, live=live, names=names, transform=transform)
        keeps: dict[str, Tensor] = {}
        ties = cut.ties
        scores.reverse()
        for (layer, part), alive in zip(parts, live, strict=True):
            # Popped, so that the scores' memory goes as the masks' comes.
            keep, ties = keep_above(scores.pop(), cut, ties, alive, transform)
            keeps.update(_expanded(layer, part, keep))
        return keeps

    def keep_above_threshold(
        self, scopes: Sequence[Sequence[PrunableLayer]], spec: Mapping[str, float], share: float
    ) -> dict[str, Tensor]:
        """Choose what scores above a threshold, in each scope of a budget.

        Args:
            scopes: the budget's layers, as they compete.
            spec: see `rayprune.pruning.thresholds.threshold_of`.
            share: what the schedule scales the threshold by.

        Returns:
            Bool tensors by full parameter name, True = keep.

        Raises:
            RunError: nothing in the whole budget would stay.
            NonFiniteError: a score is NaN.
        """
        keeps: dict[str, Tensor] = {}
        largest, survivors = -math.inf, False
        for layers in scopes:
            parts = [(layer, part) for layer in layers for part in layer.parts(self.config)]
            names = [layer.full_name(part.parameters[0]) for layer, part in parts]
            scores = [self._ranked(layer, part) for layer, part in parts]
            highest = max(float(score.max()) for score in scores)
            threshold = threshold_of(spec, scores, share, names)
            if threshold is None:
                return {}
            largest, survivors = max(largest, highest), survivors or highest > threshold
            for (layer, part), score in zip(parts, scores, strict=True):
                keeps.update(_expanded(layer, part, score > threshold))
        if scopes and not survivors:
            raise RunError(
                f"`pruning.threshold` {dict(spec)} would prune every weight of {_span(scopes)}: "
                f"the largest score is {largest:.6g}. Lower the threshold."
            )
        return keeps

    def _live(self, layer: PrunableLayer, part: Part) -> Tensor | None:
        """Return which weights (or units, with any weight left) may still be chosen."""
        free = {name: self.eligible(layer.full_name(name)) for name in part.parameters}
        if all(mask is None for mask in free.values()):
            return None
        if part.gates == 0:
            return free[part.parameters[0]]
        weights = layer.parameters
        counts = {
            name: torch.ones_like(weights[name]) if mask is None else mask.to(weights[name].dtype)
            for name, mask in free.items()
        }
        return part.pool(counts, "sum") > 0

    def _weights(self, layer: PrunableLayer, part: Part) -> Tensor:
        return layer.parameters[part.parameters[0]].detach()

    def _pooled(self, layer: PrunableLayer, part: Part) -> Tensor:
        weights = layer.parameters
        scores = {
            name: self.score(layer.full_name(name), weights[name]) for name in part.parameters
        }
        return part.pool(scores, self.config.pooling)

    def _ranked(self, layer: PrunableLayer, part: Part) -> Tensor:
        """Score a part; what can't be chosen any more gets minus infinity."""
        pooled, live = self._pooled(layer, part), self._live(layer, part)
        return pooled if live is None else torch.where(live, pooled, -math.inf)


def _count(part: Part, live: Tensor | None) -> int:
    return part.count if live is None else int(torch.count_nonzero(live))


def generator_for(seed: int, name: str, index: int) -> torch.Generator:
    """Return a CPU generator that depends on nothing else: the same on each rank and device.

    Args:
        seed: the run's.
        name: the parameter's full name.
        index: of the mask update.
    """
    digest = hashlib.blake2b(f"{seed}/{index}/{name}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def _check_scores(criterion: str, scores: object, weight: Tensor) -> Tensor:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        given = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"Criterion {criterion!r} must return a float tensor, but gave {given}.")
    if scores.shape != weight.shape:
        raise InputError(
            f"Criterion {criterion!r} must return scores of shape {tuple(weight.shape)}, "
            f"but gave {tuple(scores.shape)}."
        )
    return scores.detach()


def _expanded(layer: PrunableLayer, part: Part, keep: Tensor) -> dict[str, Tensor]:
    shapes = {name: weight.shape for name, weight in layer.parameters.items()}
    return {layer.full_name(name): mask for name, mask in part.expand(keep, shapes)}


def _span(scopes: Sequence[Sequence[PrunableLayer]]) -> str:
    groups = sorted({layer.group for layers in scopes for layer in layers})
    return f"group {groups[0]!r}" if len(groups) == 1 else f"the groups {groups}"
