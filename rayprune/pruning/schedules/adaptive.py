"""Adaptive sparsity: networks of rising sparsity compete, and the one that learns best goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, number, switch, whole
from rayprune.pruning.component import Chosen
from rayprune.pruning.schedules.base import Span, check_schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSchedule(Span):
    """As sparse as the Q-loss allows: networks of rising sparsity are trained against one target.

    Vincent et al. 2025 (arXiv:2503.01437, EauDeQN), for DQN and SAC. ``networks`` copies of the
    policy learn from the same minibatches and the same target network. At each mask update, every
    ``every`` env steps, the one with the least Q-loss since the last becomes the policy and the
    target. One rival then keeps its sparsity; each of the others is a copy of it that is pruned
    further. So sparsity rises at the agent's own pace, and stops by itself where the sparser ones
    lose; ``sparsity`` is only a bound. At ``end`` the last winner goes on alone.

    How much further is drawn for each rival: as far as a polynomial ramp to nothing at ``end``
    would go, with an exponent that is uniform in [0, ``exponent``], and by at most ``step``.
    Defaults are those of the paper's released runs (huggingface.co/TheoVincent/Atari_EauDeQN).
    ``reset_moments`` has all optimizers begin anew after each choice, as they do there.

    >>> race = AdaptiveSchedule(final=0.9, begin=0, end=1000, step=0.05)
    >>> [round(race.rivals_sparsity(0.5, 0, 100, exponent), 3) for exponent in (0.0, 0.5, 3.0)]
    [0.5, 0.526, 0.55]
    """

    defaults: ClassVar[Mapping[str, Any]] = {
        "networks": 5,
        "exponent": 3.0,
        "step": 0.01,
        "reset_moments": True,
    }
    competes: ClassVar[bool] = True
    undoes: ClassVar[str] = "trains several networks beside each other"

    final: float
    begin: float
    end: float
    networks: int = 5
    exponent: float = 3.0
    step: float = 0.01
    reset_moments: bool = True

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.end)

    def sparsity_at(self, step: float) -> float:
        """Return 0: nothing is due by the clock alone."""
        del step
        return 0.0

    def rivals_sparsity(self, sparsity: float, clock: float, every: int, exponent: float) -> float:
        """Return the sparsity of a network that is pruned further.

        Args:
            sparsity: of the network that it is a copy of.
            clock: env steps.
            every: env steps to the next choice.
            exponent: of the ramp that it follows.
        """
        left = max(self.end - clock, every)
        further = 1.0 - (1.0 - sparsity) * math.pow(1.0 - every / left, exponent)
        return max(sparsity, min(further, sparsity + self.step, self.final))

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its own keys."""
        given = {**cls.all_defaults(), **block}
        yield from whole(
            f"{field}.networks", given["networks"], "an integer of at least 2", least=2
        )
        above = "above 0, the highest exponent of a ramp"
        yield from number(f"{field}.exponent", given["exponent"], above, lambda x: x > 0)
        share = "in (0, 1], the most that a network is sparser than the last"
        yield from number(f"{field}.step", given["step"], share, lambda x: 0 < x <= 1)
        yield from switch(f"{field}.reset_moments", given["reset_moments"])

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what can't be had of several networks at a time."""
        values, kind = chosen.values, "schedule kind 'adaptive'"
        if isinstance(chosen.schedule_block.get("begin"), Mapping):
            yield (
                f"`{prefix}schedule.begin` must be a time with {kind}, which finds its sparsity by "
                "the loss. Give a fraction of the run, or env steps."
            )
        if chosen.criterion.evidence or chosen.criterion.needs_returns:
            yield (
                f"`{prefix}criterion` {chosen.criterion_name!r} is measured on one network, but "
                f"{kind} prunes several copies at once. Take 'l1', 'l2' or 'random'."
            )
        if chosen.granularity.implied_sparsity is not None or chosen.granularity.in_turn:
            yield (
                f"`{prefix}granularity` {chosen.granularity_name!r} has no sparsity that could "
                f"rise by small steps, as {kind} needs. Take 'weight', 'neuron' or 'block'."
            )
        for name in ("groups", "threshold", "penalty", "distillation"):
            if values.get(name):
                yield (
                    f"`{prefix}{name}` can't be given with {kind}, whose networks have one "
                    "sparsity each and the algorithm's own loss. Leave it out."
                )
        for name, default in (("operation", "zero"), ("on_clone", "hold")):
            if values.get(name, default) != default:
                yield f"`{prefix}{name}` must be {default!r} with {kind}. Leave it out."
