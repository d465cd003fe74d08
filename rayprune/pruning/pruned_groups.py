"""`PrunedGroups`: a module's layers under one config or several, seen as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from rayprune.errors import ConfigError, InputError, did_you_mean
from rayprune.pruning.arguments import as_config
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.group_pruner import GroupPruner
from rayprune.pruning.layers.identity import IdentityLayers
from rayprune.pruning.layers.masked import MaskedLayer
from rayprune.pruning.layers.original_shapes import Kept, OriginalShapes
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.store import all_true
from rayprune.pruning.measures.unmaskable import Uncovered, uncovered_of, weights_of
from rayprune.pruning.pruned_module import Gradients, MaskableModule
from rayprune.pruning.pruner_part import Pick
from rayprune.pruning.reports import LayerCount, MaskChange
from rayprune.pruning.shares import REST, Share, shares_of


class PrunedGroups:
    """A module with its masks: what they are of, and what they are applied to.

    Args:
        subject: the module and all of its maskable layers.
        config: the whole config.
        seed: of the random criterion.
        driven: see `rayprune.Pruner`.
    """

    def __init__(
        self, subject: MaskableModule, config: PruningConfig, *, seed: int, driven: bool
    ) -> None:
        self._subject, self._config = subject, config
        self.module = subject.module
        self.seed = seed
        """Of the random criterion."""
        shares = shares_of(config, subject.groups)

        def member(share: Share) -> GroupPruner:
            own = subject.only(share.layers)
            return GroupPruner(own, share.config, seed=seed, driven=driven)

        self._members = dict(zip((x.name for x in shares), _each(shares, member), strict=True))

    @property
    def members(self) -> tuple[GroupPruner, ...]:
        """Who prunes: one for all layers, or one for each config that some are under."""
        return tuple(self._members.values())

    @property
    def own_groups(self) -> dict[str, GroupPruner]:
        """Who prunes the groups that have choices of their own, by the group's name."""
        return {name: member for name, member in self._members.items() if name != REST}

    @property
    def config(self) -> PruningConfig:
        """The config, read at every use; a new one is checked against the module."""
        return self._config

    @config.setter
    def config(self, config: PruningConfig | Mapping[str, Any]) -> None:
        checked = as_config(config)
        shares = shares_of(checked, self._subject.groups)
        if [share.name for share in shares] != list(self._members):
            raise ConfigError(
                "`pruning.groups` must give the same groups choices of their own as when the "
                f"Pruner was made, {list(self._config.own_groups)}, but gives them to "
                f"{list(checked.own_groups)}. Make a new Pruner."
            )
        before = [member.config for member in self.members]

        def take(share: Share) -> None:
            self._members[share.name].config = share.config

        try:
            _each(shares, take)
        except ConfigError:
            for member, held in zip(self.members, before, strict=True):
                member.config = held
            raise
        self._config = checked

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
        return union(member.held_masks for member in self.members)

    @property
    def written_masks(self) -> dict[str, Tensor]:
        """The masks as they are written into parameters by full name; see `MaskStore.written`."""
        return union(member.written_masks for member in self.members)

    @property
    def uncovered(self) -> Uncovered:
        """What the sparsity is not of: weights without masks, frozen and exempt ones.

        >>> from rayprune import Pruner
        >>> module = nn.ModuleDict({"enc": nn.EmbeddingBag(8, 4), "out": nn.Linear(4, 2)})
        >>> Pruner(module, PruningConfig(sparsity=0.5)).uncovered.line()
        'sparsity is of 8 of 40 weights; not covered: enc.weight (32)'
        """
        weights = weights_of(self.module, self._subject.exclude)
        return uncovered_of(weights, self.prunable, self.weights, self.spared)

    @property
    def layers(self) -> dict[str, MaskedLayer]:
        """Every maskable layer by name, exempt ones included, in the module's order."""
        return dict(self._subject.layers)

    @property
    def heads(self) -> frozenset[str]:
        """The names of the layers of which no unit can go."""
        return self._subject.heads

    @property
    def prunable(self) -> tuple[PrunableLayer, ...]:
        """The layers to be pruned, protected ones included."""
        found = {layer.name: layer for member in self.members for layer in member.prunable}
        return tuple(found[name] for name in self._subject.layers if name in found)

    @property
    def spared(self) -> frozenset[str]:
        """The full names of parameters that are left alone for being frozen."""
        return frozenset(name for member in self.members for name in member.spared)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Every parameter that may ever hold a mask, by full name."""
        return union(member.weights for member in self.members)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The prunable parameters by full name, protected ones included."""
        return union(member.parameters for member in self.members)

    @property
    def masked_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters that pruning zeroes by full name: biases of silent hidden units too."""
        return union(member.masked_parameters for member in self.members)

    @property
    def mask_updates(self) -> int:
        """How often the masks were decided on so far; each group's decisions count."""
        return sum(member.mask_updates for member in self.members)

    @property
    def behind(self) -> bool:
        """Whether a trust region has held back some of what was due at the last mask update."""
        return any(member.behind for member in self.members)

    @property
    def bypasses(self) -> IdentityLayers:
        """The layers that have become the identity."""
        if len(self._members) == 1:
            return self.members[0].bypasses
        return IdentityLayers.joined(member.bypasses for member in self.members)

    @property
    def origins(self) -> OriginalShapes:
        """What the parameters were before compaction in mid-training."""
        return self.members[0].origins  # all of them are told of every compaction

    @property
    def returns(self) -> dict[str, float]:
        """For criterion ``return``: the return lost without each unit; used up by an update."""
        return union(member.returns for member in self.members)

    @returns.setter
    def returns(self, lost: Mapping[str, float]) -> None:
        for member in self.members:
            if len(self._members) == 1 or member.config.chosen.criterion.needs_returns:
                member.returns = lost

    @property
    def measures(self) -> frozenset[str]:
        """What must be gathered from minibatches while training goes on.

        Under the objective ``loss`` the gradients are those that training itself computes.
        """
        return frozenset().union(*(member.measures for member in self.members))

    @property
    def accumulates(self) -> frozenset[str]:
        """What `observe_gradients` sums up: what criteria ask for of `ACCUMULATED`."""
        return frozenset().union(*(member.accumulates for member in self.members))

    def mask_gradients(self, gradients: Gradients) -> None:
        """Zero the gradients of pruned weights, in place.

        Args:
            gradients: by parameter or its full name; parameters without masks, those of other
                modules, and None are left alone.

        Raises:
            InputError: a name is not the module's, or a gradient not shaped like its parameter.
        """
        for member in self.members:
            member.mask_gradients(gradients)

    def mask_weights(self) -> None:
        """Zero the pruned weights, in place."""
        for member in self.members:
            member.mask_weights()

    @property
    def wants_rates(self) -> bool:
        """Whether `penalise` does anything, so that learning rates must be looked up."""
        return any(member.wants_rates for member in self.members)

    def penalise(self, clock: float, rates: Mapping[nn.Parameter, float]) -> None:
        """Let parts write weights after an optimizer step: the penalty's proximal step, if any.

        Args:
            clock: from the schedule's end on nothing shrinks, so that what is left is unbiased.
            rates: the learning rate by parameter; one that nobody steps doesn't shrink.
        """
        for member in self.members:
            member.penalise(clock, rates)

    def mask_tensors(self, tensors: Mapping[str, Tensor] | Mapping[nn.Parameter, Tensor]) -> None:
        """Zero the pruned entries of other tensors, in place.

        Args:
            tensors: by full parameter name or by parameter, shaped like the parameters: moments,
                target weights. Parameters without a mask are left alone.

        Raises:
            InputError: a name is not the module's, or a tensor not shaped like its parameter.
        """
        for member in self.members:
            member.mask_tensors(tensors)

    def mask_along(self, tensors: Callable[[nn.Parameter], Iterable[Tensor]]) -> None:
        """Zero the pruned entries of what belongs to each weight, in place.

        Args:
            tensors: gives a weight's moments, or its copies in target networks, shaped like it.
        """
        for member in self.members:
            member.mask_along(tensors)

    def violations(self) -> dict[str, int]:
        """Return how many pruned weights are not zero, by full parameter name; empty if right."""
        return union(member.violations() for member in self.members)

    def sparsity(self, group: str | None = None) -> float:
        """Return the fraction of the prunable weights that is masked, and really zero.

        A masked weight that an optimizer has moved, where `mask_weights` was not called after its
        step, doesn't count. That takes a pass over the masked weights; `masked` takes none.

        Args:
            group: of this group only; None for all.

        Raises:
            InputError: there is no such group.
        """
        return self._share(group, lambda member: member.sparsity(group))

    def masked(self, group: str | None = None) -> float:
        """Return the fraction of the prunable weights that is masked, whatever they are now.

        Args:
            group: as for `sparsity`.

        Raises:
            InputError: there is no such group.
        """
        return self._share(group, lambda member: member.masked(group))

    @property
    def emptied(self) -> list[str]:
        """The layers of which no prunable weight is left: what comes after them sees constants.

        Not so where layers are what is pruned: those become the identity.
        """
        return [name for member in self.members for name in member.emptied]

    def layer_counts(self) -> list[LayerCount]:
        """Count the weights of every maskable layer, exempt ones included."""
        counts = {count.name: count for member in self.members for count in member.layer_counts()}
        return [counts[name] for name in self._subject.layers]

    def coverage(self) -> dict[str, Any] | None:
        """Return the share of weights that were ever active (the ITOP rate).

        Returns:
            ``{"all": share, "layers": {name: share}}``; None where training began with all.
        """
        told = {member: member.coverage() for member in self.members}
        if len(told) == 1 or not any(told.values()):
            return next(iter(told.values()))
        layers: dict[str, float] = {}
        covered = 0.0
        for member, share in told.items():
            whole = dict.fromkeys((layer.name for layer in member.prunable), 1.0)
            layers |= whole if share is None else share["layers"]
            covered += (1.0 if share is None else share["all"]) * total_of(member)
        return {"all": covered / sum(map(total_of, told)), "layers": layers}

    def compaction_due(self, step: float, updates: float | None = None) -> bool:
        """Return whether ``compact_every`` wants dead units looked for now."""
        return any(member.compaction_due(step, updates) for member in self.members)

    def compacted(
        self,
        step: float,
        before: Mapping[str, tuple[int, ...]],
        kept: Mapping[str, Kept],
        pick: Pick,
    ) -> None:
        """Follow a compaction of the module, whose parameters and masks have shrunk already.

        Args:
            step: the clock.
            before: the shapes that its parameters had.
            kept: the indices that are left of those that shrank; empty if nothing went.
            pick: takes them out of a tensor shaped like the parameter of that name.
        """
        for member in self.members:
            member.compacted(step, before, kept, pick)

    def _share(self, group: str | None, share: Callable[[GroupPruner], float]) -> float:
        """Return a share of weights over all members that have the group."""
        holders = [m for m in self.members if group in (None, *(x.group for x in m.prunable))]
        if not holders:
            groups = sorted({layer.group for layer in self.prunable})
            raise InputError(
                f"`group` must be one of {groups}, but is {group!r}.{did_you_mean(group, groups)}"
            )
        if len(holders) == 1:
            return share(holders[0])
        # A share of n weights is a count by n: rounded, it is that count again.
        counts = [(round(share(m) * total_of(m, group)), total_of(m, group)) for m in holders]
        return sum(count for count, _ in counts) / sum(total for _, total in counts)


