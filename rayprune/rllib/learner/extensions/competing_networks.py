"""Networks of rising sparsity that learn from one target, the best of which goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from rayprune.errors import ConfigError
from rayprune.pruning.packing import copied, packed
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.reports import MaskChange
from rayprune.pruning.schedules.adaptive import AdaptiveSchedule
from rayprune.pruning.seeds import generator_for
from rayprune.rllib.algorithms import family_of
from rayprune.rllib.algorithms.target_networks import target_tensors
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.learner.extensions.network_copies import (
    NetworkCopy,
    exchange,
    is_kept_by_optimizer,
    live_tensors,
)
from rayprune.rllib.learner.updates.bare import rllibs_own_update


class CompetingNetworks(Extension):
    """Trains rivals beside each module whose schedule is adaptive, and chooses among them.

    The module itself is the network that keeps its sparsity; it samples, and it is what others see.
    After each of its gradient steps every rival takes its place for one of its own, by RLlib's
    loss, on the same minibatch and with the same target network. See
    `rayprune.pruning.schedules.adaptive` for when and how one is chosen.
    """

    key = "competing_networks"

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._rivals: dict[str, list[NetworkCopy]] = {}
        self._losses: dict[str, Tensor] = {}
        self._choices: dict[str, int] = {}
        self._due: set[str] = set()
        self._batch: Mapping[str, Any] | None = None

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """Refuse an algorithm whose networks can't compete.

        Raises:
            ConfigError: it has no Q-loss with a target network, or is one of several Learners.
        """
        if not pruner.config.chosen.schedule.competes:
            return
        faults = competition_faults(self._view.learner.config)
        if faults:
            raise ConfigError(faults)

    def detach(self, module_id: str) -> None:
        """Let the rivals of a module go."""
        self._rivals.pop(module_id, None)
        self._losses.pop(module_id, None)
        self._choices.pop(module_id, None)

    def on_losses(
        self, losses: dict[str, Any], fwd_out: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> None:
        """Add a module's own Q-loss up, and keep the minibatch for its rivals."""
        if not self._rivals:
            return
        self._batch = batch
        for module_id in self._rivals:
            if module_id in losses:
                self._losses[module_id] += self._critic_loss(module_id, losses[module_id])

    def after_step(self) -> None:
        """Have the rivals do the step that the modules have just done."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        for module_id, rivals in self._rivals.items():
            if module_id in batch:
                for rival in rivals:
                    self._step(module_id, rival, batch[module_id])

    def after_mask_update(self, module_id: str, pruner: Pruner, change: MaskChange) -> None:
        """Note that a choice is due."""
        del change
        if pruner.config.chosen.schedule.competes:
            self._due.add(module_id)

    def after_masks(self, module_id: str, pruner: Pruner) -> None:
        """Choose, and send new rivals out, if it is due."""
        if module_id not in self._due:
            return
        self._due.discard(module_id)
        schedule = cast("AdaptiveSchedule", pruner.config.build_schedule(pruner.most))
        self._choose(module_id, pruner, schedule)
        self._rivals.pop(module_id, None)
        if self._view.clock < schedule.end:
            self._rivals[module_id] = self._new_rivals(module_id, pruner, schedule)
            self._losses[module_id] = torch.zeros((), device=self._device)
        self._view.spread(module_id, pruner.sparsity())

    def get_state(self) -> dict[str, Any]:
        """Return the rivals of each module, with the losses so far."""
        return {
            module_id: {
                "rivals": [rival.to_state() for rival in rivals],
                "loss": copied(self._losses[module_id]).numpy(),
                "choices": self._choices[module_id],
            }
            for module_id, rivals in self._rivals.items()
        }

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `get_state` returned."""
        self._rivals, self._losses, self._choices = {}, {}, {}
        self._due.clear()
        for module_id, held in (state or {}).items():
            if module_id in self._view.pruners:
                found = [NetworkCopy.of_state(rival, self._device) for rival in held["rivals"]]
                self._rivals[module_id] = found
                self._losses[module_id] = copied(held["loss"]).to(self._device)
                self._choices[module_id] = int(held["choices"])

    @property
    def _device(self) -> torch.device:
        learner: Any = self._view.learner
        device: torch.device = learner._device
        return device

    def _live(self, module_id: str) -> dict[str, Tensor]:
        return live_tensors(self._view.learner, module_id, self._view.module(module_id))

    def _critic_loss(self, module_id: str, loss: Any) -> Tensor:
        learner = self._view.learner
        found = family_of(learner.config).critic_loss(learner, module_id, loss)
        assert found is not None
        return found.detach()

    def _step(self, module_id: str, rival: NetworkCopy, batch: Any) -> None:
        """Do one gradient step of a rival's, by RLlib's loss."""
        live, module = self._live(module_id), self._view.module(module_id)
        exchange(live, rival.tensors)
        parameters = dict(module.named_parameters())

        def mask(gradients: Mapping[Any, Tensor]) -> None:
            rival.mask_gradients(gradients, parameters)

        try:
            loss = rllibs_own_update(
                self._view.learner,
                module_id,
                module,
                batch,
                mask,
                lambda loss: self._critic_loss(module_id, loss),
            )
            rival.mask(parameters)
            rival.loss += loss
        finally:
            exchange(live, rival.tensors)

    def _choose(self, module_id: str, pruner: Pruner, schedule: AdaptiveSchedule) -> None:
        """Put the network with the least loss in the module's place, and in the target's."""
        live, rivals = self._live(module_id), self._rivals.get(module_id, [])
        winner = self._winner(module_id, rivals)
        if winner is not None:
            exchange(live, winner.tensors)
            state = pruner.state_dict()
            masks = {name: packed(mask) for name, mask in winner.masks.items()}
            pruner.load_state_dict({**state, "masks": masks})
        if schedule.reset_moments:
            for name, tensor in live.items():
                if is_kept_by_optimizer(name):
                    tensor.zero_()
        config: Any = self._view.learner.config.get_config_for_module(module_id)
        if config.tau == 1.0:  # else it goes on after the winner, step by step
            with torch.no_grad():
                for source, target in target_tensors(pruner.module):
                    target.copy_(source)

    def _winner(self, module_id: str, rivals: list[NetworkCopy]) -> NetworkCopy | None:
        """Return the rival that has beaten the module itself; None for the module."""
        if not rivals:
            return None
        losses = torch.stack([self._losses[module_id], *(rival.loss for rival in rivals)])
        best = int(losses.nan_to_num(nan=torch.inf).argmin())
        return rivals[best - 1] if best else None

    def _new_rivals(
        self, module_id: str, pruner: Pruner, schedule: AdaptiveSchedule
    ) -> list[NetworkCopy]:
        """Return copies of the module, all but one of which are sparser."""
        choice = self._choices[module_id] = self._choices.get(module_id, 0) + 1
        drawn = torch.rand(
            int(schedule.networks) - 1,
            generator=generator_for(pruner.seed, f"rivals of {module_id}", choice),
            dtype=torch.float64,
        )
        held, every, clock = pruner.masked(), pruner.config.every, self._view.clock
        return [
            self._copy(
                module_id,
                pruner,
                schedule.rivals_sparsity(held, clock, every, exponent * schedule.exponent),
            )
            for exponent in drawn.tolist()
        ]

    def _copy(self, module_id: str, pruner: Pruner, sparsity: float) -> NetworkCopy:
        """Return a copy that is pruned to a sparsity, and leave the module as it is."""
        live, state = self._live(module_id), pruner.state_dict()
        whole = {name: tensor.clone() for name, tensor in live.items()}
        pruner.prune_to(sparsity)
        copy = NetworkCopy(
            {name: tensor.clone() for name, tensor in live.items()},
            {name: mask.clone() for name, mask in pruner.held_masks.items()},
            {name: mask.clone() for name, mask in pruner.written_masks.items()},
            torch.zeros((), device=self._device),
        )
        copy.mask_moments()
        exchange(live, whole)
        pruner.load_state_dict(state)
        return copy


def competition_faults(config: Any) -> list[str]:
    """Return why networks can't compete in an algorithm.

    Args:
        config: the algorithm's.
    """
    name = type(config).__name__.removesuffix("Config")
    faults = []
    if not family_of(config).competes:
        faults.append(
            "`pruning.schedule.kind` 'adaptive' compares networks by the loss of their Q-values "
            f"against one target network, which {name} doesn't have as DQN and SAC do. Take one "
            "of these, or another kind, such as 'cubic'."
        )
    if config.num_learners > 1:
        faults.append(
            "`num_learners` must be 0 or 1 with `pruning.schedule.kind` 'adaptive', whose networks "
            f"are trained within one Learner, but is {config.num_learners}."
        )
    return faults
