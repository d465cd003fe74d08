"""Means of dense gradients, of pruned weights too: since a mask update, and over a window."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rayprune.pruning.evidence.evidence import ACCUMULATED, GRADIENT, MOVEMENT, Evidence, Named
from rayprune.pruning.packing import copied
from rayprune.pruning.precision import scored
from rayprune.pruning.pruner_part import Pick, PrunerPart
from rayprune.pruning.reports import MaskChange

Sums = dict[str, dict[str, Tensor]]


class GradientMeans(PrunerPart):
    """Sums over training steps: dense gradients since the last mask update, and movement.

    For criteria that score by the algorithm's own loss.

    >>> sums = GradientMeans()
    >>> for step in (1.0, 3.0):
    ...     sums.add({"w": torch.tensor([2.0])}, {"w": torch.tensor([step])}, ACCUMULATED)
    >>> sums.gradients()["w"], sums.movement()["w"]
    (tensor([2.]), tensor([-8.]))
    """

    key: ClassVar[str] = "accumulated"

    def __init__(self) -> None:
        self.steps = 0
        """Steps whose gradients were added since `clear_gradients`."""
        self._sums: Sums = {kind: {} for kind in sorted(ACCUMULATED)}

    @property
    def wants_gradients(self) -> bool:
        """Whether the criterion asks for any sum."""
        return bool(self.pruner.accumulates)

    def on_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """Add what the criterion asks for; a gradient that is None counts as zero."""
        weights = self.pruner.parameters
        found = {name: gradients.get(weight) for name, weight in weights.items()}
        dense = {name: gradient for name, gradient in found.items() if gradient is not None}
        self.add(weights, dense, self.pruner.accumulates)

    @torch.no_grad()
    def add(self, weights: Named, gradients: Named, kinds: Collection[str]) -> None:
        """Add one step's dense gradients, before they are masked and clipped.

        Args:
            weights: before the step.
            gradients: by the same names; a name that is absent counts as zero.
            kinds: of `ACCUMULATED`, what to sum.
        """
        if GRADIENT in kinds:
            self.steps += 1
            for name, gradient in gradients.items():
                _sum(self._sums[GRADIENT], name, gradient).add_(gradient)
        if MOVEMENT in kinds:
            for name, gradient in gradients.items():
                total = _sum(self._sums[MOVEMENT], name, gradient)
                total.addcmul_(scored(weights[name].detach()), scored(gradient), value=-1)

    def gradients(self) -> dict[str, Tensor]:
        """Return the mean gradient of each parameter since `clear_gradients`; empty if none."""
        return {name: total / self.steps for name, total in self._sums[GRADIENT].items()}

    def movement(self) -> dict[str, Tensor]:
        """Return minus the sum of weight times gradient over the whole training."""
        return dict(self._sums[MOVEMENT])

    def evidence(self) -> Evidence:
        """Return what the criterion asks for, as far as there is any."""
        held = {MOVEMENT: self.movement(), GRADIENT: self.gradients()}
        return Evidence({kind: held[kind] for kind in self.pruner.accumulates if held[kind]})

    def clear_gradients(self) -> None:
        """Start the mean gradient anew; the movement goes on."""
        self.steps = 0
        self._sums[GRADIENT].clear()

    def after_update(self, change: MaskChange) -> None:
        """Start the mean gradient anew: it has been looked at."""
        del change
        self.clear_gradients()

    def on_compaction(self, pick: Pick) -> None:
        """Keep what compaction has left of each tensor."""
        for named in self._sums.values():
            named.update({name: pick(name, total) for name, total in named.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return everything as numbers and tensors."""
        sums = {
            kind: {name: copied(total) for name, total in named.items()}
            for kind, named in self._sums.items()
        }
        return {"steps": self.steps, "sums": sums}

    def unpack(self, state: Mapping[str, Any] | None) -> tuple[int, Sums]:
        """Return the steps and sums of the parameters that are there."""
        given, weights = state or {}, self.pruner.parameters
        sums = {
            kind: {
                name: copied(total).to(scored(weights[name])).reshape_as(weights[name])
                for name, total in given.get("sums", {}).get(kind, {}).items()
                if name in weights
            }
            for kind in self._sums
        }
        return int(given.get("steps", 0)), sums

    def restore(self, unpacked: tuple[int, Sums]) -> None:
        """Take over steps and sums."""
        self.steps, self._sums = unpacked


def _sum(sums: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    held = sums.get(name)
    if held is None or held.device != like.device:
        held = sums[name] = (
            torch.zeros_like(like, dtype=scored(like).dtype)
            if held is None
            else held.to(like.device)
        )
    return held


class WindowMean:
    """The mean of dense gradients over the last minibatches, by which weights grow back.

    Of one minibatch they would be mostly noise: in deep RL the signal-to-noise ratio of a gradient
    is about 0.01.

    >>> dense = WindowMean()
    >>> for value in (1.0, 3.0, 8.0):
    ...     dense.add({"w": torch.tensor([value])}, window=2)
    >>> dense.count, dense.mean("w")
    (2, tensor([5.]))
    """

    def __init__(self, means: Mapping[str, Tensor] | None = None, count: int = 0) -> None:
        self._means = dict(means or {})
        self.count = count
        """Minibatches in the mean, at most the window."""

    def add(self, gradients: Mapping[str, Tensor], window: int) -> None:
        """Take one more minibatch in.

        Up to ``window`` minibatches the mean is the plain one; from then on the oldest fade out of
        it exponentially, at the window's rate, so that none has to be kept.

        Args:
            gradients: by full parameter name, not masked; a parameter may be missing.
            window: how many minibatches the mean spans, at least 1.
        """
        self.count = min(self.count + 1, window)
        known = [name for name in gradients if name in self._means]
        if known:
            torch._foreach_lerp_(
                [self._means[name] for name in known],
                [scored(gradients[name].detach()) for name in known],
                1.0 / self.count,
            )
        for name in gradients.keys() - self._means.keys():
            self._means[name] = scored(gradients[name].detach().clone())

    def mean(self, name: str) -> Tensor | None:
        """Return a parameter's mean gradient; None when it got none."""
        return self._means.get(name)

    def clear(self) -> None:
        """Forget them all: the next mean begins anew, and until then takes no memory."""
        self._means.clear()
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the means, copied to the CPU, with their count."""
        means = {name: copied(mean) for name, mean in self._means.items()}
        return {"means": means, "count": self.count}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], places: Mapping[str, Tensor]) -> WindowMean:
        """Rebuild what `state_dict` gave.

        Args:
            state: the saved state.
            places: the parameters by full name, whose devices and shapes the means take.
        """
        means = {
            name: copied(mean).to(scored(places[name])).reshape_as(places[name])
            for name, mean in state["means"].items()
        }
        return cls(means, int(state["count"]))
