"""The Pruners of a Learner's modules, their current configs, and all that follows their masks."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.numpy import convert_to_numpy
from torch import Tensor
from torch.optim import Optimizer

from rayprune.pruning.config import PruningConfig
from rayprune.pruning.group_pruner import GroupPruner
from rayprune.pruning.layers.prunable import Unit
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.reports import MaskChange
from rayprune.rllib.algorithms.target_networks import target_networks
from rayprune.rllib.diagnostics import Diagnostics
from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.chosen_modules import ChosenModules, refuse_torch_pruned
from rayprune.rllib.learner.clock import clock_of
from rayprune.rllib.learner.extension import Extension, Extensions
from rayprune.rllib.learner.extensions.calibration import CalibrationBatches
from rayprune.rllib.learner.extensions.evidence import MinibatchEvidence
from rayprune.rllib.learner.extensions.policy_changes import PolicyChanges
from rayprune.rllib.learner.extensions.signals import Signals
from rayprune.rllib.learner.optimizers import ModuleOptimizers, learning_rates
from rayprune.rllib.learner.sparse_moments_and_targets import follow, mask_moments, mask_targets
from rayprune.rllib.modules.groups import group_of
from rayprune.rllib.modules.heads import heads_of
from rayprune.rllib.modules.sensors import sensors_of
from rayprune.rllib.settings.foreign_code import own_methods
from rayprune.rllib.settings.module_configs import ModuleConfigs, is_driven, is_pruned

UNCHANGED: Final = MaskChange(step=None, pruned=0, churn=0.0, sparsity=0.0, changed=())


class ModulePruners:
    """A Pruner for each module that is pruned; the `LearnerView` of the Learner's extensions.

    Whoever calls it holds the Learner's lock where masks or weights change.

    Args:
        learner: its config and its modules are read at use time.
        extensions: in the order in which they are called.
    """

    def __init__(self, learner: TorchLearner, extensions: Iterable[type[Extension]]) -> None:
        self.learner = learner
        self.pruners: dict[str, Pruner] = {}
        self.clock = self.updates = 0
        self.diagnostics = Diagnostics()
        self.chosen = ChosenModules(learner)
        self.optimizers_of = ModuleOptimizers(learner, self.pruners)
        self.own_methods = own_methods(type(learner))
        """What a user's Learner defines that may write gradients and weights within a step."""
        self.events = Extensions(extensions, self)
        self._signals = self.events.of(Signals)
        self._evidence = self.events.of(MinibatchEvidence)
        self._changes = self.events.of(PolicyChanges)
        self._calibrations = self.events.of(CalibrationBatches)
        self._configs = ModuleConfigs()
        self._gathers: dict[str, bool] = {}
        self._churn: dict[str, float] = {}
        self._begun: set[str] = set()
        self._measured = 0
        self.sparsity: dict[str, float] = {}
        """By module id, as of the last change of the masks."""

    def module(self, module_id: str) -> Any:
        """Return an RLModule, not wrapped in DDP."""
        return self.learner.module[module_id].unwrapped()

    def optimizers(self, module_id: str) -> list[Optimizer]:
        """Return the optimizers that step a module."""
        return self.optimizers_of.of(module_id)

    def config(self, module_id: str) -> PruningConfig:
        """Return the config as it is now: a mutated target must act at the next update."""
        frozen_too = module_id in self.chosen.frozen_too
        signalled = self._signals.applied
        return self._configs.config_of(self.learner.config, module_id, signalled, frozen_too)

    def attach_missing(self) -> bool:
        """Prune what isn't yet, and is to be: a module that is new, or trained from now on."""
        found = False
        for module_id in self.learner.module.keys():  # noqa: SIM118 - a MultiRLModule is no dict
            if module_id not in self.pruners and self.chosen.includes(module_id):
                self._attach(module_id)
                found = True
        return found

    def detach(self, module_id: str) -> None:
        """Let a module go."""
        self.pruners.pop(module_id, None)
        self._begun.discard(module_id)
        self.chosen.frozen_too.discard(module_id)
        for detach in self.events.detach:
            detach(module_id)

    def begin_update(self, timesteps: Mapping[str, Any]) -> None:
        """See who will ask for dense gradients of these minibatches, or for the current weights."""
        clock = clock_of(self.learner, timesteps, self.updates)
        # An offline update may hold any number of minibatches, which are its clock: gather always.
        sampled = not self.learner.config.is_offline
        per_minibatch = clock / max(self.updates, 1) if sampled else math.inf
        for module_id, pruner in self.pruners.items():
            self.take_config(module_id, pruner)
            self._gathers[module_id] = pruner.awaits_growth(clock, per_minibatch)
            for before_update in self.events.before_update:
                before_update(module_id, pruner)

    def mask_gradients(self, gradients: Any) -> None:
        """Let the Pruners see dense gradients, all-reduced by now, and mask them."""
        for module_id, pruner in self.pruners.items():
            pruner.observe_gradients(gradients)
            if self._gathers.get(module_id):
                pruner.gather_gradients(gradients)
            pruner.mask_gradients(gradients)

    def measures_first(self) -> bool:
        """Whether a module is to be pruned at its initialisation, and isn't yet: no step is due."""
        return any(self._awaits_start(mid, pruner) for mid, pruner in self.pruners.items())

    def prune_at_start(self) -> None:
        """Count a minibatch that took no step; after enough of them prune what awaits its start."""
        self._measured += 1
        for module_id, pruner in self.pruners.items():
            asked = [x.config.schedule.get("minibatches", 1) for x in _measuring_first(pruner)]
            if self._awaits_start(module_id, pruner) and self._measured >= max(asked):
                self._begun.add(module_id)
                self.update(module_id, pruner)

    def _awaits_start(self, module_id: str, pruner: Pruner) -> bool:
        return (
            bool(_measuring_first(pruner))
            and module_id not in self._begun
            and self.chosen.trains(module_id)
        )

    def penalise(self) -> None:
        """Do the penalties' proximal steps, after the optimizers' step."""
        for module_id, pruner in self.pruners.items():
            if pruner.wants_rates:
                rates = learning_rates(self.optimizers(module_id))
                # What nobody steps doesn't shrink either.
                rates = dict.fromkeys(pruner.module.parameters(), 0.0) | rates
                pruner.penalise(self.clock, rates)

    def end_update(self, timesteps: Mapping[str, Any]) -> None:
        """Set the clock, and take in what drivers have posted."""
        self.clock = clock_of(self.learner, timesteps, self.updates)
        for before_masks in self.events.before_masks:
            before_masks()

    def update(self, module_id: str, pruner: Pruner) -> None:
        """Do what is due for a module at the end of an update."""
        for before_mask_update in self.events.before_mask_update:
            before_mask_update(module_id, pruner)
        change = self._update_masks(module_id, pruner)
        if change is not None:
            for after_mask_update in self.events.after_mask_update:
                after_mask_update(module_id, pruner, change)
            self._churn[module_id] = self._churn.get(module_id, 0.0) + change.churn
            self.spread(module_id, change.sparsity, change)
        for after_masks in self.events.after_masks:
            after_masks(module_id, pruner)

    def prune_now(self, seen: Mapping[str, Any]) -> dict[str, float]:
        """Prune every module to its configured sparsity at once; return sparsity by module id.

        Args:
            seen: by module id, what it has met; see `PruningMixin.prune_now`.
        """
        for module_id, pruner in self.pruners.items():
            self.take_config(module_id, pruner)
            source = partial(self._evidence.gather, module_id, pruner, at_once=True)
            if module_id in seen:
                self._calibrations.on_batch({module_id: seen[module_id]})
            calibration = self._calibrations.calibration(module_id, pruner, at_once=True)
            self._agreed(pruner, pruner.prune_to(evidence=source, calibration=calibration))
            self.spread(module_id, pruner.sparsity())
        return dict(self.sparsity)

    def adopt_masks(self, modules: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over masks of a trained policy, but no progress: this run has its own."""
        for module_id, pruner in self.pruners.items():
            # What a sparse schedule has drawn by chance is not for weights that have learnt.
            pruner.restart()
            pruner.take_masks(modules.get(module_id, {}))
            self.spread(module_id, pruner.sparsity())

    def masks(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of the masks on the CPU, by module id and parameter name."""
        return {
            mid: {name: mask.cpu().clone() for name, mask in pruner.held_masks.items()}
            for mid, pruner in self.pruners.items()
        }

    def awaited_units(self) -> dict[str, list[Unit]]:
        """Return by module id the units whose lost return a mask update waits for."""
        return {mid: pruner.awaited_units(self.clock) for mid, pruner in self.pruners.items()}

    def take_churn(self) -> dict[str, float]:
        """Return the fraction of weights whose mask changed since the last call, by module id."""
        churn, self._churn = self._churn, {}
        return churn

    def take_config(self, module_id: str, pruner: Pruner) -> None:
        """Give a Pruner its current config."""
        config = self.config(module_id)
        if config is not pruner.config:  # checking it against the network costs 0.1 ms
            pruner.config = config

    def spread(self, module_id: str, sparsity: float, change: MaskChange = UNCHANGED) -> None:
        """Make moments and targets as sparse as the weights, and have the EnvRunners synced.

        Args:
            module_id: whose masks or weights have changed.
            sparsity: the current one.
            change: of the masks, if it was a mask update.
        """
        follow(self.pruners[module_id], self.optimizers(module_id), change)
        self.sparsity[module_id] = sparsity
        self.sync_env_runners()
        for on_spread in self.events.on_spread:
            on_spread(module_id)

    def sync_env_runners(self) -> None:
        """Have EnvRunners take the current weights: they ignore a number that they have seen."""
        self.learner._weights_seq_no += 1

    def before_resize(self, module_id: str) -> None:
        """Tell the extensions that a module's layers are about to change."""
        for before_resize in self.events.before_resize:
            before_resize(module_id)

    # IMPALA asks for weights in inference mode. Masks kept from there could not be changed later.
    @torch.inference_mode(False)
    @torch.no_grad()
    def mask_all(self) -> None:
        """Zero what is pruned: weights, their moments, their target networks."""
        for module_id, pruner in self.pruners.items():
            pruner.mask_weights()
            mask_moments(pruner, self.optimizers(module_id))
            mask_targets(pruner)

    def get_state(self) -> dict[str, Any]:
        """Return clock, Pruners and extensions as plain values and arrays."""
        return {
            "step": self.clock,
            "updates": self.updates,
            "begun": sorted(self._begun),
            "measured": self._measured,
            # Arrays, as all of RLlib's states are: their pickle is the same each time.
            "modules": {
                mid: convert_to_numpy(pruner.state_dict()) for mid, pruner in self.pruners.items()
            },
            **self.events.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_state` returned; a module that was pruned is pruned on."""
        self.clock, self.updates = state["step"], state["updates"]
        self._begun, self._measured = set(state.get("begun", ())), state.get("measured", 0)
        for module_id, held in state["modules"].items():
            known = module_id in self.learner.module.keys()  # noqa: SIM118 - it is no dict
            if module_id not in self.pruners and known and is_pruned(self._config, module_id):
                self._attach(module_id)
            if module_id in self.pruners:
                pruner = self.pruners[module_id]
                pruner.load_state_dict(held)
                self.sparsity[module_id] = pruner.sparsity()
        self.events.set_state(state)

    def forget_masks_of_other_weights(self) -> None:
        """Drop masks that were drawn for other weights: what plain RLlib saved is dense."""
        for module_id, pruner in self.pruners.items():
            if pruner.violations():
                pruner.restart()
                self.spread(module_id, 0.0)

    @property
    def _config(self) -> Any:
        return self.learner.config

    def _attach(self, module_id: str) -> None:
        module = self.module(module_id)
        refuse_torch_pruned(module_id, module)
        config, targets = self.config(module_id), target_networks(module)
        pruner = self.pruners[module_id] = Pruner(
            module,
            config,
            groups=group_of,
            heads=heads_of(module, targets, name=module_id, parent=self.learner.module),
            sensors=functools.cache(lambda: sensors_of(module, targets)),
            exclude=targets,
            seed=self._config.seed or 0,
            # `prune` refuses a gated schedule; all else is posted, by a driver or the callback.
            driven=not config.gated or is_driven(self._config),
        )
        self.sparsity[module_id] = 0.0
        begun = pruner.start()
        if begun is not None:
            self.spread(module_id, begun.sparsity)
        for attach in self.events.attach:
            attach(module_id, pruner)

    def _update_masks(self, module_id: str, pruner: Pruner) -> MaskChange | None:
        """Do the mask update that is due, if the module is trained at all."""
        if not self.chosen.trains(module_id) or self._awaits_start(module_id, pruner):
            return None
        if all(member.rests(self.clock) for member in pruner.members):
            return None
        source = partial(self._evidence.gather, module_id, pruner)
        divergence = self._changes.divergence(module_id, pruner)
        calibration = self._calibrations.calibration(module_id, pruner)
        change = pruner.update(
            self.clock, evidence=source, divergence=divergence, calibration=calibration
        )
        return self._agreed(pruner, change)

    def _agreed(self, pruner: Pruner, change: MaskChange | None) -> MaskChange | None:
        """Return what rank 0 has done to the masks, and do it here too.

        A user's Learner may let the weights of ranks come apart, by noise that each draws for
        itself; their masks would follow. Every rank does a mask update at the same clock.
        """
        if change is None or not self.own_methods or not ranks.is_group():
            return change
        state, decided = ranks.from_first((pruner.state_dict(), change))
        if not ranks.is_first():
            pruner.load_state_dict(state)
        first: MaskChange = decided
        return first


def _measuring_first(pruner: Pruner) -> list[GroupPruner]:
    """Return those of a module's members that are pruned at their initialisation."""
    measuring = [x for x in pruner.members if x.config.chosen.schedule.measures_first]
    return [member for member in measuring if not member.config.dense]
