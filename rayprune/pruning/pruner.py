"""`Pruner`: unstructured or structured pruning of one module by one config, update by update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from rayprune.errors import CheckpointError, ConfigError
from rayprune.pruning.arguments import check_arguments, check_number, clock_of
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.evidence.evidence import NOTHING, Source
from rayprune.pruning.evidence.gradients import GradientMeans
from rayprune.pruning.granularity.sensors import Sensors
from rayprune.pruning.layers.attach import Exclusions
from rayprune.pruning.layers.identity import IdentityLayers
from rayprune.pruning.layers.original_shapes import OriginalShapes
from rayprune.pruning.layers.prunable import Unit
from rayprune.pruning.masks.state import broken_is_told, pack_state, unpack_state
from rayprune.pruning.masks.store import AT_ONCE, Around, Operation
from rayprune.pruning.naming import by_parameter
from rayprune.pruning.notices import Notices
from rayprune.pruning.packing import packed
from rayprune.pruning.penalties.proximal_step import ProximalStep
from rayprune.pruning.pruned_module import Gradients
from rayprune.pruning.pruner_part import PrunerPart
from rayprune.pruning.remedies import REMEDIES
from rayprune.pruning.remedies.base import Remedy
from rayprune.pruning.reports import LayerCount as LayerCount
from rayprune.pruning.reports import MaskChange as MaskChange
from rayprune.pruning.reports import ScheduleProgress
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


class Pruner(ScoredModule):
    """Prunes one module by one config.

    Makes the module maskable. The caller masks gradients before the optimizer's step and weights
    after it, and at a `MaskChange` multiplies what it owns itself (`mask_tensors`): optimizer
    moments and target networks.

    Args:
        module: any module with maskable layers; not wrapped in DDP.
        config: what to prune, or a mapping of a `PruningConfig`'s fields; assign `config` to change
            it.
        groups: layer name -> group; without it every layer is in the group ``all``.
        exempt: glob patterns of layers that are not prunable at all and count nowhere.
        heads: glob patterns of layers whose output units are the module's own outputs: no unit of
            theirs can go, so that they are exempt where units are pruned; see
            `rayprune.pruning.tracing.heads.find_heads`.
        sensors: called where granularity ``input`` is used: returns which inputs of which layers
            read the observation; see `rayprune.pruning.granularity.sensors.find_sensors`.
        exclude: modules or glob patterns that are not touched; see `make_maskable`.
        seed: of the random criterion.
        driven: whether the caller posts what a schedule waits for: a gated one's ``level``, or
            that the return is reached which ``begin`` names (``began``); and tells people what is
            not covered (`uncovered`), which a Pruner without a driver logs.

    Raises:
        ConfigError: the config doesn't fit the module; holds every fault.
        InputError: an argument is of a wrong type, there is nothing to prune, or
            ``torch.nn.utils.prune`` pruned a bias.

    >>> module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> pruner = Pruner(module, PruningConfig(sparsity=0.5))
    >>> pruner.prune_to(0.75).pruned, pruner.sparsity()
    (36, 0.75)
    >>> pruner.masks["0.weight"].dtype
    torch.bool
    """

    def __init__(
        self,
        module: nn.Module,
        config: PruningConfig | Mapping[str, Any],
        *,
        groups: Callable[[str], str] | None = None,
        exempt: Iterable[str] = (),
        heads: Iterable[str] = (),
        sensors: Callable[[], Sensors] | None = None,
        exclude: Exclusions = (),
        seed: int = 0,
        driven: bool = False,
    ) -> None:
        check_arguments(module, groups=groups, seed=seed)
        super().__init__(
            module,
            config,
            parts_in_order(),
            groups=groups,
            exempt=exempt,
            heads=heads,
            sensors=sensors,
            exclude=exclude,
        )
        self._parts.attach(self)
        self.seed = int(seed)
        self._regrowth = self._parts[Regrowth]
        self._around = Around(self._parts.before_drop, self._parts.after_drop)
        self._notices = Notices(driven=driven)
        self._notices.tell_of_uncovered(self.uncovered.line())

    @torch.no_grad()
    def prune_to(
        self,
        sparsity: float | None = None,
        *,
        batch: Any = None,
        loss: Any = None,
        evidence: Source | None = None,
    ) -> MaskChange:
        """Prune in one shot, to zero at once, whatever the schedule and the operation are.

        Args:
            sparsity: for every budget, in [0, 1); None takes the config's own targets, or its
                threshold. Masks only ever grow sparser: a lower sparsity than now changes nothing.
            batch: as for `scores`.
            loss: as for `scores`.
            evidence: in place of both, as for `update`.

        Raises:
            ConfigError: out of range, or out of the reach that protected layers leave.
            NonFiniteError: a score is NaN.
            RunError: a threshold would prune everything.
        """
        if sparsity is not None:
            check_number("sparsity", sparsity)
        if not self._can_prune():
            raise ConfigError(self._prunables.fault)
        targets = [
            (phase, phase.budgets if sparsity is None else phase.retargeted(float(sparsity)))
            for phase in self._prunables.phases
        ]
        gathered = evidence() if evidence else self.measure(batch, loss)
        selection = self._selection(self.accumulated.evidence() | gathered)
        keeps, _ = decide(selection, targets, at=lambda target: target)
        return self._commit(keeps)

    @torch.no_grad()
    def start(self) -> MaskChange | None:
        """Make the random mask of a schedule that is sparse from the start, before any update.

        Returns:
            What it did; None for another schedule, or when the run has begun already.
        """
        timing = self._timing
        if timing.sparse_schedule is None or self._progress.tick is not None:
            return None
        by_chance = [phase.by_chance() for phase in self._prunables.phases]
        targets = [(phase, phase.budgets) for phase in by_chance]
        keeps, _ = decide(self._selection(NOTHING), targets, timing.ramp(0.0))
        due = timing.targets(0.0)
        change = self._commit(keeps)
        self._regrowth.coverage.begin(self.held_masks)
        self._progress.tick, self._progress.targets = 0.0, due
        return change

    def restart(self) -> None:
        """Forget masks and progress: for weights that come from elsewhere, and are dense.

        The next mask update chooses among them by the criterion, where `start` chooses by chance.
        """
        empty = pack_state(self._store.shapes, {}, {}, ScheduleProgress())
        self.load_state_dict({**empty, OriginalShapes.key: self.origins.state_dict()})

    @torch.no_grad()
    def update(
        self, step: float, updates: float | None = None, evidence: Source | None = None
    ) -> MaskChange | None:
        """Do the mask update that the schedule has due, if one is.

        One is due when the clock passes a tick of ``every``, and when a target was raised (with
        ``on_clone: regrow`` also when it was lowered).

        Args:
            step: lifetime env steps; the clock, unless it is 0.
            updates: optimizer updates; the clock where no steps are sampled.
            evidence: gathers what the criterion needs, such as ``lambda: pruner.measure(batch,
                loss)``; called when an update is due.

        Raises:
            ConfigError: the schedule is gated, and there is no driver.
            InputError: the criterion needs what wasn't given, or a clock is no number; nothing was
                changed.
            NonFiniteError: a score is NaN; nothing was changed.
            RunError: a threshold would prune everything; nothing was changed.
        """
        self._notices.check_driver(self.config)
        self._notices.tell_of_horizon(self.config)
        clock = clock_of(step, updates)
        if not self._can_prune():
            return None
        timing = self._timing
        tick = timing.tick(clock)
        if tick is None or not timing.is_due(tick) or self._awaits_returns(tick):
            return None
        due = timing.targets(tick)
        targets = [(phase, phase.budgets) for phase in self._prunables.phases]
        known = self.accumulated.evidence() | (evidence() if evidence else NOTHING)
        selection = self._selection(known)
        growth = self._growth(selection, tick)
        keeps, grows = decide(selection, targets, timing.ramp(tick), timing.share(tick), growth)
        if grows:
            self._regrowth.gradients.clear()
        operation = Operation(self.config.fading_updates, self.config.fading_factor)
        change = self._commit(keeps, grows, clock, operation)
        for follow in self._parts.after_update:
            follow(change)
        self._progress.tick, self._progress.targets = tick, due
        return change

    def awaits_growth(self, clock: float, per_minibatch: float) -> bool:
        """Return whether weights will grow by their dense gradients soon enough to gather those.

        Args:
            clock: at the mask update that comes next.
            per_minibatch: how far the clock goes from one minibatch to the next.
        """
        return self._timing.awaits_growth(clock, per_minibatch)

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
        return over and not self._store.fading and not timing.is_due(timing.tick(clock) or 0.0)

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

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take masks, fading weights and progress over, and zero the pruned weights.

        Raises:
            CheckpointError: the state is broken, or of another network; nothing was changed.
        """
        masks, ages, progress = unpack_state(state, self._store.shapes)
        with broken_is_told():  # before anything is changed
            unpacked = self._parts.unpack(state)
        self._store.replace(masks, ages)
        self._progress = progress
        for part, entry in unpacked:
            part.restore(entry)
        if self._parts[FrozenParameters].changed:
            self._progress.targets = {}
        self.mask_weights()

    def take_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Take masks from elsewhere, and zero what they prune; the progress stays its own.

        Args:
            masks: by full parameter name, True = keep; a mask that keeps all is none.

        Raises:
            CheckpointError: a name or shape isn't the module's; nothing was changed.
        """
        shapes = self._store.shapes
        wrong = [name for name, mask in masks.items() if shapes.get(name) != tuple(mask.shape)]
        if wrong:
            raise CheckpointError(
                f"The mask of {wrong[0]!r} has shape {tuple(masks[wrong[0]].shape)}, but the "
                f"module has {shapes.get(wrong[0])}. Build the module as it was pruned."
            )
        state = self.state_dict()
        taken = {name: packed(mask) for name, mask in masks.items() if not mask.all()}
        self.load_state_dict({**state, "masks": {**state["masks"], **taken}})

    def _can_prune(self) -> bool:
        """See what is frozen now; return whether pruning can go on with it."""
        if self._prunables.look():
            self._store.settle(self.prunable, self._prunables.spared)
            self._progress.targets = {}
        self._notices.tell_of_fault(self._prunables.fault)
        return not self._prunables.fault

    @property
    def _timing(self) -> Timing:
        fades = bool(self._store.fading)
        return Timing(self.config, self._prunables.phases, self._progress, fades)

    def _growth(self, selection: Selection, tick: float) -> DropAndGrow:
        timing, means = self._timing, self._regrowth.gradients
        limit = timing.growth_limit(tick)
        schedule = timing.sparse_schedule
        return DropAndGrow(selection, schedule, means, self.held_masks, limit, tick)

    def _commit(
        self,
        keeps: Masks,
        grows: Mapping[str, Tensor] | None = None,
        step: float | None = None,
        operation: Operation = AT_ONCE,
    ) -> MaskChange:
        """Put a decision in force; at once, and not in steps, unless it says so."""
        change = self._store.commit(
            keeps, grows or {}, step=step, operation=operation, around=self._around
        )
        self._progress.updates += 1
        self._notices.tell_of_emptied(self.emptied)
        for follow in self._parts.after_commit:
            follow(change)
        return change
