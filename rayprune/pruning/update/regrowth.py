"""Dynamic sparse training: which weights are dropped for which others, and which grow back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rayprune.errors import InputError, NonFiniteError
from rayprune.pruning.evidence.gradients import WindowMean
from rayprune.pruning.granularity import Part, granularity_of
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.topk import keep_top
from rayprune.pruning.measures.itop import Coverage
from rayprune.pruning.packing import packed, unpacked
from rayprune.pruning.pruner_part import PrunerPart
from rayprune.pruning.reports import MaskChange
from rayprune.pruning.schedules.sparse_training.sparse_from_start import GRADIENT, SparseSchedule
from rayprune.pruning.seeds import generator_for
from rayprune.pruning.update.budgets import Budget, Ramp, Scope, scopes_of
from rayprune.pruning.update.selection import Selection

Masks = dict[str, Tensor]

DEFAULT_WINDOW = 100
"""Minibatches' dense gradients that a clone's regrowth averages."""


class Regrowth(PrunerPart):
    """What regrowth needs beside the masks: dense gradients, and which weights were ever active."""

    key: ClassVar[str] = "dynamics"

    def __init__(self) -> None:
        self.gradients = WindowMean()
        self.coverage = Coverage()

    def gather(
        self, gradients: Mapping[nn.Parameter, Tensor | None], schedule: SparseSchedule | None
    ) -> None:
        """Take one minibatch's dense gradients in.

        Args:
            gradients: by parameter, before they are masked.
            schedule: says over how many minibatches they are averaged.
        """
        window = (schedule.window if schedule is not None else 0) or DEFAULT_WINDOW
        found = {
            name: gradient
            for name, parameter in self.pruner.parameters.items()
            if (gradient := gradients.get(parameter)) is not None
        }
        self.gradients.add(found, window)

    def after_commit(self, change: MaskChange) -> None:
        """Note what has become active."""
        masks = self.pruner.held_masks if change.regrown else {}
        for name in change.regrown:
            self.coverage.note(name, masks[name])

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, bools packed to bits."""
        ever = {name: packed(mask) for name, mask in self.coverage.ever.items()}
        return {"ever": ever, "gradients": self.gradients.state_dict()}

    def unpack(self, state: Mapping[str, Any] | None) -> tuple[WindowMean, Coverage]:
        """Return the mean gradients and the coverage."""
        if state is None:
            return WindowMean(), Coverage()
        places, ever = self.pruner.weights, {}
        for name, bits in state["ever"].items():
            ever[name] = unpacked(bits, places[name].shape).to(places[name].device)
        return WindowMean.from_state(state["gradients"], places), Coverage(ever)

    def restore(self, unpacked: tuple[WindowMean, Coverage]) -> None:
        """Take both over."""
        self.gradients, self.coverage = unpacked


