"""Selection: the importance scores of a scope, and which of its weights stay; changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rayprune.errors import InputError, RunError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.criteria import Criterion, lookup
from rayprune.pruning.evidence.evidence import NOTHING, Evidence
from rayprune.pruning.granularity import Named, Part, granularity_of
from rayprune.pruning.granularity.layer import LayerPart
from rayprune.pruning.granularity.weight import WeightPart
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.topk import find_cut, keep_above
from rayprune.pruning.precision import scored
from rayprune.pruning.seeds import generator_for
from rayprune.pruning.update.budgets import Scope
from rayprune.pruning.update.thresholds import threshold_of

Eligible = Callable[[str], "Tensor | None"]
"""Full parameter name -> the weights that may still be chosen; None for all of them."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    scores: Tensor
    """What competes."""
    within: Named
    """The weights' own scores, of a part that chooses inside of its units."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Scores and selects for one mask update."""

    config: PruningConfig
    weights: Named
    """Every prunable parameter by full name."""
    eligible: Eligible
    seed: int
    index: int
    """How many mask updates came before: every one draws its own random scores."""
    evidence: Evidence = NOTHING
    """What was gathered for the criterion beside the weights."""
    returns: Mapping[str, float] = field(default_factory=dict)
    """What the driver has posted for criterion ``return``, by unit."""

    def after(self, keeps: Mapping[str, Tensor], config: PruningConfig) -> Selection:
        """Return the selection of another phase, which can't choose what is dropped already.

        Args:
            keeps: what stays, by full parameter name.
            config: of the phase.
        """
        kept = dict(keeps)

        def eligible(name: str) -> Tensor | None:
            free, keep = self.eligible(name), kept.get(name)
            return keep if free is None else free if keep is None else free & keep

        return replace(self, config=config, eligible=eligible)

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
        weight = scored(weight.detach())
        scores = self._call(lookup(self.config.criterion), name, weight)
        return _check_shape(self.config.criterion, scores, weight.shape)

    def all_scores(self, layers: Iterable[PrunableLayer]) -> dict[str, Tensor]:
        """Score every weight of some layers; a unit's score stands at each of its weights."""
        if lookup(self.config.criterion).scores != "units":
            names = [layer.full_name(name) for layer in layers for name in layer.parameters]
            return {name: self.score(name, self.weights[name]) for name in names}
        scores: dict[str, Tensor] = {}
        for part in granularity_of(self.config.granularity).parts(layers):
            scores |= dict(part.expand(self._ranked(part).scores, {}))
        return scores

    def keep_scope(self, scope: Scope, taken: float = 1.0) -> dict[str, Tensor]:
        """Choose what stays, so that exactly ``scope.keep`` weights (or units) do.

        Args:
            scope: what competes, and how much of it stays.
            taken: share of what would go that goes, rounded down; the lowest scores first.

        Returns:
            Bool tensors by full parameter name, True = keep; empty when nothing must go.

        Raises:
            NonFiniteError: a score is NaN.
        """
        parts = scope.parts
        live = [self._live(part) for part in parts]
        left = sum(_count(part, alive) for part, alive in zip(parts, live, strict=True))
        keep_count = left - int(taken * (left - scope.keep))
        if left <= keep_count:
            return {}
        # In pieces and without a copy of all scores, where the criterion allows it.
        criterion = lookup(self.config.criterion)
        in_pieces = criterion.elementwise and all(isinstance(x, WeightPart) for x in parts)
        transform = criterion if in_pieces else None
        ranked = [self._raw(part) if in_pieces else self._ranked(part) for part in parts]
        names = [part.parameters[0] for part in parts]
        scores = [rank.scores for rank in ranked]
        cut = find_cut(scores, keep_count, live=live, names=names, transform=transform)
        del scores
        keeps: dict[str, Tensor] = {}
        ties = cut.ties
        ranked.reverse()
        for part, alive in zip(parts, live, strict=True):
            # Popped, so that the scores' memory goes as the masks' comes.
            rank = ranked.pop()
            keep, ties = keep_above(rank.scores, cut, ties, alive, transform)
            keeps.update(part.expand(keep, rank.within))
        return keeps

    def keep_above_threshold(
        self, scopes: Sequence[Scope], spec: Mapping[str, float], share: float, taken: float = 1.0
    ) -> dict[str, Tensor]:
        """Choose what scores above a threshold, in each scope of a budget.

        Args:
            scopes: the budget's parts, as they compete; what they would keep is not read.
            spec: see `rayprune.pruning.update.thresholds.threshold_of`.
            share: what the schedule scales the threshold by.
            taken: as for `keep_scope`.

        Returns:
            Bool tensors by full parameter name, True = keep.

        Raises:
            RunError: nothing in the whole budget would stay.
            NonFiniteError: a score is NaN.
        """
        keeps: dict[str, Tensor] = {}
        largest, survivors = -math.inf, False
        for scope in scopes:
            names = [part.parameters[0] for part in scope.parts]
            ranked = [self._floored(part) for part in scope.parts]
            scores = [rank.scores for rank in ranked]
            highest = max(float(score.max()) for score in scores)
            threshold = threshold_of(spec, scores, share, names)
            if threshold is None:
                return {}
            largest, survivors = max(largest, highest), survivors or highest > threshold
            above = [rank.scores > threshold for rank in ranked]
            if taken < 1.0:
                keep = sum(int(torch.count_nonzero(stays)) for stays in above)
                keeps.update(self.keep_scope(replace(scope, keep=keep), taken))
                continue
            for part, rank, stays in zip(scope.parts, ranked, above, strict=True):
                keeps.update(part.expand(stays, rank.within))
        if scopes and not survivors:
            raise RunError(
                f"`pruning.threshold` {dict(spec)} would prune every weight of "
                f"{scopes[0].called}: the largest score is {largest:.6g}. Lower the threshold."
            )
        return keeps

    def _call(self, criterion: Criterion, name: str, weight: Tensor) -> Tensor:
        """Call a criterion with the inputs that it asks for."""
        own: Mapping[str, Callable[[], object]] = {
            "weight": lambda: weight,
            "generator": lambda: generator_for(self.seed, name, self.index),
            "lost_return": lambda: lost_return(self.returns, name),
            "estimator": lambda: self.config.evidence["estimator"],
            "permutations": lambda: self.config.evidence["permutations"],
        }
        return criterion(
            **{
                key: own[key]() if key in own else self._gathered(key, name)
                for key in criterion.inputs
            }
        )

    def _gathered(self, key: str, name: str) -> object:
        return self.evidence.get(self.config.criterion, key, name)

    def _live(self, part: Part) -> Tensor | None:
        """Return which weights (or units) may still be chosen."""
        return part.live({name: self.eligible(name) for name in part.parameters})

    def _raw(self, part: Part) -> _Ranked:
        return _Ranked(self.weights[part.parameters[0]].detach(), {})

    def _ranked(self, part: Part) -> _Ranked:
        together = self._together(part)
        if together is not None:
            return _Ranked(together, {})
        scores = {name: self.score(name, self.weights[name]) for name in part.parameters}
        if part.ranks_within:
            scores = {name: self._without_gone(name, score) for name, score in scores.items()}
        pooled = part.pool(scores, self.config.pooling)
        return _Ranked(pooled, scores if part.ranks_within else {})

    def _together(self, part: Part) -> Tensor | None:
        """Score what goes together, where that is no pool of the weights' scores."""
        criterion = lookup(self.config.criterion)
        if isinstance(part, LayerPart) and criterion.needs_returns:
            lost = torch.tensor([lost_return(self.returns, part.unit)])
            return criterion(lost_return=lost)
        if criterion.scores == "units":
            return self._of_units(criterion, part)
        grouped = criterion.grouped
        if grouped is None or isinstance(part, WeightPart) or part.ranks_within:
            return None
        shares = {
            name: self._call(grouped.contribution, name, scored(self.weights[name].detach()))
            for name in part.parameters
        }
        return grouped.finish(part.pool(shares, "sum"))

    def _of_units(self, criterion: Criterion, part: Part) -> Tensor:
        first = part.parameters[0]
        scores = self._call(criterion, first, scored(self.weights[first].detach()))
        return _check_shape(self.config.criterion, scores, torch.Size([part.count]))

    def _without_gone(self, name: str, score: Tensor) -> Tensor:
        free = self.eligible(name)
        return score if free is None else torch.where(free, score, -math.inf)

    def _floored(self, part: Part) -> _Ranked:
        """Rank a part; what can't be chosen any more gets minus infinity."""
        ranked, live = self._ranked(part), self._live(part)
        if live is None:
            return ranked
        return _Ranked(torch.where(live, ranked.scores, -math.inf), ranked.within)


def _count(part: Part, live: Tensor | None) -> int:
    return part.count if live is None else int(torch.count_nonzero(live))


def lost_return(returns: Mapping[str, float], unit: str) -> float:
    """Return the return lost without a unit.

    Raises:
        InputError: it was not posted.
    """
    if unit not in returns:
        raise InputError(
            f"The criterion needs the return lost without {unit!r}, which was not measured. "
            "Use `rayprune train`, call rayprune.rllib.post_layer_returns after each train(), "
            "or take another criterion."
        )
    return returns[unit]


def _check_shape(criterion: str, scores: object, shape: torch.Size) -> Tensor:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        given = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"Criterion {criterion!r} must return a float tensor, but gave {given}.")
    if scores.shape != shape:
        raise InputError(
            f"Criterion {criterion!r} must return scores of shape {tuple(shape)}, "
            f"but gave {tuple(scores.shape)}."
        )
    return scores.detach()
