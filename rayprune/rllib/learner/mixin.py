"""A mixin that makes any torch Learner of RLlib prune while it trains.

``pruned(PPOTorchLearner)`` returns a subclass that masks gradients before clipping and weights
after the optimizer's step, changes the masks by its own clock, and saves them with its state. The
pruning itself is :class:`rayprune.Pruner`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import torch

from rayprune.pruning.layers.prunable import Unit
from rayprune.pruning.pruner import Pruner
from rayprune.rllib.connectors.on_policy import quicken
from rayprune.rllib.learner import report
from rayprune.rllib.learner.extension import Extension
from rayprune.rllib.learner.extensions.calibration import CalibrationBatches
from rayprune.rllib.learner.extensions.competing_networks import CompetingNetworks
from rayprune.rllib.learner.extensions.cut_off import CutOff
from rayprune.rllib.learner.extensions.distillation import Distillation
from rayprune.rllib.learner.extensions.evidence import MinibatchEvidence
from rayprune.rllib.learner.extensions.fused_optimizer import FusedOptimizer
from rayprune.rllib.learner.extensions.held_deviation import HeldDeviation
from rayprune.rllib.learner.extensions.learning_rates import LearningRates
from rayprune.rllib.learner.extensions.live_compaction import LiveCompaction
from rayprune.rllib.learner.extensions.plasticity import PlasticityWindows
from rayprune.rllib.learner.extensions.policy_changes import PolicyChanges
from rayprune.rllib.learner.extensions.quantisation import QuantisationAwareTraining
from rayprune.rllib.learner.extensions.rewinding import Rewinding
from rayprune.rllib.learner.extensions.signals import Signals
from rayprune.rllib.learner.extensions.unsaved_state import UnsavedState
from rayprune.rllib.learner.extensions.update_count import UpdateCount
from rayprune.rllib.learner.final_masks import FinalMasks, writable
from rayprune.rllib.learner.module_pruners import ModulePruners
from rayprune.rllib.learner.optimizers import checks_spared
from rayprune.rllib.learner.updates.lean_updates import LeanUpdates
from rayprune.rllib.learner.updates.parts import GRADIENTS
from rayprune.rllib.settings.config_changes import check_composed
from rayprune.rllib.settings.keys import CONFIG_KEY, LEAN_KEY, STATE_KEY
from rayprune.rllib.settings.module_configs import check_ids

E = TypeVar("E", bound=Extension)

EXTENSIONS: Final[tuple[type[Extension], ...]] = (
    FusedOptimizer,
    Signals,
    MinibatchEvidence,
    PolicyChanges,
    CalibrationBatches,
    Rewinding,
    HeldDeviation,
    LiveCompaction,
    QuantisationAwareTraining,
    Distillation,
    CompetingNetworks,
    PlasticityWindows,
    CutOff,
    UnsavedState,
    LearningRates,
    UpdateCount,
)
"""The features of a pruning Learner, in the order in which they are called."""


class PruningMixin(LeanUpdates):
    """The overrides that turn a TorchLearner into a pruning one. `pruned` makes it concrete."""

    def build(self) -> None:
        """Build module, optimizers and targets as RLlib does, then attach a Pruner per module."""
        if self._is_built:
            return
        check_composed(self.config)
        # IMPALA and APPO update in a thread of their own, while others read, save and restore from
        # the main one: they must never see weights between a step or mask change and its end.
        self._mask_lock = threading.RLock()
        self._modules = ModulePruners(self, EXTENSIONS)
        self._events = self._modules.events
        self._final_masks = FinalMasks(self._modules)
        # A user's `build` may load weights already, and RLlib's starts threads.
        super().build()
        if self.config.learner_config_dict.get(LEAN_KEY):
            quicken(self._learner_connector)
        self._note_optimizers()
        check_ids(self.config, list(self.module.keys()))
        self._attach_missing()
        self._modules.chosen.check(any_pruned=bool(self.pruners))
        self._final_masks.look()

    @property
    def pruners(self) -> Mapping[str, Pruner]:
        """The Pruners by module id."""
        return self._modules.pruners

    def extension(self, kind: type[E]) -> E:
        """Return a feature, for a driver to ask or to tell it something."""
        return self._events.of(kind)

    def add_module(self, *, module_id: str, **kwargs: Any) -> Any:
        """Add a module as RLlib does, and prune it too, if it is among those chosen."""
        spec = super().add_module(module_id=module_id, **kwargs)
        self._note_optimizers()
        self._attach_missing()
        return spec

    def remove_module(self, module_id: str, **kwargs: Any) -> Any:
        """Remove a module as RLlib does, and its Pruner."""
        self._modules.detach(module_id)
        spec = super().remove_module(module_id, **kwargs)
        self._final_masks.look()
        return spec

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Begin an update: attach what is new, mask what others have written since the last."""
        with self._mask_lock:
            super().before_gradient_based_update(timesteps=timesteps)
            self._modules.chosen.seen.clear()
            self._attach_missing()
            self._final_masks.begin_update()
        self._modules.begin_update(timesteps)

    def _make_batch_if_necessary(self, training_data: Any) -> Any:
        """Make a batch as RLlib does; what advantages are estimated with is no training forward."""
        batch = super()._make_batch_if_necessary(training_data)
        self.extension(PlasticityWindows).pass_over()
        return batch

    def compute_losses(self, *, fwd_out: dict[str, Any], batch: Any) -> dict[str, Any]:
        """Compute RLlib's losses; extensions see the batch before and the losses after."""
        if not self._is_seen:
            self._see(batch)
        losses: dict[str, Any] = super().compute_losses(fwd_out=fwd_out, batch=batch)
        for on_losses in self._events.on_losses:
            on_losses(losses, fwd_out, batch)
        return losses

    def _see(self, batch: Mapping[str, Any]) -> None:
        for on_batch in self._events.on_batch:
            on_batch(batch)
        self._modules.chosen.seen.update(batch)

    def postprocess_gradients(self, gradients_dict: Any) -> Any:
        """Mask the gradients, then let RLlib clip: a norm over pruned weights over-shrinks."""
        if self._final_masks.rewrites:
            gradients_dict = writable(gradients_dict)
        self._modules.mask_gradients(gradients_dict)
        for on_masked_gradients in self._events.on_masked_gradients:
            on_masked_gradients(gradients_dict)
        return super().postprocess_gradients(gradients_dict)

    def _get_clip_function(self) -> Any:  # type: ignore[override]  # only called on an instance
        """Return RLlib's, which masks first what a user's Learner has made of the gradients."""
        clip = super()._get_clip_function()
        return self._final_masks.masking_first(clip) if self._final_masks.rewrites else clip

    def apply_gradients(self, gradients_dict: Any) -> None:
        """Step the optimizers, then put pruned weights back to exactly zero."""
        if self._modules.measures_first():
            with self._mask_lock:
                self._modules.prune_at_start()
            self.distrust_recordings()
            return
        rewrites = self._final_masks.rewrites
        with self._mask_lock:
            if rewrites:
                gradients_dict = self._final_masks.masked(gradients_dict)
            # A user's own `apply_gradients` may make other gradients of these; a lean one looks.
            looks = rewrites or GRADIENTS in self._lean
            with checks_spared(self.config, {} if looks else gradients_dict):
                super().apply_gradients(gradients_dict)
            self._modules.updates += 1
            self._final_masks.end_step()
            self._modules.penalise()
        for after_step in self._events.after_step:
            after_step()

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Update targets and learning rates as RLlib does, then the masks where they are due.

        At the end of an update, so that the next samples already come from the pruned policy and
        an on-policy algorithm stays on policy.
        """
        modules = self._modules
        with self._mask_lock:
            super().after_gradient_based_update(timesteps=timesteps)
            self._final_masks.end_update()
        modules.end_update(timesteps)
        number = self._weights_seq_no
        for module_id, pruner in modules.pruners.items():
            modules.take_config(module_id, pruner)
            with self._mask_lock:
                modules.update(module_id, pruner)
            self.metrics.log_value(
                (module_id, CONFIG_KEY, "sparsity"), modules.sparsity[module_id], window=1
            )
        if self._weights_seq_no != number:
            # With the first masks there may be a teacher, whose term is part of the loss.
            self.distrust_recordings()

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Update as RLlib does, and mask what a user's `update` writes beside that."""
        result = super().update(*args, **kwargs)
        if self._final_masks.wraps_update:
            with self._mask_lock:
                self._final_masks.mask_beside_updates()
        return result

    def mask_weights(self) -> None:
        """Zero what is pruned once more: to be called by who writes weights from outside.

        It costs a pass over weights, moments and target networks.
        """
        with self._mask_lock:
            self._final_masks.mask_all()

    def cross_barrier(self) -> None:
        """Give up what a checkpoint doesn't hold: minibatches, half a window."""
        for on_barrier in self._events.on_barrier:
            on_barrier()
        self.begin_anew_with_draws()

    def prune_now(self, seen: Mapping[str, Any] | None = None) -> dict[str, float]:
        """Prune every module to its configured sparsity at once; return sparsity by module id.

        Args:
            seen: by module id, a batch of what it has met, as tensors: where remedy
                ``reconstruct`` makes up for the cut.
        """
        with self._mask_lock:
            return self._modules.prune_now(seen or {})

    def adopt_masks(self, modules: dict[str, dict[str, torch.Tensor]]) -> None:
        """Take over masks of a trained policy, but no progress: this run has its own.

        Args:
            modules: masks by module id and parameter name; may be empty.
        """
        with self._mask_lock:
            self._modules.adopt_masks(modules)

    def awaited_units(self) -> dict[str, list[Unit]]:
        """Return by module id the units whose lost return a mask update waits for."""
        with self._mask_lock:
            return self._modules.awaited_units()

    def post_layer_returns(self, module_id: str, lost: dict[str, float]) -> None:
        """Take what `awaited_units` waits for: the return lost without each unit."""
        with self._mask_lock:
            self._modules.pruners[module_id].returns = dict(lost)

    def pruning_report(self) -> dict[str, dict[str, Any]]:
        """Return per module what the masks are now, with every broken promise.

        Returns:
            ``{module id: {"sparsity", "groups", "own_groups", "itop", "layers", "uncovered",
            "cut_off", "parameters", "violations", "finite", "digest", "kept", "finished", "most",
            "weights_seq_no", "step", "updates", "mask_updates"}}``. `own_groups` tells of groups
            with choices of their own what these are, and how far they have come; `itop` is
            `Pruner.coverage`; `violations` counts pruned weights that are not zero, in the module
            and in its target networks; `digest` identifies the masks, for comparison over
            Learners; `kept` counts the kept weights of what EnvRunners get.
        """
        with self._mask_lock:
            found = report.reports(self._modules)
            violations = {mid: module["violations"] for mid, module in found.items()}
            return report.reports(self._modules) if self._final_masks.heals(violations) else found

    def uncovered_lines(self) -> list[str]:
        """Return what sparsities are not of, and which modules are left alone; a line each."""
        return report.uncovered_lines(self._modules)

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Return what costs more than a report: passes over scores and over units.

        Returns:
            ``{module id: {"scores": {parameter: histogram}, "dead_units": {layer: count},
            "convergence": {parameter: figures}}}``: the scores of the weights that are left, the
            units with no incoming weight, and how far Shapley values have converged. What has
            failed is empty.
        """
        with self._mask_lock:
            return report.diagnoses(self._modules)

    def take_churn(self) -> dict[str, float]:
        """Return the fraction of weights whose mask changed since the last call, by module id."""
        with self._mask_lock:
            return self._modules.take_churn()

    def arrived(self) -> dict[str, bool]:
        """Return `Pruner.arrived` by module id; it counts every mask."""
        with self._mask_lock:
            return {mid: pruner.arrived for mid, pruner in self.pruners.items()}

    def masks(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return copies of the masks on the CPU, ``{module id: {parameter name: bool tensor}}``."""
        return self._modules.masks()

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> Any:
        """Return RLlib's state, and ours under ``STATE_KEY`` unless only components are asked."""
        with self._mask_lock:
            self._final_masks.before_reading()
            state = super().get_state(components, not_components=not_components, **kwargs)
            if self._check_component(STATE_KEY, components, not_components):
                state[STATE_KEY] = self._modules.get_state()
        return state

    def save_to_path(self, *args: Any, **kwargs: Any) -> Any:
        """Save as RLlib does; an asynchronous Learner waits, or its parts would not fit."""
        with self._mask_lock:
            self._final_masks.before_reading()
            return super().save_to_path(*args, **kwargs)

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Restore as RLlib does; a component alone comes by a way that passes `set_state` by."""
        with self._mask_lock:
            super().restore_from_path(path, *args, **kwargs)
            if kwargs.get("component") is not None:
                self._before_restore({})
                self._modules.forget_masks_of_other_weights()
                # RLlib leaves the number as it was, and EnvRunners would keep the old weights.
                self._modules.sync_env_runners()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore RLlib's state, then ours; weights that come without are dense."""
        with self._mask_lock:
            self._before_restore(state)
            super().set_state(state)
            ours = state.get(STATE_KEY)
            if ours is not None:
                self._modules.set_state(ours)
                self._final_masks.look()
            else:
                self._modules.forget_masks_of_other_weights()
            for after_restore in self._events.after_restore:
                after_restore()
        self.distrust_recordings()

    def _before_restore(self, state: Mapping[str, Any]) -> None:
        for before_restore in self._events.before_restore:
            before_restore(state)

    def _note_optimizers(self) -> None:
        for on_optimizers in self._events.on_optimizers:
            on_optimizers()

    def _attach_missing(self) -> None:
        if self._modules.attach_missing():
            self._final_masks.look()
