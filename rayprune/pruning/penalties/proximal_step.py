"""The part of a Pruner that does a penalty's proximal step after each optimizer step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from rayprune.errors import InputError
from rayprune.pruning.checks import listed
from rayprune.pruning.layers.parametrised import length_of
from rayprune.pruning.layers.prunable import PrunableLayer, protected_names
from rayprune.pruning.penalties import penalty_of
from rayprune.pruning.pruner_part import PrunerPart


def penalty_faults(penalty: object, layers: Iterable[PrunableLayer]) -> list[str]:
    """Return why layers can't be shrunk.

    Args:
        penalty: a config's; None for none.
        layers: those that would be.
    """
    wrong = [x.name for x in layers if any(length_of(x.module, name) for name in x.parameters)]
    if penalty is None or not wrong:
        return []
    return [
        f"`pruning.penalty` can't shrink {listed(wrong)}: of weight-normalised weights the length "
        "of a direction means nothing. Leave the penalty out, or list the layers under "
        "`pruning.protect`."
    ]


class ProximalStep(PrunerPart):
    """Shrinks what may be pruned, by the config's penalty."""

    @property
    def wants_rates(self) -> bool:
        """Whether the config has a penalty that shrinks weights."""
        block = self.pruner.config.penalty
        return block is not None and not penalty_of(block).gated

    def after_step(self, clock: float, rates: Mapping[nn.Parameter, float]) -> None:
        """Shrink weights, until the schedule's end: so what is left is unbiased.

        Raises:
            InputError: the learning rate of a weight that would shrink is missing.
        """
        pruner, config = self.pruner, self.pruner.config
        block = config.penalty
        if block is None or clock >= config.build_schedule(0.0).end:
            return
        penalty, spared = penalty_of(block), protected_names(pruner.prunable, config.protect)
        if penalty.spares_heads:
            spared |= pruner.heads
        layers = [layer for layer in pruner.prunable if layer.name not in spared]
        for layer in layers:
            for name, weight in layer.named.items():
                if weight not in rates:
                    raise InputError(
                        f"`rates` must hold the learning rate of {name!r}, by parameter, but "
                        "doesn't. Take the optimizer's param_groups' `lr`."
                    )
        for layer in layers:
            penalty.shrink(layer, lambda w: rates[w] * block["strength"])
