"""`PruningConfig`: what to prune, how much of it, and when."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from rayprune.errors import ConfigError
from rayprune.pruning.blocks import evidence
from rayprune.pruning.blocks import groups as group_blocks
from rayprune.pruning.blocks.normal_form import as_json, completed
from rayprune.pruning.choices import chosen_of, faults_of
from rayprune.pruning.component import Chosen
from rayprune.pruning.recipes import expanded
from rayprune.pruning.schedules import SCHEDULES, Schedule, complete, fields_of, schedule_of

DEFAULT_HORIZON = 200_000


@dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """What to prune, how much of it, and when.

    Args:
        recipe: a key of `rayprune.pruning.recipes.RECIPES`, which says what the other fields are
            where they are left out; of critic, pace and bound to `rayprune.rllib.prune` and a YAML.
        sparsity: fraction of the prunable weights to prune, in [0, 1). Protected layers count
            among them and stay dense, so the other layers carry their share.
        threshold: in place of ``sparsity``: prune where the score is at most a threshold.
            ``{"absolute": x}``, ``{"percentile": p}`` of the scores in the scope, or
            ``{"mean_fraction": f}`` of their mean, with ``"of_lowest": k`` of the lowest k % only.
        criterion: what ranks the weights; a key of `rayprune.pruning.criteria.CRITERIA`.
        granularity: ``weight``, ``neuron`` (output units; ``filter`` is an alias), ``block``,
            ``n:m`` such as ``2:4`` (it implies the sparsity), ``input`` (sensors),
            ``layer`` (residual blocks, layers of one width) or ``hybrid``.
        hybrid: with granularity ``hybrid``: ``{"neuron": u, "weight": w}``, fractions of the units
            and of *all* prunable weights, those of pruned units included; or ``{"head": h,
            "weight": w}``. Units go first, then the lowest weights of those that are left (by
            ``l1`` where the criterion scores whole units).
        pooling: how a unit's score comes from its weights': ``sum``, ``mean`` or ``l2``.
        distribution: ``uniform``, ``erk``, ``global``, a registered one, or
            ``{layer name: sparsity}``.
        operation: ``zero``, or ``{"scale": c, "steps": k}``: multiply by c at each mask update,
            and at the k-th set to zero.
        schedule: ``{"kind", "begin", "end", "every"}`` and what else the kind takes. ``begin`` and
            ``end`` up to 1 are fractions of the horizon, above it env steps; ``every`` is the env
            steps between mask updates. ``one_shot`` uses ``begin`` alone. With ``begin`` as
            ``{"return": R}`` pruning waits for a return, and ``end`` counts from there. For
            other kinds see `rayprune.pruning.schedules`, a file each. ``static``, ``set``, ``rigl``
            and ``grow`` are sparse from before the first update on.
        max_kl: how far a mask update may move the policy: the most KL(before || after) on the last
            minibatches, in nats. Of a larger step a part is taken, and caught up with later; see
            `rayprune.pruning.update.trust_region`. None: no bound.
        max_value_change: the same bound for values (V or Q): the most mean absolute change, as a
            share of their standard deviation (or of that of the targets that V is trained towards,
            where it is larger). For networks that act by Q-values it is the only one.
        protect: glob patterns of the names of layers that are never pruned.
        frozen: what happens to parameters with ``requires_grad=False``, and to modules that the
            adaptor's ``policies_to_train`` leaves out: ``keep`` leaves them alone, not prunable and
            not counted, until they are unfrozen; ``prune`` treats them as all others.
        groups: ``{group: {"sparsity": s}}``, a budget of its own for each group named; or any of
            `rayprune.pruning.blocks.groups.OWN`, in place of the config's: ``{"policy":
            {"schedule": {"kind": "static"}}}``. See `of_group`.
        on_clone: what a clone does with masks sparser than its target: ``hold`` them, or
            ``regrow`` up to it at the next mask update.
        penalty: ``{"kind": "l1" | "group_lasso" | "gates", "strength": x}``: until the schedule's
            end each optimizer step shrinks what may be pruned by learning rate times strength. What
            is small then goes by ``sparsity`` or ``threshold``. See `rayprune.pruning.penalties`.
        distillation: ``{"weight": 1.0, "from": None, "temperature": 1.0}`` adds a KL term to a
            frozen policy to the loss: that of before the first pruning, of the ``"start"``, or of
            a checkpoint. The adaptor does it; `Pruner` does not. None: no such term.
        remedies: what keeps learning stable, by the keys of `rayprune.pruning.remedies`.
        compact_every: env steps between live compactions (granularities ``neuron``, ``hybrid``):
            units that do nothing leave the networks that are trained, with moments and target
            networks. The adaptor does it; `Pruner` does not. None never does.
        evidence: what criteria that need data go by: ``objective``, a key of
            `rayprune.pruning.evidence.objectives.OBJECTIVES`; most ``observations`` and
            ``minibatches``; ``estimator`` of information gain, ``gaussian`` or ``binned``;
            ``permutations`` for Shapley values. Keys that the criterion doesn't use are allowed.
        plasticity: ``{"every": n}``: every n optimizer steps, dormant units, effective ranks and
            gradient noise are measured for 16 steps; None never does. See
            `rayprune.pruning.measures.plasticity`.
        fused_optimizer: let the adaptor use torch's fused optimizer steps.
        horizon: env steps of the whole run, which fractions refer to.

    Raises:
        ConfigError: one or more values are wrong; holds every fault.

    >>> try:
    ...     PruningConfig(sparsity=1.0, pooling="max")
    ... except ConfigError as error:
    ...     print(error)
    `sparsity` must be in [0, 1), but is 1.0.
    `pooling` must be one of ['l2', 'mean', 'sum'], but is 'max'.
    """

    recipe: str | None = None
    sparsity: float | None = None
    threshold: dict[str, int | float] | None = None
    criterion: str = "l1"
    granularity: str = "weight"
    hybrid: dict[str, float] | None = None
    pooling: str = "mean"
    distribution: str | dict[str, float] = "uniform"
    operation: str | dict[str, int | float] = "zero"
    schedule: dict[str, Any] = field(default_factory=lambda: complete({}))
    max_kl: float | None = None
    max_value_change: float | None = None
    protect: tuple[str, ...] = ()
    frozen: str = "keep"
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    on_clone: str = "hold"
    penalty: dict[str, Any] | None = None
    distillation: dict[str, Any] | None = None
    remedies: dict[str, Any] = field(default_factory=dict)
    compact_every: int | None = None
    evidence: dict[str, Any] = field(default_factory=lambda: dict(evidence.DEFAULTS))
    plasticity: dict[str, int] | None = field(default_factory=lambda: {"every": 1000})
    fused_optimizer: bool = True
    horizon: int | None = None

    # Hidden from type checkers, which know the fields by themselves.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            faults = self.faults_of(values, prefix="")
            if faults:
                raise ConfigError(faults)
            vars(self).update(_whole(expanded(values)), _given=dict(values))

    @classmethod
    def faults_of(cls, values: object, prefix: str = "pruning.") -> list[str]:
        """Return every fault of a mapping of fields, without building the config.

        Args:
            values: as it would be passed to `from_dict`.
            prefix: what the field names start with in the messages.

        >>> PruningConfig.faults_of({"sparsity": -0.1, "granulrity": "weight"})[0]
        "`pruning.granulrity` is not a known key. Did you mean 'granularity'?"
        """
        whole = expanded(values) if isinstance(values, Mapping) else values
        return faults_of(whole, prefix, cls.names())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the fields' names."""
        return tuple(each.name for each in fields(cls))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PruningConfig:
        """Build from a mapping of fields; what it leaves out has its default."""
        faults, config = cls.parse(values, prefix="")
        if config is None:
            raise ConfigError(faults)
        return config

    @classmethod
    def parse(
        cls, values: object, prefix: str = "pruning."
    ) -> tuple[list[str], PruningConfig | None]:
        """Return every fault, as `faults_of` does, and the config where there is none."""
        faults = cls.faults_of(values, prefix)
        if faults or not isinstance(values, Mapping):
            return faults, None
        config = cls.__new__(cls)  # the constructor would check once more
        vars(config).update(_whole(expanded(values)), _given=dict(values))
        return [], config

    @property
    def given(self) -> Mapping[str, Any]:
        """The fields that were named when it was made, as they were; a recipe says more of a run.

        >>> PruningConfig(recipe="recommended", sparsity=0.9).given
        {'recipe': 'recommended', 'sparsity': 0.9}
        """
        return self.__dict__.get("_given") or self._fields()

    def to_dict(self) -> dict[str, Any]:
        """Return every field as plain numbers, strings, lists and dicts, fit for JSON or YAML."""
        return {name: as_json(value) for name, value in self._fields().items()}

    def replace(self, **changes: Any) -> PruningConfig:
        """Return a copy with some fields changed, checked like a new one.

        >>> PruningConfig(sparsity=0.5).replace(sparsity=0.8).sparsity
        0.8
        """
        config = type(self).from_dict({**self.to_dict(), **changes})
        vars(config)["_given"] = {**self.given, **changes}
        return config

    def over(self, horizon: int | None) -> PruningConfig:
        """Return a copy for a run of so many env steps; nothing is checked anew.

        >>> PruningConfig(sparsity=0.5).over(1000).resolved_horizon
        1000
        """
        return self.unchecked(horizon=horizon)

    def unchecked(self, **changes: Any) -> PruningConfig:
        """Return a copy with some fields changed; nothing is checked anew."""
        config = type(self).__new__(type(self))
        vars(config).update(self._fields(), **changes, _given={**self.given, **changes})
        return config

    def without_pruning(self) -> PruningConfig:
        """Return the config of the dense twin: the same training, in which nothing is pruned.

        >>> config = PruningConfig(sparsity=0.5, criterion="shapley", granularity="neuron")
        >>> twin = config.without_pruning()
        >>> twin.dense, twin.granularity, twin.schedule == config.schedule
        (True, 'weight', True)
        """
        held = {name: value for name, value in self.to_dict().items() if name in _OF_TRAINING}
        if self.chosen.criterion.scores == "weights":
            held["criterion"] = self.criterion
        return type(self).from_dict({**held, "sparsity": 0.0})

    @functools.cached_property
    def chosen(self) -> Chosen:
        """The criterion, granularity and schedule that it names, which know their own rules."""
        return chosen_of(self._fields())

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.names()}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what follows from the fields."""
        return self._fields()

    @functools.cached_property
    def _schedule(self) -> type[Schedule]:
        return schedule_of(self.schedule)

    @property
    def own_groups(self) -> tuple[str, ...]:
        """The groups that have more of their own than a budget.

        >>> PruningConfig(sparsity=0.5, groups={"policy": {"criterion": "l2"}}).own_groups
        ('policy',)
        """
        return tuple(group_blocks.own_blocks(self.groups))

    def of_group(self, name: str) -> PruningConfig:
        """Return the config of a group: this one, with the group's own choices in their places.

        Args:
            name: one of `own_groups`.
        """
        whole = {key: value for key, value in self.to_dict().items() if value is not None}
        return type(self).from_dict(group_blocks.fields_of(whole, self.groups[name]))

    @property
    def shared_out(self) -> list[PruningConfig]:
        """The configs that layers are under: this one alone, where no group has its own."""
        if not self.own_groups:
            return [self]
        return [self.of_the_rest(), *map(self.of_group, self.own_groups)]

    def of_the_rest(self) -> PruningConfig:
        """Return the config of the layers whose groups have no choices of their own."""
        budgets = {k: v for k, v in self.groups.items() if k not in self.own_groups}
        bare = type(self).faults_of({**self.to_dict(), "groups": budgets})
        sparsity = 0.0 if bare else self.sparsity  # whatever prunes is a group's own
        return self.unchecked(groups=budgets, sparsity=sparsity)

    @property
    def unbounded(self) -> bool:
        """Whether a driver finds the sparsity and nothing bounds it."""
        return self.gated and self.sparsity is None and self._implied is None

    @property
    def target(self) -> float | None:
        """The sparsity at the end that is given or implied; None with a threshold."""
        if self.sparsity is not None or self.threshold is not None:
            return self.sparsity
        if self.hybrid is not None:
            return self.hybrid["weight"]
        return self._implied or 0.0

    @property
    def _implied(self) -> float | None:
        """The sparsity that the granularity's name implies."""
        return self.chosen.granularity.implied_sparsity

    @property
    def dense(self) -> bool:
        """Whether it prunes nothing at all.

        >>> PruningConfig(sparsity=0).dense, PruningConfig(granularity="2:4").dense
        (True, False)
        """
        if self.own_groups:
            return all(config.dense for config in self.shared_out)
        named = () if isinstance(self.distribution, str) else self.distribution.values()
        targets = [self.target, *named]
        targets += [target for group in self.groups.values() for target in group.values()]
        return not self.unbounded and self.penalty is None and all(t == 0 for t in targets)

    @property
    def resolved_horizon(self) -> int:
        """The horizon in env steps; `DEFAULT_HORIZON` when none was given."""
        return DEFAULT_HORIZON if self.horizon is None else self.horizon

    @property
    def needs_horizon(self) -> bool:
        """Whether the schedule holds fractions, and no horizon was given."""
        return self.horizon is None and bool(self.fractions)

    @property
    def fractions(self) -> dict[str, Any]:
        """What of the schedules is a fraction of the run, by its key; a group's by its path."""
        found = self._schedule.fractions(self.schedule)
        for name in self.own_groups:
            if "schedule" in self.groups[name]:
                own = self.of_group(name).fractions.items()
                found |= {f"groups.{name}.schedule.{key}": share for key, share in own}
        return found

    @property
    def gated(self) -> bool:
        """Whether a driver finds the sparsity by the return; ``sparsity`` is a bound then."""
        return self.chosen.schedule.finds_sparsity

    @property
    def needs_returns(self) -> bool:
        """Whether a driver must measure returns for a criterion, the config's or a group's."""
        return any(config.chosen.criterion.needs_returns for config in self.shared_out)

    @property
    def every(self) -> int:
        """Env steps between mask updates."""
        return self._schedule.every(self.schedule, self.resolved_horizon)

    @property
    def plasticity_every(self) -> int | None:
        """Optimizer steps between measurements of the plasticity; None for none."""
        return None if self.plasticity is None else int(self.plasticity["every"])

    @property
    def fading_updates(self) -> int:
        """How many mask updates a chosen weight takes to reach zero (1: at once)."""
        return 1 if isinstance(self.operation, str) else int(self.operation["steps"])

    @property
    def fading_factor(self) -> float:
        """What a chosen weight is multiplied by at each mask update until it is zeroed."""
        return 0.0 if isinstance(self.operation, str) else float(self.operation["scale"])

    def build_schedule(self, final: float, horizon: int | None = None) -> Schedule:
        """Build the schedule in env steps.

        Args:
            final: sparsity at its end, in [0, 1).
            horizon: env steps of the run; None takes the config's own.

        >>> PruningConfig(sparsity=0.9).build_schedule(0.9, horizon=1000)
        CubicSchedule(final=0.9, begin=200.0, end=800.0)
        """
        fields = fields_of(self.schedule, horizon) if horizon else self._schedule_fields
        schedule: Schedule = SCHEDULES[self.schedule["kind"]](**fields, final=final)
        return schedule

    @functools.cached_property  # asked at every optimizer step
    def _schedule_fields(self) -> dict[str, Any]:
        return fields_of(self.schedule, self.resolved_horizon)


def choices_of(config: PruningConfig) -> dict[str, Any]:
    """Return what a report says of a config.

    >>> choices_of(PruningConfig(granularity="2:4", schedule={"kind": "static"}))
    {'schedule': 'static', 'criterion': 'l1', 'granularity': '2:4', 'target': 0.5}
    """
    return {
        "schedule": config.schedule["kind"],
        "criterion": config.criterion,
        "granularity": config.granularity,
        "target": config.target,
    }


_OF_TRAINING = frozenset(
    {
        # When on checkpoints are candidates for the best.
        "schedule",
        "pooling",
        "operation",
        "frozen",
        "on_clone",
        "remedies",
        "evidence",
        "plasticity",
        "fused_optimizer",
        "horizon",
    }
)
"""The fields that a dense twin shares; what a new field does to the masks is not among them."""


def _whole(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all fields: the defaults, and over them ``values``, which were checked."""
    defaults = {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(PruningConfig)
    }
    return {**defaults, **completed(values)}
