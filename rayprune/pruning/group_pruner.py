"""`GroupPruner`: pruning of the layers that are under one config, update by update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from rayprune.errors import ConfigError
from rayprune.pruning.arguments import clock_of
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.evidence.evidence import NOTHING, Source
from rayprune.pruning.evidence.gradients import GradientMeans
from rayprune.pruning.layers.identity import IdentityLayers
from rayprune.pruning.layers.original_shapes import OriginalShapes
from rayprune.pruning.layers.prunable import Unit
from rayprune.pruning.masks.state import broken_is_told, pack_state, unpack_state
from rayprune.pruning.masks.store import AT_ONCE, Around, Operation
from rayprune.pruning.naming import by_parameter
from rayprune.pruning.notices import Notices
from rayprune.pruning.penalties.gate_step import UnitGates
from rayprune.pruning.penalties.proximal_step import ProximalStep
from rayprune.pruning.pruned_module import Gradients, MaskableModule
from rayprune.pruning.pruner_part import PrunerPart
from rayprune.pruning.remedies import REMEDIES
from rayprune.pruning.remedies.base import Remedy
from rayprune.pruning.reports import MaskChange, ScheduleProgress
from rayprune.pruning.schedules.sparse_training.sparse_from_start import GRADIENT
from rayprune.pruning.scored_module import ScoredModule
from rayprune.pruning.update.budgets import highest_target
from rayprune.pruning.update.decision import decide
from rayprune.pruning.update.frozen import FrozenParameters
from rayprune.pruning.update.progress import LostReturns, arrived, awaits, standing_units
from rayprune.pruning.update.regrowth import DropAndGrow, Masks, Regrowth
from rayprune.pruning.update.selection import Selection
from rayprune.pruning.update.timing import Timing

PARTS: Final[tuple[type[PrunerPart], ...]] = (
    GradientMeans,
    IdentityLayers,
    ProximalStep,
    UnitGates,
    Remedy,
    LostReturns,
    FrozenParameters,
    OriginalShapes,
    Regrowth,
)
"""A Pruner's parts, in the order in which they are called; `Remedy` stands for all of them."""


def parts_in_order() -> Iterator[type[PrunerPart]]:
    """Yield a Pruner's parts, with the remedies that are registered by now."""
    for part in PARTS:
        yield from REMEDIES.values() if part is Remedy else (part,)


@dataclass(frozen=True, slots=True)
class Decided:
    """A mask update that was decided on, and not carried out yet."""

    keeps: Masks
    grows: Masks = field(default_factory=dict)
    clock: float | None = None
    operation: Operation = AT_ONCE
    tick: float | None = None
    """The moment that the schedule had it for; None outside of the schedule."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """What is due by then, by the config's field."""
    begins: bool = False
    """Whether these are the masks that training begins with."""
    taken: float = 1.0
    """How much of what is due it takes."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A saved state that was read, and not taken over yet."""

    masks: Masks
    ages: Masks
    progress: ScheduleProgress
    parts: list[tuple[PrunerPart, Any]]