@dataclass(frozen=True, slots=True)
class DropAndGrow:
    """One mask update that may let weights grow; changes nothing by itself."""

    selection: Selection
    schedule: SparseSchedule | None
    """None where the schedule only prunes."""
    gradients: WindowMean
    masks: Mapping[str, Tensor]
    """The masks before the update; a name is absent while the parameter is dense."""
    at: Ramp
    """Turns a target into the sparsity that weights may grow to."""
    step: float
    """Of the mask update."""
    taken: float = 1.0
    """How much of what would be dropped for others is, in [0, 1]."""

    @property
    def due(self) -> bool:
        """Whether anything may grow at all, at this update or another."""
        return self.schedule is not None or self.selection.config.on_clone == "regrow"

    def decide(self, budgets: Iterable[Budget], keeps: Masks) -> tuple[Masks, Masks]:
        """Decide what is dropped for what, and what grows besides.

        Args:
            budgets: with their targets.
            keeps: what stays of the active weights after pruning, by full parameter name.

        Returns:
            What stays of the active weights, and what of the others becomes active.
        """
        if self.schedule is not None and self.schedule.regrows_by == GRADIENT:
            self._check_gradients()
        keeps, grows = dict(keeps), Masks()
        for budget in budgets:
            for layer in budget.free:
                self._exchange(layer, keeps, grows)
            if self._may_grow():
                for scope in scopes_of(self.selection.config, budget, self.at):
                    self._grow(scope, keeps, grows)
        return keeps, grows

    def _may_grow(self) -> bool:
        if self.selection.config.on_clone == "regrow":
            return True
        schedule = self.schedule
        return schedule is not None and schedule.grows_to_target and schedule.grows_at(self.step)

    def _exchange(self, layer: PrunableLayer, keeps: Masks, grows: Masks) -> None:
        fraction = 0.0 if self.schedule is None else self.schedule.drop_fraction_at(self.step)
        fraction *= self.taken
        for part in granularity_of(self.selection.config.granularity).parts([layer]):
            name = part.parameters[0]  # where weights can be swapped each part is one parameter
            mask = self.masks.get(name)
            if mask is None or fraction == 0.0:
                continue
            weight = self.selection.weights[name]
            active = mask & keeps[name] if name in keeps else mask
            scores = self.selection.score(name, weight)
            growth = self._growth(name, weight, self._by_gradient([name]))
            after = _swapped(part, active, scores, growth, fraction)
            keeps[name], grows[name] = after.clone(), after & ~mask

    def _grow(self, scope: Scope, keeps: Masks, grows: Masks) -> None:
        """Let as many weights of a scope grow as it lacks."""
        # Of single weights each part is one parameter.
        weights = {n: self.selection.weights[n] for part in scope.parts for n in part.parameters}
        missing = scope.keep - sum(self._active(n, w, keeps, grows) for n, w in weights.items())
        names = [name for name in weights if name in self.masks]
        if missing <= 0 or not names:
            return
        off = [~self.masks[n] & ~grows[n] if n in grows else ~self.masks[n] for n in names]
        by_gradient = self._by_gradient(names)
        growth = [self._growth(name, weights[name], by_gradient) for name in names]
        for name, grown in zip(names, grow(off, growth, missing, names), strict=True):
            grows[name] = grows[name] | grown if name in grows else grown
            if name in keeps:
                keeps[name] = keeps[name] | grown

    def _active(self, name: str, weight: Tensor, keeps: Masks, grows: Masks) -> int:
        """Count what is active after the update so far."""
        alive = self.masks.get(name)
        if name in keeps:
            alive = keeps[name] if alive is None else keeps[name] & alive
        if name in grows:
            alive = grows[name] if alive is None else alive | grows[name]
        return weight.numel() if alive is None else int(torch.count_nonzero(alive))

    def _by_gradient(self, names: Iterable[str]) -> bool:
        if self.schedule is not None and self.schedule.regrows_by not in (None, GRADIENT):
            return False
        return all(self.gradients.mean(name) is not None for name in names)

    def _growth(self, name: str, weight: Tensor, by_gradient: bool) -> Tensor:
        mean = self.gradients.mean(name)
        if by_gradient and mean is not None:
            return mean.abs()
        return random_growth(weight, self.selection.seed, name, self.selection.index)

    def _check_gradients(self) -> None:
        assert self.schedule is not None
        if self.schedule.grows_at(self.step) and not self.gradients.count:
            raise InputError(
                "What grows back by its gradients needs dense ones, but none were given. Call "
                "`pruner.gather_gradients(gradients)` before `mask_gradients`."
            )


def _swapped(part: Part, active: Tensor, scores: Tensor, growth: Tensor, fraction: float) -> Tensor:
    """Return a parameter's mask after dropping and regrowing, within rows where there are any."""
    name, rows = part.parameters[0], part.swap_rows(active)
    if rows is None:
        return drop_and_regrow(active, scores, growth, fraction, name)
    laid_out = [values for x in (scores, growth) if (values := part.swap_rows(x)) is not None]
    after = drop_and_regrow(rows, laid_out[0], laid_out[1], fraction, name, in_rows=True)
    return part.from_swap_rows(after)


