"""Live compaction on a Learner: the networks that it trains shrink once units of theirs are dead.

EnvRunners follow by themselves: `rayprune.rllib.modules.resizable` resizes their modules to the
weights that arrive at the next sync.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from torch.utils._pytree import tree_map

from rayprune.deploy.compaction.live import TrainedNetwork, fingerprint, plan_live, prove_live
from rayprune.deploy.compaction.plan import Plan, apply_plan
from rayprune.errors import ConfigError, InputError, InvariantError
from rayprune.pruning.layers.resizing import fit_to, shapes_of
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.quantisation.quantiser import quantised_layers
from rayprune.rllib.algorithms import family_of_module
from rayprune.rllib.algorithms.target_networks import target_parameters
from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.learner.parameters import swap_parameters
from rayprune.rllib.modules.resizable import Shrinkable

logger = logging.getLogger(__name__)

ROWS = 2
"""Rows of a batch that is run: one alone would not show which axis is the batch's."""


class LiveCompaction(Extension):
    """Shrinks a Learner's modules, and lets them take the sizes of a checkpoint's."""

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._examples: dict[str, Any] = {}
        self._told: set[str] = set()
        self._booked: dict[str, dict[str, torch.nn.Parameter]] = {}

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """Take a module in.

        Raises:
            ConfigError: its class can't take other sizes.
        """
        module = self._view.module(module_id)
        self._booked[module_id] = dict(module.named_parameters())
        if pruner.config.compact_every is not None and not isinstance(module, Shrinkable):
            raise ConfigError(
                f"`pruning.compact_every` needs modules that resize, but that of {module_id!r} is "
                f"a plain {type(module).__name__}: its spec was set after `prune(config, ...)`. "
                "Call `prune` last, or leave `compact_every` out."
            )

    def detach(self, module_id: str) -> None:
        """Let a module go."""
        self._booked.pop(module_id, None)
        self._examples.pop(module_id, None)

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Keep rows of a minibatch, which the next compaction is proven on."""
        for module_id, pruner in self._view.pruners.items():
            if pruner.config.compact_every is not None and module_id in batch:
                self._examples[module_id] = example_of(batch[module_id])

    def after_masks(self, module_id: str, pruner: Pruner) -> None:
        """Shrink a module, if its schedule wants it and anything can go.

        Every rank decides the same: where one of them can't, or plans something else, none does.
        """
        clock = self._view.clock
        if not pruner.compaction_due(clock) or module_id not in self._examples:
            return
        if quantised_layers(self._view.module(module_id)):
            self._tell_once(
                f"{module_id!r} is compacted no more, since it is quantised: what constant units "
                "add to a bias would be rounded otherwise. Exports remove them exactly"
            )
            return
        self._view.before_resize(module_id)
        plan = self._agreed_plan(module_id, pruner)
        before = shapes_of(self._view.module(module_id))
        if plan.removed:
            self._apply(module_id, plan)
        # Norms' running statistics shrink with their units, but are no parameters.
        kept = {name: indices for name, indices in plan.kept.items() if name in before}
        pruner.compacted(clock, before, kept if plan.removed else {}, plan.pick)
        if plan.removed:
            self._view.spread(module_id, pruner.sparsity())

    def before_restore(self, state: Mapping[str, Any]) -> None:
        """Make the modules as large as a state's, and have the optimizers follow.

        A checkpoint's modules may have come before, by a path of their own; then only the
        optimizers are behind.
        """
        learner, resized = self._view.learner, False
        for module_id, weights in state.get(COMPONENT_RL_MODULE, {}).items():
            if module_id in self._booked and isinstance(self._view.module(module_id), Shrinkable):
                resized |= fit_to(self._view.module(module_id), weights)
        if resized and state.get(WEIGHTS_SEQ_NO):
            # RLlib passes over weights that it takes for older, but these must come now.
            learner._weights_seq_no = state[WEIGHTS_SEQ_NO] - 1
        for module_id in self._booked:
            self._rebook(module_id)

    def _agreed_plan(self, module_id: str, pruner: Pruner) -> Plan:
        plan, failure = Plan(), ""
        try:
            training = self._training(module_id, pruner)
            plan = plan_live(training)
            if plan.removed:
                prove_live(training, plan)
        # Whatever a forward with sizes written into it may raise.
        except Exception as error:
            told = isinstance(error, (InputError, InvariantError))
            failure = str(error) if told else f"{type(error).__name__}: {error}"
        agreed = ranks.same_everywhere(-1 if failure else fingerprint(plan), self._view.learner)
        if failure or not agreed:
            why = failure or "another Learner can't, or would keep other units"
            logger.warning("%r was left as it is, not compacted: %s", module_id, why)
            return Plan()
        for reason in plan.misfits:
            self._tell_once(f"{module_id!r} keeps units that might go, for {reason}")
        return plan

    def _tell_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s", what)

    def _training(self, module_id: str, pruner: Pruner) -> TrainedNetwork:
        module = self._view.module(module_id)
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        targets = [(names[id(own)], names[id(copied)]) for own, copied in target_parameters(module)]
        return TrainedNetwork(
            module=module,
            example=tree_map(lambda leaf: leaf.cpu(), self._examples[module_id]),
            forward=family_of_module(module).all_forwards,
            masks=pruner.held_masks,
            targets=targets,
            # Masks of whole rows have no hole that a carried constant could fill.
            merge=all(x.config.chosen.granularity.whole_rows for x in pruner.members),
            keep=pruner.heads,
        )

    def _apply(self, module_id: str, plan: Plan) -> None:
        apply_plan(self._view.module(module_id), plan)
        self._rebook(module_id, plan)

    def _rebook(self, module_id: str, plan: Plan | None = None) -> None:
        before = self._booked[module_id]
        swap_parameters(self._view.learner, module_id, before, None if plan is None else plan.pick)
        self._booked[module_id] = dict(self._view.module(module_id).named_parameters())


def example_of(batch: dict[str, Any]) -> dict[str, Any]:
    """Return copies of the first rows of what a forward reads of a Learner's minibatch."""
    read = {key: batch[key] for key in (Columns.OBS, Columns.STATE_IN) if key in batch}
    actions = batch.get(Columns.ACTIONS)
    if isinstance(actions, torch.Tensor) and actions.is_floating_point():
        # Of critics they are an input. Made up in the forward they would be a constant, and fold.
        read[Columns.ACTIONS] = actions
    rows: dict[str, Any] = tree_map(lambda leaf: leaf[:ROWS].detach().clone(), read)
    return rows
