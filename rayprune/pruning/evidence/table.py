"""Evidence: what a criterion may know of a weight or a unit beyond the weight itself.

Two sources fill it. `Accumulated` sums gradients up while training goes on; a pass over minibatches
(`rayprune.pruning.evidence.batches`) measures the rest when a mask update is due. Both gather only
what the criterion asks for by the names of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rayprune.errors import InputError
from rayprune.pruning.packing import copied
from rayprune.pruning.precision import scored

Named = Mapping[str, Tensor]
"""Tensors by full parameter name."""

GRADIENT = "gradient"
MOVEMENT = "movement"
ACCUMULATED: frozenset[str] = frozenset({GRADIENT, MOVEMENT})


class Accumulated:
    """Sums over training steps: dense gradients since the last mask update, and movement.

    Of use to whatever needs the dense gradient: saliency under the algorithm's own loss, and the
    growth of masked weights.

    >>> sums = Accumulated()
    >>> for step in (1.0, 3.0):
    ...     sums.add({"w": torch.tensor([2.0])}, {"w": torch.tensor([step])}, ACCUMULATED)
    >>> sums.gradients()["w"], sums.movement()["w"]
    (tensor([2.]), tensor([-8.]))
    """

    def __init__(self) -> None:
        self.steps = 0
        """Steps whose gradients were added since `clear_gradients`."""
        self._sums: dict[str, dict[str, Tensor]] = {kind: {} for kind in sorted(ACCUMULATED)}

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

    def clear_gradients(self) -> None:
        """Start the mean gradient anew; the movement goes on."""
        self.steps = 0
        self._sums[GRADIENT].clear()

    def pick(self, pick: Callable[[str, Tensor], Tensor]) -> None:
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

    def load_state_dict(self, state: Mapping[str, Any], weights: Named) -> None:
        """Take over what `state_dict` returned, for the parameters that are there.

        Args:
            state: may be empty, which clears.
            weights: give shapes, types and devices.
        """
        self.steps = int(state.get("steps", 0))
        for kind, named in self._sums.items():
            named.clear()
            for name, total in state.get("sums", {}).get(kind, {}).items():
                if name in weights:
                    like = weights[name]
                    named[name] = copied(total).to(scored(like)).reshape_as(like)


def _sum(sums: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    held = sums.get(name)
    if held is None or held.device != like.device:
        held = sums[name] = (
            torch.zeros_like(like, dtype=scored(like).dtype)
            if held is None
            else held.to(like.device)
        )
    return held


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was gathered, by the input's name and then by full parameter name.

    A unit's input (activations, coalitions) lies under the first parameter of its part.
    """

    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def get(self, criterion: str, wanted: str, name: str) -> Any:
        """Return one input of a criterion for one parameter.

        Raises:
            InputError: it was not gathered; says what to pass.
        """
        table = self.tables.get(wanted)
        if table is None:
            raise InputError(f"Criterion {criterion!r} needs `{wanted}`. {_way_out(wanted)}")
        if name not in table:
            raise InputError(
                f"Criterion {criterion!r} needs `{wanted}` of {name!r}, which the batches never "
                "reached, or which is frozen. Protect that layer, or give batches and a loss that "
                "use it."
            )
        return table[name]

    def __or__(self, other: Evidence) -> Evidence:
        return Evidence({**self.tables, **other.tables})

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)


NOTHING = Evidence()

Source = Callable[[], Evidence]
"""Gathers evidence when it is asked to: nothing is computed while no mask update is due."""


def _way_out(wanted: str) -> str:
    if wanted == MOVEMENT:
        return (
            "It is summed up in training: call `Pruner.observe_gradients` at every step, "
            "or train with `rayprune train`."
        )
    return (
        "Pass `batch=` (observations, or an iterable of minibatches) and `loss=` "
        "(f(module, batch) -> scalar) to `scores` or `prune_to`."
    )