def drop_count(active: int, fraction: float) -> int:
    """Return how many of a layer's active weights are dropped, rounded down as in google-research.

    >>> [drop_count(10, fraction) for fraction in (0.0, 0.29, 0.3, 1.0)]
    [0, 2, 3, 10]
    """
    # 0.29 * 100 is 28.999999999999996.
    return int(active * fraction + 1e-9)


def drop_and_regrow(
    mask: Tensor,
    scores: Tensor,
    growth: Tensor,
    fraction: float,
    name: str = "",
    *,
    in_rows: bool = False,
) -> Tensor:
    """Drop the lowest scores of one parameter, and let as many weights grow by another score.

    Candidates are all weights that are off after the drop, those just dropped among them, as in
    algorithm 1 of Evci et al. 2020 (arXiv:1911.11134) and in google-research/rigl: a weight that is
    dropped and at once regrown simply stays as it was.

    Args:
        mask: bool, the weights that are active.
        scores: shaped like ``mask``, higher = keep.
        growth: shaped like ``mask``, higher = regrow.
        fraction: of the active weights, dropped.
        name: the parameter's, for an error.
        in_rows: whether as many grow in each row of ``mask`` as were dropped in it, for N:M
            sparsity; what is dropped competes over all of them even so.

    Returns:
        The new mask, with as many active weights as ``mask``.

    Raises:
        NonFiniteError: a score is NaN.

    >>> mask = torch.tensor([True, True, True, True, False, False])
    >>> scores = torch.tensor([4.0, 1.0, 3.0, 2.0, 0.0, 0.0])
    >>> growth = torch.tensor([9.0, 0.0, 0.0, 5.0, 7.0, 2.0])
    >>> drop_and_regrow(mask, scores, growth, 0.5)
    tensor([ True, False,  True,  True,  True, False])
    """
    active = int(torch.count_nonzero(mask))
    count = drop_count(active, fraction)
    if count == 0:
        return mask
    (kept,) = keep_top([scores], active - count, live=[mask], names=[name])
    if in_rows:
        return kept | _grown_in_rows(growth, ~kept, mask.sum(dim=1) - kept.sum(dim=1), name)
    (grown,) = keep_top([growth], count, live=[~kept], names=[name])
    return kept | grown


def _grown_in_rows(growth: Tensor, off: Tensor, missing: Tensor, name: str) -> Tensor:
    """Choose what grows in each row, ties to the lower index.

    Args:
        growth: shape ``(rows, n)``, higher = grow.
        off: bool, likewise, what may grow.
        missing: how many grow, ``(rows,)``.
        name: the parameter's, for an error.
    """
    if growth.isnan().any():
        raise NonFiniteError(f"A growth score of {name!r} is NaN.")
    order = growth.masked_fill(~off, -math.inf).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) < missing[:, None]) & off


def grow(
    candidates: Sequence[Tensor], growth: Sequence[Tensor], count: int, names: Sequence[str] = ()
) -> list[Tensor]:
    """Choose the weights of a scope that grow.

    Args:
        candidates: bool, per parameter, the weights that may grow.
        growth: shaped like ``candidates``, higher = grow.
        count: how many grow, at most all candidates.
        names: the parameters', for an error.

    Returns:
        Bool per parameter, True = grows.

    Raises:
        NonFiniteError: a score is NaN.

    >>> off = [torch.tensor([False, True]), torch.tensor([True, True])]
    >>> grow(off, [torch.tensor([9.0, 1.0]), torch.tensor([3.0, 2.0])], count=2)
    [tensor([False, False]), tensor([True, True])]
    """
    return keep_top(growth, count, live=candidates, names=names)


def random_growth(like: Tensor, seed: int, name: str, index: int) -> Tensor:
    """Draw a growth score for each weight, the same on every rank and device.

    Args:
        like: the parameter.
        seed: the run's.
        name: the parameter's full name.
        index: of the mask update.
    """
    generator = generator_for(seed, f"{name}/regrowth", index)
    # Float64: in float32 a layer of millions would tie, and ties favour low indices.
    drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    return drawn.to(like.device, torch.float64 if like.device.type != "mps" else torch.float32)
