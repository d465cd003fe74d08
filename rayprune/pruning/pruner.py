"""`Pruner`: unstructured or structured pruning of one module, update by update."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from rayprune.errors import CheckpointError, InputError
from rayprune.pruning.arguments import as_config, check_arguments, check_number, clock_of
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.evidence.evidence import NOTHING, Evidence, Source
from rayprune.pruning.evidence.gradients import GradientMeans
from rayprune.pruning.evidence.reduce import Reduce
from rayprune.pruning.granularity.sensors import Sensors
from rayprune.pruning.group_pruner import Decided, GroupPruner
from rayprune.pruning.layers.attach import Exclusions
from rayprune.pruning.layers.prunable import Unit
from rayprune.pruning.masks.state import broken_is_told
from rayprune.pruning.notices import Notices
from rayprune.pruning.packing import packed
from rayprune.pruning.pruned_groups import PrunedGroups, joined, total_of, union
from rayprune.pruning.pruned_module import Gradients, MaskableModule
from rayprune.pruning.reports import LayerCount as LayerCount
from rayprune.pruning.reports import MaskChange as MaskChange
from rayprune.pruning.update.reconstruction import Calibration, cuts_of, in_cuts, made_up_for
from rayprune.pruning.update.trust_region import (
    Divergence,
    MembersStep,
    TrustRegion,
    take_within,
)

_SHARED: Final = ("shapes", "masks", "ages")
"""What stands in a state by parameter name, for all groups together."""
_GROUPS: Final = "groups"


class Pruner(PrunedGroups):
    """Prunes one module by one config, whose groups may have choices of their own.

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
        config = as_config(config)  # before anything is changed
        subject = MaskableModule.of(
            module, groups=groups, exempt=exempt, heads=heads, sensors=sensors, exclude=exclude
        )
        super().__init__(subject, config, seed=int(seed), driven=driven)
        Notices(driven=driven).tell_of_uncovered(self.uncovered.line())

    @property
    def accumulated(self) -> GradientMeans:
        """Sums over training steps, of what `accumulates` names.

        Raises:
            InputError: groups have choices of their own, and each of `members` has its sums.
        """
        if len(self._members) > 1:
            raise InputError(
                "Each group that has choices of its own has its sums: take `accumulated` of one "
                "of `pruner.members`."
            )
        return self.members[0].accumulated

    def observe_gradients(self, gradients: Gradients) -> None:
        """Sum up the dense gradients of one training step, where anything asks for them.

        Args:
            gradients: by parameter or name, before masking and clipping; None counts as zero.

        Raises:
            InputError: a name is not the module's.
        """
        for member in self.members:
            member.observe_gradients(gradients)

    def awaits_growth(self, clock: float, per_minibatch: float) -> bool:
        """Return whether weights will grow by their dense gradients soon enough to gather those.

        Args:
            clock: at the mask update that comes next.
            per_minibatch: how far the clock goes from one minibatch to the next.
        """
        return any(member.awaits_growth(clock, per_minibatch) for member in self.members)

    def gather_gradients(self, gradients: Gradients) -> None:
        """Take the dense gradients of one minibatch in, before they are masked.

        Args:
            gradients: by parameter or name; None is passed over.

        Raises:
            InputError: a name is not the module's.
        """
        for member in self.members:
            if len(self._members) == 1 or member.grows_by_gradients:
                member.gather_gradients(gradients)

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
        return union(member.scores(batch, loss) for member in self.members)

    def measure(
        self,
        batch: Any = None,
        loss: Any = None,
        across: Reduce | None = None,
        wanted: frozenset[str] | None = None,
    ) -> Evidence:
        """Gather from minibatches what the criterion asks for; nothing without a batch.

        Args:
            batch: as for `scores`.
            loss: as for `scores`.
            across: brings several processes together.
            wanted: what to gather; None for all that the criterion asks for and batches can tell.
        """
        found = NOTHING
        for member in self.members:
            found = found.beside(member.measure(batch, loss, across, wanted))
        return found

    @torch.no_grad()
    def prune_to(
        self,
        sparsity: float | None = None,
        *,
        batch: Any = None,
        loss: Any = None,
        evidence: Source | None = None,
        calibration: Calibration | None = None,
    ) -> MaskChange:
        """Prune in one shot, to zero at once, whatever the schedule and the operation are.

        Args:
            sparsity: for every budget, in [0, 1); None takes the config's own targets, or its
                threshold. Masks only ever grow sparser: a lower sparsity than now changes nothing.
            batch: as for `scores`.
            loss: as for `scores`.
            evidence: in place of both, as for `update`.
            calibration: as for `update`; with remedy ``reconstruct`` it is done in several cuts,
                each made up for before the next is chosen.

        Raises:
            ConfigError: out of range, or out of the reach that protected layers leave.
            NonFiniteError: a score is NaN.
            RunError: a threshold would prune everything.
        """
        if sparsity is not None:
            check_number("sparsity", sparsity)
            sparsity = float(sparsity)
        evidence = None if evidence is None else functools.cache(evidence)
        batch = list(batch) if isinstance(batch, Iterator) else batch  # for more than one cut

        def decided(member: GroupPruner, share: float) -> Decided:
            own = _source(self, member, evidence) or (lambda: member.measure(batch, loss))
            return member.decide_at_once(sparsity, own, share)

        def cut(share: float) -> MaskChange:
            taken = [decided(member, share) for member in self.members]
            repair = made_up_for(self, calibration)
            change = self._carry_out(taken)
            assert change is not None
            repair(change)
            return change

        return in_cuts(cut, 1 if calibration is None else cuts_of(self.config))

    def start(self) -> MaskChange | None:
        """Make the random mask of a schedule that is sparse from the start, before any update.

        Returns:
            What it did; None for another schedule, or when the run has begun already.
        """
        return self._carry_out([member.decide_start() for member in self.members])

    def restart(self) -> None:
        """Forget masks and progress: for weights that come from elsewhere, and are dense.

        The next mask update chooses among them by the criterion, where `start` chooses by chance.
        """
        for member in self.members:
            member.restart()

    @torch.no_grad()
    def update(
        self,
        step: float,
        updates: float | None = None,
        evidence: Source | None = None,
        divergence: Divergence | None = None,
        calibration: Calibration | None = None,
    ) -> MaskChange | None:
        """Do the mask update that the schedule has due, if one is.

        One is due when the clock passes a tick of ``every``, and when a target was raised (with
        ``on_clone: regrow`` also when it was lowered).

        Args:
            step: lifetime env steps; the clock, unless it is 0.
            updates: optimizer updates; the clock where no steps are sampled.
            evidence: gathers what the criterion needs, such as ``lambda: pruner.measure(batch,
                loss)``; called when an update is due.
            divergence: called when an update is due, before masks change, and what it returns once
                they have: how far the policy has moved, a `PolicyChange` or a KL in nats. See
                `rayprune.pruning.update.trust_region`. It must draw no random numbers. With
                ``max_kl`` or ``max_value_change`` it is asked again for each step that is tried;
                it may return None while it can't tell, and nothing is done until it can.
            calibration: for remedy ``reconstruct``: runs the module, before masks change and after.

        Raises:
            ConfigError: the schedule is gated, and there is no driver.
            InputError: the criterion or a bound needs what wasn't given, or a clock is no number;
                nothing was changed.
            NonFiniteError: a score is NaN; nothing was changed.
            RunError: a threshold would prune everything; nothing was changed.
        """
        clock = clock_of(step, updates)
        evidence = None if evidence is None else functools.cache(evidence)

        def decided(share: float = 1.0) -> list[Decided | None]:
            sources = [_source(self, member, evidence) for member in self.members]
            pairs = zip(self.members, sources, strict=True)
            return [member.decide(clock, source, share) for member, source in pairs]

        whole, region = decided(), TrustRegion.of(self.config)
        if all(one is None for one in whole):
            return None
        region.check(divergence)
        repair = made_up_for(self, calibration)

        def take(share: float) -> MaskChange:
            change = self._put_in_force(whole if share == 1.0 else decided(share))
            assert change is not None
            repair(change)
            return change

        if divergence is None:
            return self._told(take(1.0))

        return self._told(take_within(region, MembersStep(self.members, take), divergence))

    def due(self, step: float, updates: float | None = None) -> bool:
        """Return whether `update` would do a mask update now."""
        return any(member.due(step, updates) for member in self.members)

    def awaited_units(self, step: float, updates: float | None = None) -> list[Unit]:
        """Return the units whose lost return a mask update that is due waits for.

        Put what was measured into `returns`; the next `update` uses it.
        """
        return [unit for member in self.members for unit in member.awaited_units(step, updates)]

    def finished(self, step: float, updates: float | None = None) -> bool:
        """Return whether the schedule is over and every chosen weight is zero."""
        return all(member.finished(step, updates) for member in self.members)

    @property
    def arrived(self) -> bool:
        """Whether no more is left than the schedule leaves at its end; never with a threshold."""
        return all(member.arrived for member in self.members)

    @property
    def most(self) -> float:
        """The highest sparsity that the config's targets can ask for."""
        return max(member.most for member in self.members)

    def state_dict(self) -> dict[str, Any]:
        """Return masks, fading weights and progress as CPU tensors and plain values.

        ``torch.save`` and ``torch.load`` take them as they are.

        Targets are not in it: they are the config's, so that a clone keeps its own.
        """
        states = {name: member.state_dict() for name, member in self._members.items()}
        if len(states) == 1:
            return next(iter(states.values()))
        own = {
            name: {key: entry for key, entry in state.items() if key not in _SHARED}
            for name, state in states.items()
        }
        shared = {key: union(state[key] for state in states.values()) for key in _SHARED}
        # For who reads the masks alone, and knows no groups.
        progress: Any = {"tick": None, "targets": {}, "updates": self.mask_updates}
        origins = self.origins.state_dict()
        return {"version": 1, **shared, "progress": progress, "origins": origins, _GROUPS: own}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take masks, fading weights and progress over, and zero the pruned weights.

        Raises:
            CheckpointError: the state is broken, or of another network; nothing was changed.
        """
        states = {name: _state_of(self._members, name, state) for name in self._members}
        unpacked = {name: self._members[name].unpack(held) for name, held in states.items()}
        for name, held in unpacked.items():
            self._members[name].restore(held)

    def take_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Take masks from elsewhere, and zero what they prune; the progress stays its own.

        Args:
            masks: by full parameter name, True = keep; a mask that keeps all is none.

        Raises:
            CheckpointError: a name or shape isn't the module's; nothing was changed.
        """
        _check_shapes(masks, self.weights)
        state = self.state_dict()
        taken = {name: packed(mask) for name, mask in masks.items() if not mask.all()}
        self.load_state_dict({**state, "masks": {**state["masks"], **taken}})

    def _carry_out(self, decided: Iterable[Decided | None]) -> MaskChange | None:
        """Put decisions in force, once all of them are taken, and say what people must know."""
        return self._told(self._put_in_force(decided))

    def _told(self, change: MaskChange | None) -> MaskChange | None:
        for member in self.members if change is not None else ():
            member.tell_of_emptied()
        return change

    def _put_in_force(self, decided: Iterable[Decided | None]) -> MaskChange | None:
        pairs = list(zip(self.members, decided, strict=True))
        changes = [(member, member.carry_out(it)) for member, it in pairs if it is not None]
        if len(self._members) == 1 or not changes:
            return changes[0][1] if changes else None
        return joined(changes, sum(map(total_of, self.members)), self.masked())