def _each(shares: Iterable[Share], do: Callable[[Share], Any]) -> list[Any]:
    """Do something for each share; faults of all of them are raised together."""
    done, faults = [], list[str]()
    for share in shares:
        try:
            done.append(do(share))
        except ConfigError as error:
            faults += share.told(error.faults)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return done


def union(mappings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one dict of mappings whose keys differ."""
    return {name: value for mapping in mappings for name, value in mapping.items()}


def total_of(member: GroupPruner, group: str | None = None) -> int:
    """Return how many weights a member's sparsity is of; of one group, or of all."""
    return sum(layer.total for layer in member.prunable if group in (None, layer.group))


def joined(
    changes: Sequence[tuple[GroupPruner, MaskChange]], total: int, sparsity: float
) -> MaskChange:
    """Return what several members did in one mask update.

    Args:
        changes: of those that did something.
        total: the prunable weights of all members.
        sparsity: of them, after it.
    """
    return MaskChange(
        step=changes[0][1].step,
        pruned=sum(change.pruned for _, change in changes),
        churn=sum(change.churn * total_of(member) for member, change in changes) / total,
        sparsity=sparsity,
        changed=tuple(name for _, change in changes for name in change.changed),
        grown=sum(change.grown for _, change in changes),
        regrown=union(change.regrown for _, change in changes),
        scales=union(change.scales for _, change in changes),
    )