class GroupPruner(ScoredModule):
    """Prunes those layers of a module that are under one config: all of them, or a group's.

    `rayprune.Pruner` is what people use; it has one of these, or one for each group that has
    choices of its own. Decisions are taken apart from what they do, so that nothing was changed
    where one of several can't be taken.

    Args:
        subject: the module, and those of its layers that are under the config.
        config: what to prune of them.
        seed: of the random criterion.
        driven: see `rayprune.Pruner`.

    Raises:
        ConfigError: the config doesn't fit the layers; holds every fault.
    """

    def __init__(
        self, subject: MaskableModule, config: PruningConfig, *, seed: int, driven: bool
    ) -> None:
        super().__init__(subject, config, parts_in_order())
        self._parts.attach(self)
        self.seed = seed
        self._regrowth = self._parts[Regrowth]
        self._around = Around(self._parts.before_drop, self._parts.after_drop)
        self._notices = Notices(driven=driven)
        self._resting: tuple[Any, ...] | None = None

    def decide_at_once(
        self, sparsity: float | None, evidence: Source, share: float = 1.0
    ) -> Decided:
        """Decide on a cut to zero, whatever the schedule is; see `rayprune.Pruner.prune_to`.

        Args:
            sparsity: as there.
            evidence: of what the criterion asks for.
            share: of the sparsity; of a threshold all is taken at once.
        """
        if not self._can_prune():
            raise ConfigError(self._prunables.fault)
        targets = [
            (phase, phase.budgets if sparsity is None else phase.retargeted(sparsity))
            for phase in self._prunables.phases
        ]
        selection = self._selection(self.accumulated.evidence() | evidence())
        keeps, _ = decide(selection, targets, at=lambda target: target * share)
        return Decided(keeps)

    def decide_start(self) -> Decided | None:
        """Decide on the masks that training begins with; None where it begins without."""
        timing = self._timing
        if timing.sparse_schedule is None or self._progress.tick is not None:
            return None
        by_chance = [phase.by_chance() for phase in self._prunables.phases]
        targets = [(phase, phase.budgets) for phase in by_chance]
        keeps, _ = decide(self._selection(NOTHING), targets, timing.ramp(0.0))
        return Decided(keeps, tick=0.0, targets=timing.targets(0.0), begins=True)

    def rests(self, clock: float) -> bool:
        """Whether `decide` would return None, by what it returned before; False if not known.

        Asked after every optimizer step, and most of those are between two mask updates.
        """
        if self._resting is None or not self._can_prune():
            return False
        return self._resting == self._standing(self._timing.tick(clock))

    def _standing(self, tick: float | None) -> tuple[Any, ...]:
        """Return what it depends on whether a mask update is due."""
        done = self._progress
        return tick, done.tick, done.targets, self.config, self._prunables.phases

    def decide(self, clock: float, evidence: Source | None, taken: float = 1.0) -> Decided | None:
        """Decide on the mask update that the schedule has due; None if none is.

        Args:
            clock: env steps, or updates where none are sampled.
            evidence: gathers what the criterion needs; called when an update is due.
            taken: how much of it to take; see `rayprune.pruning.update.decision.decide`.
        """
        self._notices.check_driver(self.config)
        self._notices.tell_of_horizon(self.config)
        if not self._can_prune():
            return None
        timing = self._timing
        tick = timing.tick(clock)
        if tick is None or not timing.is_due(tick):
            self._resting = self._standing(tick) if timing.is_of_arithmetic else None
            return None
        if self._awaits_returns(tick):
            return None
        targets = [(phase, phase.budgets) for phase in self._prunables.phases]
        self._notices.tell_of_rounding(self.config, targets[0][1])
        known = self.accumulated.evidence() | (evidence() if evidence else NOTHING)
        selection = self._selection(known)
        growth = self._growth(selection, tick, taken)
        ramp, share = timing.ramp(tick), timing.share(tick)
        keeps, grows = decide(selection, targets, ramp, share, growth, taken)
        operation = Operation(self.config.fading_updates, self.config.fading_factor)
        due = timing.targets(tick)
        return Decided(keeps, grows, clock, operation, tick, due, taken=taken)

    def carry_out(self, decided: Decided) -> MaskChange:
        """Put a decision in force."""
        if decided.grows:
            self._regrowth.gradients.clear()
        change = self._commit(decided)
        if decided.begins:
            self._regrowth.coverage.begin(self.held_masks)
        elif decided.tick is not None:
            for follow in self._parts.after_update:
                follow(change)
        if decided.tick is not None:
            self._progress.tick, self._progress.targets = decided.tick, dict(decided.targets)
            self._progress.behind = decided.taken < 1.0 and self._lags(decided.tick)
            budgets = self._prunables.phases[0].budgets
            self._notices.tell_of_sizes(self.config, budgets, self._store.eligible)
        return change

    def _lags(self, tick: float) -> bool:
        """Whether more is left than shall be left at a tick."""
        if self.config.threshold is not None:
            return True
        phases, ramp = self._prunables.phases, self._timing.ramp(tick)
        return not arrived(self.config, phases, self._store.eligible, ramp)

    def note(self) -> Callable[[], None]:
        """Note all that a mask update writes; what is returned puts it back."""
        state = self.state_dict()
        held = [(p, p.detach().clone()) for x in self.layers.values() for p in x.parameters()]

        @torch.no_grad()
        def put_back() -> None:
            self.restore(self.unpack(state))
            for parameter, before in held:
                parameter.copy_(before)

        return put_back

    def tell_of_emptied(self) -> None:
        """Say of which layers nothing is left, each once."""
        self._notices.tell_of_emptied(self.emptied)

    def restart(self) -> None:
        """Forget masks and progress; see `rayprune.Pruner.restart`."""
        empty = pack_state(self._store.shapes, {}, {}, ScheduleProgress())
        self.restore(self.unpack({**empty, OriginalShapes.key: self.origins.state_dict()}))

    def awaits_growth(self, clock: float, per_minibatch: float) -> bool:
        """Return whether weights will grow by their dense gradients soon enough to gather those.

        Args:
            clock: at the mask update that comes next.
            per_minibatch: how far the clock goes from one minibatch to the next.
        """
        return self._timing.awaits_growth(clock, per_minibatch)

    @property
    def grows_by_gradients(self) -> bool:
        """Whether weights ever grow by their dense gradients."""
        schedule = self._timing.sparse_schedule
        by_schedule = schedule is not None and schedule.regrows_by == GRADIENT
        return by_schedule or self.config.on_clone == "regrow"

    @torch.no_grad()
    def gather_gradients(self, gradients: Gradients) -> None:
        """Take the dense gradients of one minibatch in, before they are masked.

        Args:
            gradients: by parameter or name; None is passed over.

        Raises:
            InputError: a name is not the module's.
        """
        gradients = by_parameter("gradients", gradients, self.module)
        self._regrowth.gather(gradients, self._timing.sparse_schedule)

    def coverage(self) -> dict[str, Any] | None:
        """Return the share of weights that were ever active (the ITOP rate).

        Returns:
            ``{"all": share, "layers": {name: share}}``; None where training began with all.
        """
        shapes = {x.name: {n: w.shape for n, w in x.named.items()} for x in self.prunable}
        return self._regrowth.coverage.by_layer(shapes)

    def due(self, step: float, updates: float | None = None) -> bool:
        """Return whether `update` would do a mask update now."""
        tick = self._timing.tick(clock_of(step, updates))
        return tick is not None and self._timing.is_due(tick)

    def awaited_units(self, step: float, updates: float | None = None) -> list[Unit]:
        """Return the units whose lost return a mask update that is due waits for.

        Put what was measured into `returns`; the next `update` uses it.
        """
        tick = self._timing.tick(clock_of(step, updates))
        if tick is None or not self._timing.is_due(tick) or not self._awaits_returns(tick):
            return []
        return standing_units(self.prunable, self._store.eligible)

    def _awaits_returns(self, tick: float) -> bool:
        if not self.config.chosen.criterion.needs_returns or self.returns:
            return False
        at = self._timing.ramp(tick)
        return any(
            awaits(self.config, b, at, self._store.eligible)
            for b in self._prunables.phases[0].budgets
        )

    def finished(self, step: float, updates: float | None = None) -> bool:
        """Return whether the schedule is over and every chosen weight is zero."""
        clock = clock_of(step, updates)
        over = (
            clock >= self.config.build_schedule(self.most).end and self._progress.tick is not None
        )
        timing = self._timing
        return over and not timing.goes_on and not timing.is_due(timing.tick(clock) or 0.0)

    @property
    def behind(self) -> bool:
        """Whether a trust region has held back some of what was due."""
        return self._progress.behind

    @property
    def arrived(self) -> bool:
        """Whether no more is left than the schedule leaves at its end; never with a threshold."""
        return not self._store.fading and arrived(
            self.config, self._prunables.phases, self._store.eligible
        )

    @property
    def most(self) -> float:
        """The highest sparsity that the config's targets can ask for."""
        budgets = [budget for phase in self._prunables.phases for budget in phase.budgets]
        return highest_target(self.config, budgets)

    def state_dict(self) -> dict[str, Any]:
        """Return masks, fading weights and progress as CPU tensors and plain values.

        ``torch.save`` and ``torch.load`` take them as they are.

        Targets are not in it: they are the config's, so that a clone keeps its own.
        """
        ages = self._store.fading.ages
        packed = pack_state(self._store.shapes, self.held_masks, ages, self._progress)
        return {**packed, **self._parts.state_dict()}

    def unpack(self, state: Mapping[str, Any]) -> Unpacked:
        """Read what `state_dict` returned, and change nothing yet.

        Raises:
            CheckpointError: the state is broken, or of another network.
        """
        masks, ages, progress = unpack_state(state, self._store.shapes)
        with broken_is_told():
            return Unpacked(masks, ages, progress, self._parts.unpack(state))

    @torch.no_grad()
    def restore(self, unpacked: Unpacked) -> None:
        """Take masks, fading weights and progress over, and zero the pruned weights."""
        self._store.replace(unpacked.masks, unpacked.ages)
        self._progress = unpacked.progress
        for part, entry in unpacked.parts:
            part.restore(entry)
        if self._parts[FrozenParameters].changed:
            self._progress.targets = {}
        self.mask_weights()

    def _can_prune(self) -> bool:
        """See what is frozen now; return whether pruning can go on with it."""
        if self._prunables.look():
            self._store.settle(self.prunable, self._prunables.spared)
            self._progress.targets = {}
        self._notices.tell_of_fault(self._prunables.fault)
        return not self._prunables.fault

    @property
    def _timing(self) -> Timing:
        goes_on = bool(self._store.fading) or self._progress.behind
        return Timing(self.config, self._prunables.phases, self._progress, goes_on)

    def _growth(self, selection: Selection, tick: float, taken: float) -> DropAndGrow:
        timing, means = self._timing, self._regrowth.gradients
        limit = timing.growth_limit(tick)
        schedule = timing.sparse_schedule
        return DropAndGrow(selection, schedule, means, self.held_masks, limit, tick, taken)

    def _commit(self, decided: Decided) -> MaskChange:
        change = self._store.commit(
            decided.keeps,
            decided.grows,
            step=decided.clock,
            operation=decided.operation,
            around=self._around,
        )
        self._progress.updates += 1
        for follow in self._parts.after_commit:
            follow(change)
        return change
