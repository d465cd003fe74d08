"""Dense gradients: the mean over the last minibatches, of pruned weights too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rayprune.pruning.packing import copied
from rayprune.pruning.precision import scored


class DenseGradients:
    """The running mean of gradients, from which weights are chosen to grow back.

    Of one minibatch they would be mostly noise: in deep RL the signal-to-noise ratio of a gradient
    is about 0.01.

    >>> dense = DenseGradients()
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
    def from_state(cls, state: Mapping[str, Any], places: Mapping[str, Tensor]) -> DenseGradients:
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
