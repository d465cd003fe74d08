"""`Pruner`: one module, one config, mask update by mask update."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.errors import CheckpointError, ConfigError, InputError, did_you_mean
from rayprune.pruning.arguments import (
    as_config,
    awaited,
    check_arguments,
    check_gate,
    check_number,
    check_types,
    checked_exclusions,
    checked_patterns,
)
from rayprune.pruning.config import DEFAULT_HORIZON, PruningConfig
from rayprune.pruning.evidence.measuring import measure
from rayprune.pruning.evidence.reduce import Across
from rayprune.pruning.evidence.table import (
    ACCUMULATED,
    GRADIENT,
    MOVEMENT,
    NOTHING,
    Accumulated,
    Evidence,
    Source,
)
from rayprune.pruning.granularity import Network, granularity_of
from rayprune.pruning.granularity.sensors import Sensors
from rayprune.pruning.layers.attach import (
    Exclusions,
    join,
    make_maskable,
    maskable_layers,
    tied_layers,
)
from rayprune.pruning.layers.identity import IdentityLayers
from rayprune.pruning.layers.masked import MASKABLE, MaskedLayer
from rayprune.pruning.layers.original_shapes import Kept, Origins
from rayprune.pruning.layers.prunable import PrunableLayer, Unit, protected_names
from rayprune.pruning.masks.fading import Fading
from rayprune.pruning.masks.state import broken_is_told, pack_state, unpack_state
from rayprune.pruning.masks.store import Masking, all_true
from rayprune.pruning.measures.uncovered import Uncovered, count, weights_of
from rayprune.pruning.naming import by_parameter
from rayprune.pruning.packing import packed
from rayprune.pruning.penalties import penalty_of
from rayprune.pruning.precision import scored
from rayprune.pruning.remedies.rescale import keep_norm
from rayprune.pruning.reports import LayerCount as LayerCount
from rayprune.pruning.reports import MaskChange as MaskChange
from rayprune.pruning.reports import ScheduleProgress, empty_line
from rayprune.pruning.update.budgets import (
    Budget,
    Ramp,
    highest_target,
    scopes_of,
    threshold_scopes,
)
from rayprune.pruning.update.dynamics import Dynamics, Redrawing
from rayprune.pruning.update.frozen import Frozen, frozen_faults, frozen_in, without_frozen
from rayprune.pruning.update.phases import Phase, phase_faults, phases_of
from rayprune.pruning.update.progress import arrived, awaits, standing_units
from rayprune.pruning.update.selection import Selection
from rayprune.pruning.update.timing import Timing

logger = logging.getLogger(__name__)

# Minibatches' dense gradients that a clone's regrowth averages.
DEFAULT_WINDOW = 100

Gradients = Mapping[nn.Parameter, Tensor | None] | Mapping[str, Tensor | None]
"""Gradients by parameter, or by its full name."""


class Pruner:
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
        exclude = checked_exclusions(module, exclude)
        checked = as_config(config)
        self.module = make_maskable(module, exclude=exclude)
        self.seed = int(seed)
        self._driven = driven
        found = maskable_layers(module, exclude=exclude)
        if not found:
            kinds = ", ".join(kind.__name__ for kind in MASKABLE)
            raise InputError(f"The module has no layer to prune: none with weights is a {kinds}.")
        check_types(found)
        self.origins = Origins()
        """What the parameters were before compaction in mid-training."""
        self._all = tuple(
            PrunableLayer(name, layer, groups(name) if groups else "all", origins=self.origins)
            for name, layer in found.items()
        )
        self._always_exempt = _matching("exempt", checked_patterns("exempt", exempt), list(found))
        self._heads = _matching("heads", checked_patterns("heads", heads), list(found))
        self._tied = tied_layers(module, exclude=exclude)
        self._exclude = exclude
        self._sensors = sensors
        self.bypasses = IdentityLayers()
        self.returns: dict[str, float] = {}
        """For criterion ``return``: the return lost without each unit; used up by an update."""
        self._masking = Masking(self._all)
        self._frozen: Frozen = {}
        self._flags: list[bool] = []
        self._fading = Fading()
        self._dynamics = Dynamics()
        self._progress = ScheduleProgress()
        self.accumulated = Accumulated()
        """Sums over training steps, of what `accumulates` names."""
        self._warned = self._told_to_post = False
        self._told_empty: set[str] = set()
        self.config = checked
        line = self.uncovered.line()
        if line is not None and not driven:
            logger.warning("%s%s", line[0].upper(), line[1:])

    @property
    def config(self) -> PruningConfig:
        """The config, read at every use; a new one is checked against the module."""
        return self._config

    @config.setter
    def config(self, config: PruningConfig | Mapping[str, Any]) -> None:
        self._settle(as_config(config), frozen_in(self._all))

    def _settle(self, config: PruningConfig, frozen: Frozen) -> None:
        """Take a config for what is frozen at the moment; on a fault nothing is changed."""
        candidates = [x for x in self._all if x.name not in self._always_exempt]
        granularity = granularity_of(config.granularity)
        could = granularity.layers_of(candidates, self._network(config))
        faults = frozen_faults(config, could, frozen)
        if faults:
            raise ConfigError(faults)
        layers = without_frozen(config, could, frozen)
        exempt = frozenset(layer.name for layer in self._all) - {layer.name for layer in layers}
        protected = protected_names(layers, config.protect)
        free = [layer for layer in layers if layer.name not in protected]
        faults = granularity.layer_faults(free, protected, self._tied)
        phases = phases_of(config, layers, self._heads)
        faults += phase_faults(phases, exempt, self._heads)
        if faults:
            raise ConfigError(faults)
        self._config, self._exempt, self._layers, self._phases = config, exempt, layers, phases
        self._frozen, self._frozen_fault = frozen, ""
        kept = frozen if config.frozen == "keep" else {}
        self._left_alone = {x.name for x in could} - {x.name for x in layers}
        self._masking.spare(join(name, key) for name, keys in kept.items() for key in keys)
        self._fading.forget(self._masking.spared)

    def _network(self, config: PruningConfig) -> Network:
        return Network(
            module=self.module,
            heads=self._heads,
            tied=self._tied,
            sensors=self._sensors,
            by_return=config.chosen.criterion.needs_returns,
        )

    def _survey(self) -> bool:
        """See what is frozen now; return whether pruning can go on with it.

        Masks stay on what was frozen after it was pruned. What was unfrozen is pruned as far as the
        schedule has come, at once.
        """
        if self._config.frozen != "keep":
            return True
        flags = [p.requires_grad for x in self._all for p in x.module.parameters(recurse=False)]
        if flags == self._flags:  # asked at every update, where names would cost more than the rest
            return not self._frozen_fault
        self._flags, frozen = flags, frozen_in(self._all)
        if frozen == self._frozen:
            self._frozen_fault = ""
            return True
        try:
            self._settle(self._config, frozen)
        except ConfigError as error:
            # Nothing that a config can mend in mid-run: training goes on, with the masks of now.
            if str(error) != self._frozen_fault:
                logger.warning("Nothing more is pruned while it is so: %s", error)
            self._frozen_fault = str(error)
            return False
        self._progress.targets = {}
        return True

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks by full parameter name, of every prunable parameter and of what holds one.

        The live tensors. What is whole still has an all-True one, made anew each time, that takes
        no memory; what is written to that one is lost.
        """
        whole = {name: all_true(weight) for name, weight in self.parameters.items()}
        return whole | self.held_masks

    @property
    def held_masks(self) -> dict[str, Tensor]:
        """The masks of `masks` that pruning has made: a name is absent until it is pruned."""
        return self._masking.masks

    @property
    def uncovered(self) -> Uncovered:
        """What the sparsity is not of: weights without masks, frozen and exempt ones.

        >>> module = nn.ModuleDict({"enc": nn.Embedding(8, 4), "out": nn.Linear(4, 2)})
        >>> Pruner(module, PruningConfig(sparsity=0.5)).uncovered.line()
        'sparsity is of 8 of 40 weights; not covered: enc.weight (32)'
        """
        weights = weights_of(self.module, self._exclude)
        prunable = {id(weight) for weight in self.parameters.values()}
        maskable = {id(weight) for weight in self._masking.weights.values()}
        alone = {id(w) for n, w in self._masking.weights.items() if n in self._masking.spared}
        left = {name: w for name, w in weights.items() if id(w) not in prunable}
        return Uncovered(
            covered=sum(layer.total for layer in self._layers),
            not_maskable={n: count(w) for n, w in left.items() if id(w) not in maskable},
            frozen={n: count(w) for n, w in left.items() if id(w) in alone},
            exempt={n: count(w) for n, w in left.items() if id(w) in maskable - alone},
        )

    @property
    def heads(self) -> frozenset[str]:
        """The names of the layers of which no unit can go."""
        return self._heads

    @property
    def mask_updates(self) -> int:
        """How often the masks were decided on so far."""
        return self._progress.updates

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The prunable parameters by full name, protected ones included."""
        return {
            layer.full_name(name): parameter
            for layer in self._layers
            for name, parameter in layer.parameters.items()
        }

    @property
    def layers(self) -> dict[str, MaskedLayer]:
        """Every maskable layer by name, exempt ones included, in the module's order."""
        return {layer.name: layer.module for layer in self._all}

    @property
    def masked_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters that pruning zeroes by full name: biases of silent hidden units too."""
        weights = self._masking.weights
        held = {name: weights[name] for name in self.held_masks}  # what was frozen since, too
        silenced = {name: bias for name, (bias, _) in self._masking.silenced.items()}
        return self.parameters | held | silenced

    def scores(self, batch: Any = None, loss: Any = None) -> dict[str, Tensor]:
        """Score every prunable weight by the config's criterion, before pooling.

        Args:
            batch: for criteria that need data: a minibatch (a tensor or a mapping of tensors), or
                an iterable of minibatches.
            loss: ``f(module, minibatch) -> scalar``, the mean over samples; or an
                `rayprune.pruning.evidence.objectives.Objective`. It stands for the config's.

        Returns:
            Scores by full parameter name, shaped like the parameters; higher = keep. A unit's
            score stands at each of its weights.

        Raises:
            InputError: the criterion needs what wasn't given.
        """
        phase = self._phases[0]
        selection = self._selection(self._summed() | self.measure(batch, loss), phase.config)
        units = self.config.chosen.criterion.scores == "units"
        return selection.all_scores(phase.layers if units else self._layers)

    def measure(
        self,
        batch: Any = None,
        loss: Any = None,
        across: Across | None = None,
        wanted: frozenset[str] | None = None,
    ) -> Evidence:
        """Gather from minibatches what the criterion asks for; nothing without a batch.

        Args:
            batch: as for `scores`.
            loss: as for `scores`.
            across: brings several processes together.
            wanted: see `rayprune.pruning.evidence.measuring.measure`.
        """
        if batch is None:
            return NOTHING
        return measure(self.module, self._layers, self.config, batch, loss, across, wanted)

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
        if not self._survey():
            raise ConfigError(self._frozen_fault)
        budgets = [
            (phase, phase.budgets if sparsity is None else phase.retargeted(float(sparsity)))
            for phase in self._phases
        ]
        gathered = evidence() if evidence else self.measure(batch, loss)
        known = self._summed() | gathered
        keeps = self._decide(budgets, at=lambda target: target, share=1.0, evidence=known)
        return self._commit(keeps, None, 1)

    @torch.no_grad()
    def start(self) -> MaskChange | None:
        """Make the random mask of a schedule that is sparse from the start, before any update.

        Returns:
            What it did; None for another schedule, or when the run has begun already.
        """
        timing = self._timing
        if timing.sparse_schedule is None or self._progress.tick is not None:
            return None
        targets, by_chance = timing.targets(0.0), [phase.by_chance() for phase in self._phases]
        budgets = [(phase, phase.budgets) for phase in by_chance]
        change = self._commit(self._decide(budgets, timing.ramp(0.0), 1.0, NOTHING), None, 1)
        self._dynamics.coverage.begin(self.held_masks)
        self._progress.tick, self._progress.targets = 0.0, targets
        return change

    def restart(self) -> None:
        """Forget masks and progress: for weights that come from elsewhere, and are dense.

        The next mask update chooses among them by the criterion, where `start` chooses by chance.
        """
        empty = pack_state(self._masking.shapes, {}, {}, ScheduleProgress())
        self.load_state_dict({**empty, "origins": self.origins.state_dict()})

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
        self._check_driver()
        self._warn_of_horizon()
        clock = _clock(step, updates)
        if not self._survey():
            return None
        timing = self._timing
        tick = timing.tick(clock)
        if tick is None or not timing.is_due(tick):
            return None
        if self._awaits_returns(tick):
            return None
        targets, budgets = timing.targets(tick), [(phase, phase.budgets) for phase in self._phases]
        known = self._summed() | (evidence() if evidence else NOTHING)
        keeps = self._decide(budgets, timing.ramp(tick), timing.share(tick), known)
        keeps, grows = self._redraw(keeps, tick, known)
        change = self._commit(keeps, clock, self.config.fading_updates, grows)
        self.accumulated.clear_gradients()
        self.returns.clear()
        self._progress.tick, self._progress.targets = tick, targets
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
        schedule = self._timing.sparse_schedule
        window = (schedule.window if schedule is not None else 0) or DEFAULT_WINDOW
        self._dynamics.gather(gradients, self.parameters, window)

    def coverage(self) -> dict[str, Any] | None:
        """Return the share of weights that were ever active (the ITOP rate).

        Returns:
            ``{"all": share, "layers": {name: share}}``; None where training began with all.
        """
        return self._dynamics.coverage.by_layer({x.name: _shapes(x) for x in self._layers})

    def due(self, step: float, updates: float | None = None) -> bool:
        """Return whether `update` would do a mask update now."""
        tick = self._timing.tick(_clock(step, updates))
        return tick is not None and self._timing.is_due(tick)

    def awaited_units(self, step: float, updates: float | None = None) -> list[Unit]:
        """Return the units whose lost return a mask update that is due waits for.

        Put what was measured into `returns`; the next `update` uses it.
        """
        tick = self._timing.tick(_clock(step, updates))
        if tick is None or not self._timing.is_due(tick) or not self._awaits_returns(tick):
            return []
        return standing_units(self._layers, self._eligible)

    def _awaits_returns(self, tick: float) -> bool:
        if not self.config.chosen.criterion.needs_returns or self.returns:
            return False
        at = self._timing.ramp(tick)
        return any(awaits(self.config, b, at, self._eligible) for b in self._phases[0].budgets)

    def finished(self, step: float, updates: float | None = None) -> bool:
        """Return whether the schedule is over and every chosen weight is zero."""
        clock = _clock(step, updates)
        over = (
            clock >= self.config.build_schedule(self.most).end and self._progress.tick is not None
        )
        timing = self._timing
        return over and not self._fading and not timing.is_due(timing.tick(clock) or 0.0)

    @property
    def arrived(self) -> bool:
        """Whether no more is left than the schedule leaves at its end; never with a threshold."""
        return not self._fading and arrived(self.config, self._phases, self._eligible)

    @property
    def accumulates(self) -> frozenset[str]:
        """What `observe_gradients` sums up: what the criterion asks for of `ACCUMULATED`."""
        wanted = self.config.chosen.criterion.evidence & ACCUMULATED
        return wanted if self.config.evidence["objective"] == "loss" else wanted - {GRADIENT}

    def observe_gradients(self, gradients: Gradients) -> None:
        """Sum up the dense gradients of one training step, where anything asks for them.

        Args:
            gradients: by parameter or name, before masking and clipping; None counts as zero.

        Raises:
            InputError: a name is not the module's.
        """
        kinds = self.accumulates
        if not kinds:
            return
        gradients = by_parameter("gradients", gradients, self.module)
        weights = self.parameters
        found = {name: gradients.get(weight) for name, weight in weights.items()}
        dense = {name: gradient for name, gradient in found.items() if gradient is not None}
        self.accumulated.add(weights, dense, kinds)

    @property
    def most(self) -> float:
        """The highest sparsity that the config's targets can ask for."""
        budgets = [budget for phase in self._phases for budget in phase.budgets]
        return highest_target(self.config, budgets)

    @torch.no_grad()
    def mask_gradients(self, gradients: Gradients) -> None:
        """Zero the gradients of pruned weights, in place.

        Args:
            gradients: by parameter or its full name; parameters without masks, those of other
                modules, and None are left alone.

        Raises:
            InputError: a name is not the module's, or a gradient not shaped like its parameter.
        """
        gradients = by_parameter("gradients", gradients, self.module)
        self._masking.mask_gradients(gradients)
        self.bypasses.stop_gradients(gradients)

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Zero the pruned weights, in place."""
        self._masking.mask_weights()
        self.bypasses.hold()

    @torch.no_grad()
    def penalise(self, clock: float, rates: Mapping[nn.Parameter, float]) -> None:
        """Do the penalty's proximal step, if the config has one, after an optimizer step.

        Args:
            clock: from the schedule's end on nothing shrinks, so that what is left is unbiased.
            rates: the learning rate by parameter; one that nobody steps doesn't shrink.
        """
        block = self.config.penalty
        if block is None or clock >= self.config.build_schedule(0.0).end:
            return
        spared = protected_names(self._layers, self.config.protect)
        penalty = penalty_of(block)
        if penalty.spares_heads:
            spared |= self._heads
        layers = [layer for layer in self._layers if layer.name not in spared]
        for layer in layers:
            for key, weight in layer.parameters.items():
                if weight not in rates:
                    raise InputError(
                        f"`rates` must hold the learning rate of {layer.full_name(key)!r}, by "
                        "parameter, but doesn't. Take the optimizer's param_groups' `lr`."
                    )
        for layer in layers:
            penalty.shrink(layer, lambda w: rates[w] * block["strength"])

    @torch.no_grad()
    def mask_tensors(self, tensors: Mapping[str, Tensor] | Mapping[nn.Parameter, Tensor]) -> None:
        """Zero the pruned entries of other tensors, in place.

        Args:
            tensors: by full parameter name or by parameter, shaped like the parameters: moments,
                target weights. Parameters without a mask are left alone.

        Raises:
            InputError: a name is not the module's, or a tensor not shaped like its parameter;
                nothing was changed.
        """
        self._masking.mask_tensors(by_parameter("tensors", tensors, self.module))

    @torch.no_grad()
    def mask_along(self, tensors: Callable[[nn.Parameter], Iterable[Tensor]]) -> None:
        """Zero the pruned entries of what belongs to each weight, in place.

        Args:
            tensors: gives a weight's moments, or its copies in target networks, shaped like it.
        """
        self._masking.mask_along(tensors)

    @torch.no_grad()
    def violations(self) -> dict[str, int]:
        """Return how many pruned weights are not zero, by full parameter name; empty if right."""
        return self._masking.violations()

    def sparsity(self, group: str | None = None) -> float:
        """Return the fraction of the prunable weights that is masked, and really zero.

        A masked weight that an optimizer has moved, where `mask_weights` was not called after its
        step, doesn't count. That takes a pass over the masked weights; `masked` takes none.

        Args:
            group: of this group only; None for all.

        Raises:
            InputError: there is no such group.
        """
        stray = self._masking.stray
        return self._share(group, lambda x: x.pruned - sum(map(stray, _names(x))))

    def masked(self, group: str | None = None) -> float:
        """Return the fraction of the prunable weights that is masked, whatever they are now.

        Args:
            group: as for `sparsity`.

        Raises:
            InputError: there is no such group.
        """
        return self._share(group, lambda layer: layer.pruned)

    def _share(self, group: str | None, count: Callable[[PrunableLayer], int]) -> float:
        layers = [layer for layer in self._layers if group in (None, layer.group)]
        if not layers:
            groups = sorted({layer.group for layer in self._layers})
            raise InputError(
                f"`group` must be one of {groups}, but is {group!r}.{did_you_mean(group, groups)}"
            )
        return sum(map(count, layers)) / sum(layer.total for layer in layers)

    @property
    def emptied(self) -> list[str]:
        """The layers of which no prunable weight is left: what comes after them sees constants.

        Not so where layers are what is pruned: those become the identity.
        """
        if self.config.chosen.granularity.becomes_identity:
            return []
        return [layer.name for layer in self._layers if layer.pruned == layer.total]

    def layer_counts(self) -> list[LayerCount]:
        """Count the weights of every maskable layer, exempt ones included."""
        protected = protected_names(self._layers, self.config.protect)
        # Of a layer that is frozen in part, what is prunable counts.
        prunable = {layer.name: layer for layer in self._layers}
        layers = [prunable.get(layer.name, layer) for layer in self._all]
        return [self._count(layer, layer.name in protected) for layer in layers]

    def state_dict(self) -> dict[str, Any]:
        """Return masks, fading weights and progress as CPU tensors and plain values.

        ``torch.save`` and ``torch.load`` take them as they are.

        Targets are not in it: they are the config's, so that a clone keeps its own.
        """
        shapes = self._masking.shapes
        packed = pack_state(shapes, self.held_masks, self._fading.ages, self._progress)
        sums = {"accumulated": self.accumulated.state_dict()}
        held = {
            "bypassed": self.bypasses.names,
            "returns": {name: float(lost) for name, lost in self.returns.items()},
            "frozen": sorted(self._masking.spared),
            "origins": self.origins.state_dict(),
        }
        return {**packed, **sums, **held, "dynamics": self._dynamics.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take masks, fading weights and progress over, and zero the pruned weights.

        Raises:
            CheckpointError: the state is broken, or of another network; nothing was changed.
        """
        masks, ages, progress = unpack_state(state, self._masking.shapes)
        weights, layers = self._masking.weights, self.layers
        dynamics, accumulated = Dynamics(), Accumulated()
        with broken_is_told():  # before anything is changed
            Origins().load_state_dict(state.get("origins"))
            dynamics.load_state_dict(state.get("dynamics"), weights)
            accumulated.load_state_dict(state.get("accumulated", {}), self.parameters)
            bypassed = {name: layers[name] for name in state.get("bypassed", ())}
            returns = {name: float(lost) for name, lost in state.get("returns", {}).items()}
            was_frozen = frozenset(state.get("frozen", self._masking.spared))
        self._masking.replace(masks)
        self.origins.load_state_dict(state.get("origins"))
        self._fading = Fading({name: age.to(weights[name].device) for name, age in ages.items()})
        self._dynamics, self.accumulated = dynamics, accumulated
        self._progress, self.returns = progress, returns
        if was_frozen != self._masking.spared:
            self._progress.targets = {}  # what is trained by now is due
        self.bypasses.replace(bypassed, layers)
        self.mask_weights()

    def take_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Take masks from elsewhere, and zero what they prune; the progress stays its own.

        Args:
            masks: by full parameter name, True = keep; a mask that keeps all is none.

        Raises:
            CheckpointError: a name or shape isn't the module's; nothing was changed.
        """
        shapes = self._masking.shapes
        wrong = [name for name, mask in masks.items() if shapes.get(name) != tuple(mask.shape)]
        if wrong:
            raise CheckpointError(
                f"The mask of {wrong[0]!r} has shape {tuple(masks[wrong[0]].shape)}, but the "
                f"module has {shapes.get(wrong[0])}. Build the module as it was pruned."
            )
        state = self.state_dict()
        taken = {name: packed(mask) for name, mask in masks.items() if not mask.all()}
        self.load_state_dict({**state, "masks": {**state["masks"], **taken}})

    def compaction_due(self, step: float, updates: float | None = None) -> bool:
        """Return whether ``compact_every`` wants dead units looked for now."""
        every = self.config.compact_every
        return self.origins.due(_clock(step, updates), every, self._progress.updates)

    def compacted(
        self,
        step: float,
        before: Mapping[str, tuple[int, ...]],
        kept: Mapping[str, Kept],
        pick: Callable[[str, Tensor], Tensor],
    ) -> None:
        """Follow a compaction of the module, whose parameters and masks have shrunk already.

        Args:
            step: the clock.
            before: the shapes that its parameters had.
            kept: the indices that are left of those that shrank; empty if nothing went.
            pick: takes them out of a tensor shaped like the parameter of that name.
        """
        self.origins.note(step, self.config.compact_every or 1, self._progress.updates)
        if kept:
            self.origins.narrow(before, kept, by_unit=self.config.chosen.granularity.whole_rows)
            self._masking.forget()
            self._fading.pick(pick)
            self.accumulated.pick(pick)

    def _summed(self) -> Evidence:
        """Return the evidence that training itself has summed up, if the criterion asks for any."""
        held = {MOVEMENT: self.accumulated.movement(), GRADIENT: self.accumulated.gradients()}
        return Evidence({kind: held[kind] for kind in self.accumulates if held[kind]})

    def _decide(
        self,
        budgets: Iterable[tuple[Phase, list[Budget]]],
        at: Ramp,
        share: float,
        evidence: Evidence,
    ) -> dict[str, Tensor]:
        """Choose the weights that stay, by full parameter name, without changing anything."""
        keeps: dict[str, Tensor] = {}
        for phase, targets in budgets:
            # What an earlier phase drops is no longer there for a later one to choose.
            selection = self._selection(evidence, phase.config, dict(keeps))
            for name, keep in self._decide_phase(selection, targets, at, share).items():
                keeps[name] = keep & keeps[name] if name in keeps else keep
        return keeps

    def _decide_phase(
        self, selection: Selection, budgets: list[Budget], at: Ramp, share: float
    ) -> dict[str, Tensor]:
        config = selection.config
        keeps: dict[str, Tensor] = {}
        for budget in budgets:
            if budget.target is None:
                scopes = threshold_scopes(config, budget)
                assert config.threshold is not None
                keeps |= selection.keep_above_threshold(scopes, config.threshold, share)
            else:
                for scope in scopes_of(config, budget, at):
                    keeps |= selection.keep_scope(scope)
        return keeps

    def _redraw(
        self, keeps: dict[str, Tensor], tick: float, evidence: Evidence
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Let weights grow where schedule or ``on_clone`` want it; see `Redrawing.redraw`."""
        redrawing = self._redrawing(evidence)
        if redrawing.schedule is None and self.config.on_clone != "regrow":
            return keeps, {}
        budgets = self._phases[0].budgets  # what grows has granularity weight, of one phase
        keeps, grows = redrawing.redraw(budgets, keeps, self._timing.growth_limit(tick), tick)
        if grows:
            self._dynamics.gradients.clear()
        return keeps, grows

    def _redrawing(self, evidence: Evidence) -> Redrawing:
        schedule = self._timing.sparse_schedule
        return Redrawing(self._selection(evidence), schedule, self._dynamics, self.held_masks)

    @property
    def _timing(self) -> Timing:
        return Timing(self._config, self._phases, self._progress, bool(self._fading))

    def _commit(
        self,
        keeps: dict[str, Tensor],
        step: float | None,
        updates: int,
        grows: Mapping[str, Tensor] | None = None,
    ) -> MaskChange:
        """Drop or fade what is not kept, zero what is gone, and let grow what is chosen."""
        pruned = grown = 0
        changed: dict[str, None] = {}
        regrown: dict[str, Tensor] = {}
        scales: dict[str, float] = {}
        for name in self._masking.names:
            if name not in keeps and name not in self._fading.ages:
                continue
            weight = self._masking.weight(name)
            norm = scored(weight.detach()).norm() if self.config.remedies.get("rescale") else None
            gone = self._newly_gone(name, keeps.pop(name, None), updates)
            count = int(torch.count_nonzero(gone))
            if count:
                self._masking.drop(name, gone)
                if norm is not None:
                    scales[name] = keep_norm(weight, norm)
                changed[name] = None
                pruned += count
        for name, fresh in (grows or {}).items():
            count = int(torch.count_nonzero(fresh))
            if count:
                self._masking.grow(name, fresh)
                self._dynamics.coverage.note(name, self.held_masks[name])
                changed[name], regrown[name] = None, fresh
                grown += count
        self._progress.updates += 1
        self._tell_of_emptied()
        if self.config.chosen.granularity.becomes_identity:
            self.bypasses.add({layer.name: layer.module for layer in self._layers})
        churn = (pruned + grown) / sum(layer.total for layer in self._layers)
        return MaskChange(
            step, pruned, churn, self.masked(), tuple(changed), grown, regrown, scales
        )

    def _newly_gone(self, name: str, keep: Tensor | None, updates: int) -> Tensor:
        free = self._eligible(name)
        weight = self._masking.weight(name)
        if keep is None:
            dropped = torch.zeros_like(weight, dtype=torch.bool)
        else:
            # In place: pages that are asked for anew cost more than the arithmetic on them.
            dropped = keep.logical_not_()
            if free is not None:
                dropped.logical_and_(free)
        return self._fading.advance(name, weight, dropped, updates, self.config.fading_factor)

    def _eligible(self, name: str) -> Tensor | None:
        return self._fading.eligible(name, self._masking.mask(name))

    def _selection(
        self,
        evidence: Evidence,
        config: PruningConfig | None = None,
        dropped: Mapping[str, Tensor] | None = None,
    ) -> Selection:
        def eligible(name: str) -> Tensor | None:
            free, keep = self._eligible(name), (dropped or {}).get(name)
            return keep if free is None else free if keep is None else free & keep

        config = self.config if config is None else config
        updates = self._progress.updates
        return Selection(
            config,
            self._masking.weights,
            eligible,
            self.seed,
            updates,
            evidence,
            dict(self.returns),
        )

    def _count(self, layer: PrunableLayer, protected: bool) -> LayerCount:
        weights = layer.parameters
        return LayerCount(
            name=layer.name,
            parameters=tuple(layer.full_name(name) for name in weights),
            shape=layer.dims,
            total=layer.total,
            nonzero=sum(int(torch.count_nonzero(weight)) for weight in weights.values()),
            sparsity=layer.pruned / layer.total,
            protected=protected,
            group=layer.group,
            exempt=layer.name in self._exempt,
            frozen=layer.name in self._left_alone,
        )

    def _check_driver(self) -> None:
        """Don't wait in silence for what nobody may post."""
        if self._driven:
            return
        check_gate(self.config)
        waits = awaited(self.config)
        if waits is not None and not self._told_to_post:
            self._told_to_post = True
            logger.warning(waits)

    def _tell_of_emptied(self) -> None:
        new = [name for name in self.emptied if name not in self._told_empty]
        if new and not self._driven:
            self._told_empty.update(new)
            logger.warning(empty_line(new))

    def _warn_of_horizon(self) -> None:
        if self.config.needs_horizon and not self._warned:
            self._warned = True
            logger.warning(
                "The schedule's `begin` and `end` are fractions, but `horizon` was not given: "
                "taking %s env steps. Pass PruningConfig(horizon=...).",
                f"{DEFAULT_HORIZON:_}",
            )


def _clock(step: float, updates: float | None) -> float:
    check_number("step", step)
    if updates is not None:
        check_number("updates", updates)
    return step if step or updates is None else updates


def _names(layer: PrunableLayer) -> list[str]:
    return [layer.full_name(key) for key in layer.parameters]


def _shapes(layer: PrunableLayer) -> dict[str, torch.Size]:
    return {layer.full_name(key): weight.shape for key, weight in layer.parameters.items()}


def _matching(field: str, patterns: Iterable[str], names: list[str]) -> frozenset[str]:
    """Return the names that a pattern matches; one that matches none is an InputError."""
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            hint = did_you_mean(pattern, names) or f" Layers are {names}."
            raise InputError(f"`{field}` pattern {pattern!r} matches no layer.{hint}")
        matched |= found
    return frozenset(matched)
