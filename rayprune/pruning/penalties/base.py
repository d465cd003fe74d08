"""`Penalty`: what grows sparsity while training, by a proximal step after the optimizer's.

A penalty ``strength * R(w)`` acts after the optimizer's step by its proximal operator with step
``lr * strength``, and not by its subgradient in the loss. Adam divides a subgradient by the size of
the loss's gradients, so that it would shrink each weight by an amount of its own and never to
exactly zero, and it would enter the moments and the clipped norm. Decoupled like AdamW's decay,
every weight shrinks by ``lr * strength`` a step, and small ones end at exactly zero. Compare the
strength with 1: so far, in learning rates, does Adam move a weight whose gradient keeps its sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from torch import nn

from rayprune.pruning.checks import Faults, is_number, must
from rayprune.pruning.component import Chosen, Component
from rayprune.pruning.layers.prunable import PrunableLayer

Amounts: TypeAlias = Callable[[nn.Parameter], float]
"""Parameter -> learning rate times strength."""


class Penalty(Component):
    """A penalty on the weights."""

    spares_heads: ClassVar[bool] = False
    """Whether it leaves layers alone whose units are the network's own outputs."""

    gated: ClassVar[bool] = False
    """Whether it acts by gates on units, which `rayprune.pruning.penalties.gate_step` moves."""

    @classmethod
    def shrink(cls, layer: PrunableLayer, amounts: Amounts) -> None:
        """Do one proximal step on a layer that may be pruned, in place."""
        raise NotImplementedError

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the fault of ``strength``."""
        strength = block["strength"]
        if not is_number(strength) or strength < 0:
            constraint = "a number of at least 0 (a step shrinks by the learning rate times it)"
            yield must(f"{field}.strength", constraint, strength)

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield the fault of shrinking what no mask update will take."""
        if chosen.schedule.fixed:
            yield (
                f"`{prefix}penalty` shrinks what a mask update shall take, but a "
                f"{chosen.schedule_block['kind']} mask never changes. "
                f"Leave it out, or take another `{prefix}schedule.kind`."
            )


def unit_conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield the fault of a penalty on units where none goes as a whole."""
    if not chosen.granularity.removes_units or chosen.granularity.whole_heads:
        kind = chosen.values["penalty"]["kind"]
        yield (
            f"`{prefix}penalty.kind` {kind!r} shrinks output units, so `{prefix}granularity` "
            f"must be 'neuron', but is {chosen.granularity_name!r}. For single weights take "
            "kind 'l1'."
        )
