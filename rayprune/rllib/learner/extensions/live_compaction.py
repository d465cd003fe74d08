"""Live compaction on a Learner: the networks that it trains shrink once units of theirs are dead.

EnvRunners follow by themselves: `rayprune.rllib.modules.resizable` resizes their modules to the
weights that arrive at the next sync.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from torch.utils._pytree import tree_map

from rayprune.deploy.compaction.live import TrainedNetwork, fingerprint, plan_live, prove_live
from rayprune.deploy.compaction.plan import Plan, apply_plan
from rayprune.errors import ConfigError, InputError, InvariantError
from rayprune.pruning.layers.resizing import fit_to, shapes_of
from rayprune.rllib.algorithms.forwards import example_of, run_all
from rayprune.rllib.algorithms.target_networks import target_pairs
from rayprune.rllib.learner.parameters import swap_parameters
from rayprune.rllib.modules.resizable import Shrinkable

if TYPE_CHECKING:
    from rayprune.pruning.pruner import Pruner
    from rayprune.rllib.learner.mixin import PruningMixin

logger = logging.getLogger(__name__)


class LiveCompaction:
    """Shrinks a Learner's modules, and lets them take the sizes of a checkpoint's."""

    def __init__(self, learner: PruningMixin) -> None:
        self._learner = learner
        self._examples: dict[str, Any] = {}
        self._booked: dict[str, dict[str, torch.nn.Parameter]] = {}

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """Take a module in.

        Raises:
            ConfigError: its class can't take other sizes.
        """
        module = self._module(module_id)
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

    def keep(self, batch: Mapping[str, Any], pruners: Mapping[str, Pruner]) -> None:
        """Keep rows of a minibatch, which the next compaction is proven on."""
        for module_id, pruner in pruners.items():
            if pruner.config.compact_every is not None and module_id in batch:
                self._examples[module_id] = example_of(batch[module_id])

    def compact_if_due(self, module_id: str, pruner: Pruner, clock: float) -> bool:
        """Shrink a module, if its schedule wants it and anything can go; return whether it did.

        Every rank decides the same: where one of them can't, or plans something else, none does.
        """
        if not pruner.compaction_due(clock) or module_id not in self._examples:
            return False
        self._learner.drop_watch(module_id)
        plan = self._agreed_plan(module_id, pruner)
        before = shapes_of(self._module(module_id))
        if plan.removed:
            self._apply(module_id, plan)
        pruner.compacted(clock, before, plan.kept if plan.removed else {}, plan.pick)
        return bool(plan.removed)

    def fit(self, state: Mapping[str, Any]) -> None:
        """Make the modules as large as a state's, and have the optimizers follow.

        A checkpoint's modules may have come before, by a path of their own; then only the
        optimizers are behind.
        """
        learner, resized = self._learner, False
        for module_id, weights in state.get(COMPONENT_RL_MODULE, {}).items():
            if module_id in self._booked and isinstance(self._module(module_id), Shrinkable):
                resized |= fit_to(self._module(module_id), weights)
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
        agreed = _same_everywhere(-1 if failure else fingerprint(plan), self._learner)
        if failure or not agreed:
            why = failure or "another Learner can't, or would keep other units"
            logger.warning("%r was left as it is, not compacted: %s", module_id, why)
            return Plan()
        return plan

    def _training(self, module_id: str, pruner: Pruner) -> TrainedNetwork:
        module = self._module(module_id)
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        targets = [
            (names[id(own)], names[id(copied)])
            for source, target in target_pairs(module)
            for own, copied in zip(source.parameters(), target.parameters(), strict=True)
        ]
        return TrainedNetwork(
            module=module,
            example=tree_map(lambda leaf: leaf.cpu(), self._examples[module_id]),
            forward=run_all,
            masks=pruner.held_masks,
            targets=targets,
            # Masks of whole rows have no hole that a carried constant could fill.
            merge=pruner.config.chosen.granularity.whole_rows,
            keep=pruner.heads,
        )

    def _apply(self, module_id: str, plan: Plan) -> None:
        apply_plan(self._module(module_id), plan)
        self._rebook(module_id, plan)

    def _rebook(self, module_id: str, plan: Plan | None = None) -> None:
        before = self._booked[module_id]
        swap_parameters(self._learner, module_id, before, None if plan is None else plan.pick)
        self._booked[module_id] = dict(self._module(module_id).named_parameters())

    def _module(self, module_id: str) -> Any:
        return self._learner.module[module_id].unwrapped()


def _same_everywhere(number: int, learner: Any) -> bool:
    """Whether all ranks hold the same number, and none a negative one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number >= 0
    held = torch.tensor([number, -number], dtype=torch.int64, device=learner.device)
    torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MIN)
    return bool(held[0] == -held[1]) and number >= 0