def _check_shapes(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    wrong = [name for name, mask in masks.items() if shapes.get(name) != tuple(mask.shape)]
    if wrong:
        raise CheckpointError(
            f"The mask of {wrong[0]!r} has shape {tuple(masks[wrong[0]].shape)}, but the "
            f"module has {shapes.get(wrong[0])}. Build the module as it was pruned."
        )


def _source(pruner: Pruner, member: GroupPruner, evidence: Source | None) -> Source | None:
    """Return what gathers a member's evidence: of its own parameters."""
    if evidence is None or len(pruner.members) == 1:
        return evidence
    return lambda: evidence().of(member.weights)


def _state_of(
    members: Mapping[str, GroupPruner], name: str, state: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return a member's part of a state."""
    with broken_is_told():
        saved = list(state.get(_GROUPS, {}))
        if saved != (list(members) if len(members) > 1 else []):
            raise CheckpointError(
                f"The pruning state is of a run whose groups {saved} had choices of their "
                f"own, but here they are {list(members)}. Build the module with the "
                "`pruning.groups` that it was trained with."
            )
        if not saved:
            return state
        known = members[name].weights
        shared = {key: {n: held for n, held in state[key].items() if n in known} for key in _SHARED}
        return {**shared, **state[_GROUPS][name]}
