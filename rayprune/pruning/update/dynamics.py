"""What happens at a mask update beside pruning: drop and regrow, growth, and their bookkeeping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.pruning.evidence.gradients import DenseGradients
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.measures.itop import Coverage
from rayprune.pruning.packing import packed, unpacked
from rayprune.pruning.schedules.sparse import GRADIENT, SparseSchedule
from rayprune.pruning.update.budgets import Budget, Ramp, Scope, scopes_of
from rayprune.pruning.update.regrowth import drop_and_regrow, grow, random_growth
from rayprune.pruning.update.selection import Selection

Masks = dict[str, Tensor]


class Dynamics:
    """The state that regrowth needs beside the masks."""

    def __init__(self) -> None:
        self.gradients = DenseGradients()
        self.coverage = Coverage()

    def gather(
        self,
        gradients: Mapping[nn.Parameter, Tensor | None],
        parameters: Mapping[str, nn.Parameter],
        window: int,
    ) -> None:
        """Take one minibatch's dense gradients in.

        Args:
            gradients: by parameter, before they are masked.
            parameters: those that may grow, by full name.
            window: see `DenseGradients.add`.
        """
        found = {
            name: gradient
            for name, parameter in parameters.items()
            if (gradient := gradients.get(parameter)) is not None
        }
        self.gradients.add(found, window)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, bools packed to bits."""
        ever = {name: packed(mask) for name, mask in self.coverage.ever.items()}
        return {"ever": ever, "gradients": self.gradients.state_dict()}

    def load_state_dict(
        self, state: Mapping[str, Any] | None, places: Mapping[str, nn.Parameter]
    ) -> None:
        """Take over what `state_dict` gave; None of a state from before regrowth came.

        Args:
            state: the saved state.
            places: the parameters by full name.
        """
        self.__init__()  # type: ignore[misc]
        if state is None:
            return
        for name, bits in state["ever"].items():
            place = places[name]
            self.coverage.ever[name] = unpacked(bits, place.shape).to(place.device)
        self.gradients = DenseGradients.from_state(state["gradients"], places)


@dataclass(frozen=True, slots=True)
class Redrawing:
    """One mask update that may let weights grow; changes nothing by itself."""

    selection: Selection
    schedule: SparseSchedule | None
    """None where the schedule only prunes."""
    dynamics: Dynamics
    masks: Mapping[str, Tensor]
    """The masks before the update; a name is absent while the parameter is dense."""

    def redraw(
        self, budgets: Iterable[Budget], keeps: Masks, at: Ramp, step: float
    ) -> tuple[Masks, Masks]:
        """Decide what is dropped for what, and what grows besides.

        Args:
            budgets: with their targets.
            keeps: what stays of the active weights after pruning, by full parameter name.
            at: turns a target into the sparsity that weights may grow to.
            step: of the mask update.

        Returns:
            What stays of the active weights, and what of the others becomes active.
        """
        if self.schedule is not None and self.schedule.regrows_by == GRADIENT:
            self._check_gradients(step)
        keeps, grows = dict(keeps), Masks()
        for budget in budgets:
            for layer in budget.free:
                self._exchange(layer, keeps, grows, step)
            if self._may_grow(step):
                for scope in scopes_of(self.selection.config, budget, at):
                    self._grow(scope, keeps, grows)
        return keeps, grows

    def _may_grow(self, step: float) -> bool:
        if self.selection.config.on_clone == "regrow":
            return True
        schedule = self.schedule
        return schedule is not None and schedule.grows_to_target and schedule.grows_at(step)

    def _exchange(self, layer: PrunableLayer, keeps: Masks, grows: Masks, step: float) -> None:
        fraction = 0.0 if self.schedule is None else self.schedule.drop_fraction_at(step)
        for key, weight in layer.parameters.items():
            name = layer.full_name(key)
            mask = self.masks.get(name)
            if mask is None or fraction == 0.0:
                continue
            active = mask & keeps[name] if name in keeps else mask
            scores = self.selection.score(name, weight)
            growth = self._growth(name, weight, self._by_gradient([name]))
            after = drop_and_regrow(active, scores, growth, fraction, name)
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
        return all(self.dynamics.gradients.mean(name) is not None for name in names)

    def _growth(self, name: str, weight: Tensor, by_gradient: bool) -> Tensor:
        mean = self.dynamics.gradients.mean(name)
        if by_gradient and mean is not None:
            return mean.abs()
        return random_growth(weight, self.selection.seed, name, self.selection.index)

    def _check_gradients(self, step: float) -> None:
        assert self.schedule is not None
        if self.schedule.grows_at(step) and not self.dynamics.gradients.count:
            raise InputError(
                "`schedule.kind` 'rigl' and `regrow: gradient` need dense gradients, but none were "
                "given. Call `pruner.gather_gradients(gradients)` before `mask_gradients`."
            )
