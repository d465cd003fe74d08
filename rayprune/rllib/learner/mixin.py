"""A mixin that makes any torch Learner of RLlib prune while it trains.

``pruned(PPOTorchLearner)`` returns a subclass that masks gradients before clipping and weights
after the optimizer's step, changes the masks by its own clock, and saves them with its state. The
pruning itself is :class:`rayprune.Pruner`'s.
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.numpy import convert_to_numpy

from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity.sensors import Sensors
from rayprune.pruning.layers.attach import make_maskable, maskable_layers, not_excluded
from rayprune.pruning.layers.masked import MASKABLE, prunable_parameters
from rayprune.pruning.layers.prunable import Unit
from rayprune.pruning.layers.torch_prune import is_torch_pruned
from rayprune.pruning.measures.counting import dead_units
from rayprune.pruning.measures.histograms import histogram_of
from rayprune.pruning.measures.uncovered import weights_of
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.reports import MaskChange
from rayprune.pruning.update.frozen import wholly_frozen
from rayprune.rllib.algorithms.target_networks import target_pairs
from rayprune.rllib.diagnostics import Diagnostics
from rayprune.rllib.learner import lr_schedulers
from rayprune.rllib.learner.bypassed import hold_bypassed
from rayprune.rllib.learner.clock import clock_of
from rayprune.rllib.learner.extensions import unsaved_state as unsaved
from rayprune.rllib.learner.extensions.distillation import Distiller
from rayprune.rllib.learner.extensions.evidence import Witness
from rayprune.rllib.learner.extensions.live_compaction import LiveCompaction
from rayprune.rllib.learner.extensions.plasticity import Watch
from rayprune.rllib.learner.extensions.rewinding import Rewinder
from rayprune.rllib.learner.extensions.signals import Mailbox, listens, posts_of_all
from rayprune.rllib.learner.final_masks import LastWord, writable
from rayprune.rllib.learner.optimizers import (
    checks_spared,
    fuse_adam,
    learning_rates,
    moments,
    optimizers_of,
)
from rayprune.rllib.modules.cut_off import CutOff
from rayprune.rllib.modules.groups import group_of, kept_back
from rayprune.rllib.modules.heads import module_heads
from rayprune.rllib.modules.sensors import module_sensors
from rayprune.rllib.settings.config_changes import check_composed
from rayprune.rllib.settings.keys import CONFIG_KEY, STATE_KEY
from rayprune.rllib.settings.module_configs import (
    ModuleConfigs,
    check_ids,
    is_asked_for,
    is_driven,
    is_named,
    is_pruned,
    is_trained,
)

if TYPE_CHECKING:
    _Base = TorchLearner
else:
    _Base = object

KINDS: Final = frozenset({*MASKABLE, *MASKABLE.values()})
KIND_NAMES: Final = ", ".join(kind.__name__ for kind in MASKABLE)

UNCHANGED: Final = MaskChange(step=None, pruned=0, churn=0.0, sparsity=0.0, changed=())


class PruningMixin(_Base):
    """The overrides that turn a TorchLearner into a pruning one. `pruned` makes it concrete."""

    def build(self) -> None:
        """Build module, optimizers and targets as RLlib does, then attach a Pruner per module."""
        if self._is_built:
            return
        check_composed(self.config)
        # IMPALA and APPO update in a thread of their own, while others read, save and restore from
        # the main one: they must never see weights between a step or mask change and its end.
        self._mask_lock = threading.RLock()
        self._updates = 0
        self._step = 0
        self._pruners: dict[str, Pruner] = {}
        self._rewinder = Rewinder(self)
        self._mailbox = Mailbox()
        self._distiller = Distiller(self)
        self._live = LiveCompaction(self)
        self._sparsity: dict[str, float] = {}
        self._churn: dict[str, float] = {}
        self._gathers: dict[str, bool] = {}
        self._base_rates: dict[str, float] = {}
        self._configs = ModuleConfigs()
        self._diagnostics = Diagnostics()
        self._watch = Watch(self.config, self._diagnostics)
        self._witness = Witness(self)
        self._seen: set[str] = set()
        self._frozen_too: set[str] = set()
        self._cut_off = CutOff(self._diagnostics)
        self._last_word = LastWord(self)
        # A user's `build` may load weights already, and RLlib's starts threads.
        super().build()
        self._base_rates = lr_schedulers.base_rates(self)
        check_ids(self.config, list(self.module.keys()))
        self._attach_missing()
        modules = {mid: self.module[mid].unwrapped() for mid in self.module.keys()}  # noqa: SIM118
        if not any(map(prunable_layers, modules.values())):
            raise ConfigError(
                f"None of {sorted(modules)} has a layer to prune: none is a {KIND_NAMES}."
            )
        if not self._pruners and all(map(self._is_wholly_frozen, modules)):
            raise ConfigError(
                f"Everything that could be pruned is frozen (requires_grad=False) in "
                f"{sorted(self.module.keys())}. Unfreeze a layer, or set `pruning.frozen` to "
                "'prune'."
            )
        self._last_word.look()

    @property
    def pruners(self) -> Mapping[str, Pruner]:
        """The Pruners by module id."""
        return self._pruners

    def add_module(self, *, module_id: str, **kwargs: Any) -> Any:
        """Add a module as RLlib does, and prune it too, if it is among those chosen."""
        spec = super().add_module(module_id=module_id, **kwargs)
        self._base_rates = lr_schedulers.base_rates(self) | self._base_rates
        self._attach_missing()
        return spec

    def remove_module(self, module_id: str, **kwargs: Any) -> Any:
        """Remove a module as RLlib does, and its Pruner."""
        self._pruners.pop(module_id, None)
        self._watch.detach(module_id)
        self._live.detach(module_id)
        self._cut_off.detach(module_id)
        self._frozen_too.discard(module_id)
        self._distiller.detach(module_id)
        self._rewinder.detach(module_id)
        spec = super().remove_module(module_id, **kwargs)
        self._last_word.look()
        return spec

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """See who will ask for dense gradients of these minibatches, or for the weights of now."""
        with self._mask_lock:
            super().before_gradient_based_update(timesteps=timesteps)
            self._seen.clear()
            self._attach_missing()
            self._last_word.begin_update()
        clock = clock_of(self, timesteps, self._updates)
        # An offline update may hold any number of minibatches, which are its clock: gather always.
        sampled = not self.config.is_offline
        per_minibatch = clock / max(self._updates, 1) if sampled else math.inf
        for module_id, pruner in self._pruners.items():
            self._take_config(module_id, pruner)
            self._gathers[module_id] = pruner.awaits_growth(clock, per_minibatch)
            self._distiller.begin(module_id, pruner)
            self._rewinder.take(module_id, pruner, self._step)

    def compute_losses(self, *, fwd_out: dict[str, Any], batch: Any) -> dict[str, Any]:
        """Compute RLlib's losses, and add what distillation asks for; criteria see the batch."""
        self._witness.keep(batch, self._pruners)
        self._live.keep(batch, self._pruners)
        self._cut_off.keep(batch, self._pruners)
        self._seen.update(batch)
        losses: dict[str, Any] = super().compute_losses(fwd_out=fwd_out, batch=batch)
        self._distiller.add_to(losses, fwd_out, batch)
        return losses

    def forget_evidence(self) -> None:
        """Let the minibatches go that were kept: no checkpoint holds them."""
        self._witness.forget()

    def postprocess_gradients(self, gradients_dict: Any) -> Any:
        """Mask the gradients, then let RLlib clip: a norm over pruned weights over-shrinks."""
        if self._last_word.rewrites:
            gradients_dict = writable(gradients_dict)
        for module_id, pruner in self._pruners.items():
            pruner.observe_gradients(gradients_dict)  # all-reduced by now: the same on every rank
            if self._gathers.get(module_id):
                pruner.gather_gradients(gradients_dict)
            pruner.mask_gradients(gradients_dict)
        self._watch.end_step(gradients_dict)
        return super().postprocess_gradients(gradients_dict)

    def _get_clip_function(self) -> Any:  # type: ignore[override]  # only called on an instance
        """Return RLlib's, which masks first what a user's Learner has made of the gradients."""
        clip = super()._get_clip_function()
        return self._last_word.masking_first(clip) if self._last_word.rewrites else clip

    def apply_gradients(self, gradients_dict: Any) -> None:
        """Step the optimizers, then put pruned weights back to exactly zero."""
        rewrites = self._last_word.rewrites
        with self._mask_lock:
            if rewrites:
                gradients_dict = self._last_word.masked(gradients_dict)
            # A user's own `apply_gradients` may make other gradients of these.
            with checks_spared(self.config, {} if rewrites else gradients_dict):
                super().apply_gradients(gradients_dict)
            self._updates += 1
            self._last_word.end_step()
            for module_id, pruner in self._pruners.items():
                if pruner.config.penalty is not None:
                    rates = learning_rates(self._last_word.optimizers(module_id))
                    # What nobody steps doesn't shrink either.
                    rates = dict.fromkeys(pruner.module.parameters(), 0.0) | rates
                    pruner.penalise(self._step, rates)
        self._watch.begin_step(self._updates)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Update targets and learning rates as RLlib does, then the masks where they are due.

        At the end of an update, so that the next samples already come from the pruned policy and
        an on-policy algorithm stays on policy.
        """
        with self._mask_lock:
            super().after_gradient_based_update(timesteps=timesteps)
            self._last_word.end_update()
        self._step = clock_of(self, timesteps, self._updates)
        if any(listens(pruner.config) for pruner in self._pruners.values()):
            self._mailbox.take(posts_of_all(self, self._mailbox.posted))
        for module_id, pruner in self._pruners.items():
            self._take_config(module_id, pruner)
            with self._mask_lock:
                self._rewinder.take(module_id, pruner, self._step)
                self._distiller.before_pruning(module_id, pruner, self._step)
                change = self._update_masks(module_id, pruner)
                if change is not None and change.pruned:
                    self._rewinder.rewind(module_id, pruner)
                elif change is not None:
                    self._distiller.forget_needless(module_id, pruner)
                if change is not None:
                    self._witness.note(module_id)
                    self._churn[module_id] = self._churn.get(module_id, 0.0) + change.churn
                    self._after_mask_change(module_id, change.sparsity, change)
                if self._live.compact_if_due(module_id, pruner, self._step):
                    self._after_mask_change(module_id, pruner.sparsity())
            self._cut_off.check(module_id, pruner, self.module)
            self.metrics.log_value(
                (module_id, CONFIG_KEY, "sparsity"), self._sparsity[module_id], window=1
            )

    def _update_masks(self, module_id: str, pruner: Pruner) -> MaskChange | None:
        """Do the mask update that is due, if the module is trained at all."""
        if not self._trains(module_id):
            return None
        source = partial(self._witness.evidence, module_id, pruner)
        change = pruner.update(self._step, evidence=source)
        return self._last_word.agreed(pruner, change)

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Update as RLlib does, and mask what a user's `update` writes beside that."""
        result = super().update(*args, **kwargs)
        if self._last_word.wraps_update:
            with self._mask_lock:
                self._last_word.mask_beside_updates()
        return result

    def mask_weights(self) -> None:
        """Zero what is pruned once more: to be called by who writes weights from outside.

        It costs a pass over weights, moments and target networks.
        """
        with self._mask_lock:
            self._last_word.mask_all()

    def post(self, signals: dict[str, Any]) -> None:
        """Leave a driver's signals, which the next update puts in force."""
        self._mailbox.post(signals)

    def prune_now(self) -> dict[str, float]:
        """Prune every module to its configured sparsity at once; return sparsity by module id."""
        for module_id, pruner in self._pruners.items():
            self._take_config(module_id, pruner)
            with self._mask_lock:
                source = partial(self._witness.evidence, module_id, pruner)
                self._last_word.agreed(pruner, pruner.prune_to(evidence=source))
                self._after_mask_change(module_id, pruner.sparsity())
                self._witness.note(module_id)
        return dict(self._sparsity)

    def adopt_masks(self, modules: dict[str, dict[str, torch.Tensor]]) -> None:
        """Take over masks of a trained policy, but no progress: this run has its own.

        Args:
            modules: masks by module id and parameter name; may be empty.
        """
        for module_id, pruner in self._pruners.items():
            with self._mask_lock:
                # What a sparse schedule has drawn by chance is not for weights that have learnt.
                pruner.restart()
                pruner.take_masks(modules.get(module_id, {}))
                self._after_mask_change(module_id, pruner.sparsity())

    def awaited_units(self) -> dict[str, list[Unit]]:
        """Return by module id the units whose lost return a mask update waits for."""
        with self._mask_lock:
            return {mid: pruner.awaited_units(self._step) for mid, pruner in self._pruners.items()}

    def post_layer_returns(self, module_id: str, lost: dict[str, float]) -> None:
        """Take what `awaited_units` waits for: the return lost without each unit."""
        with self._mask_lock:
            self._pruners[module_id].returns = dict(lost)

    def pruning_report(self) -> dict[str, dict[str, Any]]:
        """Return per module what the masks are now, with every broken promise.

        Returns:
            ``{module id: {"sparsity", "groups", "itop", "layers", "parameters", "violations",
            "finite", "digest", "kept", "finished", "weights_seq_no", "step", "updates",
            "mask_updates"}}``. `itop` is `Pruner.coverage`; `violations`
            counts pruned weights that are not zero, in the module and in its target networks;
            `digest` identifies the masks, for comparison over Learners; `kept` counts the kept
            weights of what EnvRunners get.
        """
        with self._mask_lock:
            reports = self._reports()
            violations = {mid: report["violations"] for mid, report in reports.items()}
            return self._reports() if self._last_word.heals(violations) else reports

    def _reports(self) -> dict[str, dict[str, Any]]:
        return {mid: self._report(mid, pruner) for mid, pruner in self._pruners.items()}

    def left_alone(self) -> list[str]:
        """Return a line for each module that is chosen and left alone, with the reason."""
        whys = {mid: self._why_left_alone(mid) for mid in self.module.keys()}  # noqa: SIM118
        return [f"{mid!r} is left alone: {why}" for mid, why in whys.items() if why]

    def _why_left_alone(self, module_id: str) -> str | None:
        """Say why a module isn't pruned; None if it is, isn't chosen, or has no weights."""
        module: Any = self.module[module_id].unwrapped()
        chosen = is_pruned(self.config, module_id) and isinstance(module, torch.nn.Module)
        if module_id in self._pruners or not chosen or not weights_of(module):
            return None
        if not prunable_layers(module):
            return f"none of its layers is a {KIND_NAMES}."
        if not is_trained(self.config, module_id):
            why = "`policies_to_train` leaves it out."
        elif self._is_wholly_frozen(module_id):
            why = "its layers are frozen (requires_grad=False)."
        else:
            return None
        return (
            f"{why} To prune it all the same, name it in `modules`, or set `pruning.frozen` to "
            "'prune'."
        )

    def uncovered_lines(self) -> list[str]:
        """Return what sparsities are not of, a line for each module; see `Pruner.uncovered`."""
        lines = {mid: pruner.uncovered.line() for mid, pruner in self._pruners.items()}
        return [f"{mid!r}: {line}." for mid, line in lines.items() if line] + self.left_alone()

    def take_churn(self) -> dict[str, float]:
        """Return the fraction of weights whose mask changed since the last call, by module id."""
        with self._mask_lock:
            churn, self._churn = self._churn, {}
            return churn

    def take_plasticity(self) -> dict[str, Any]:
        """Return what `rayprune.pruning.measures.plasticity` has that is new, by module id."""
        return self._watch.take()

    def drop_watch(self, module_id: str) -> None:
        """Take the hooks of an open window off a module that is about to change."""
        self._watch.drop(module_id)

    def arrived(self) -> dict[str, bool]:
        """Return `Pruner.arrived` by module id; it counts every mask."""
        with self._mask_lock:
            return {mid: pruner.arrived for mid, pruner in self._pruners.items()}

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher for distillation has been taken."""
        return self._distiller.teaches

    def restart_watching(self) -> None:
        """Give up what is half measured: a checkpoint doesn't hold it."""
        self._watch.restart(self._updates)

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Return what costs more than a report: passes over scores and over units.

        Returns:
            ``{module id: {"scores": {parameter: histogram}, "dead_units": {layer: count},
            "convergence": {parameter: figures}}}``: the scores of the weights that are left, the
            units with no incoming weight, and how far Shapley values have converged. What has
            failed is empty.
        """
        with self._mask_lock:
            known = self._witness.convergence
            return {
                mid: {**self._diagnosis(mid, pruner), "convergence": known.get(mid, {})}
                for mid, pruner in self._pruners.items()
            }

    def masks(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return copies of the masks on the CPU, ``{module id: {parameter name: bool tensor}}``."""
        return {
            mid: {name: mask.cpu().clone() for name, mask in pruner.held_masks.items()}
            for mid, pruner in self._pruners.items()
        }

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> Any:
        """Return RLlib's state, and ours under ``STATE_KEY`` unless only components are asked."""
        with self._mask_lock:
            self._last_word.before_reading()
            state = super().get_state(components, not_components=not_components, **kwargs)
            if self._check_component(STATE_KEY, components, not_components):
                state[STATE_KEY] = {
                    "step": self._step,
                    "updates": self._updates,
                    "modules": {
                        # Arrays, as all of RLlib's states are: their pickle is the same each time.
                        mid: convert_to_numpy(pruner.state_dict())
                        for mid, pruner in self._pruners.items()
                    },
                    "unsaved": unsaved.collect(self),
                    "rewinding": self._rewinder.get_state(),
                    "signals": self._mailbox.get_state(),
                    "teachers": self._distiller.get_state(),
                    "lr_schedulers": lr_schedulers.collect(self, self._base_rates),
                }
        return state

    def save_to_path(self, *args: Any, **kwargs: Any) -> Any:
        """Save as RLlib does; an asynchronous Learner waits, or its parts would not fit."""
        with self._mask_lock:
            self._last_word.before_reading()
            return super().save_to_path(*args, **kwargs)

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Restore as RLlib does; a component alone comes by a way that passes `set_state` by."""
        with self._mask_lock:
            super().restore_from_path(path, *args, **kwargs)
            if kwargs.get("component") is not None:
                self._live.fit({})
                self._forget_masks_of_other_weights()
                # RLlib leaves the number as it was, and EnvRunners would keep the old weights.
                self._weights_seq_no += 1

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore, then let this Learner's own config speak where RLlib takes the checkpoint's.

        RLlib restores the optimizer's hyper-parameters too, so that a clone made by
        population-based training would go on with its donor's learning rate
        (ray-project/ray#62173).
        """
        options = {n: lr_schedulers.options_of(opt) for n, opt in self._named_optimizers.items()}
        with self._mask_lock:
            self._live.fit(state)
            super().set_state(state)
            ours = state.get(STATE_KEY)
            if ours is not None:
                self._restore_pruning(ours)
            else:
                self._forget_masks_of_other_weights()
        if self._lr_scheduler_classes:
            saved = (ours or {}).get("lr_schedulers", {})
            lr_schedulers.put_back(self, saved, options, self._base_rates)
            return
        for name, groups in options.items():
            for group, own in zip(self._named_optimizers[name].param_groups, groups, strict=True):
                group.update(own)
        self._set_scheduled_lrs()

    def _forget_masks_of_other_weights(self) -> None:
        """What plain RLlib saved is dense: a mask that was drawn before knows nothing of it."""
        for module_id, pruner in self._pruners.items():
            if pruner.violations():
                pruner.restart()
                self._after_mask_change(module_id, 0.0)

    def _restore_pruning(self, state: dict[str, Any]) -> None:
        self._step, self._updates = state["step"], state["updates"]
        for module_id, held in state["modules"].items():
            self._attach_again(module_id)
            if module_id in self._pruners:
                pruner = self._pruners[module_id]
                pruner.load_state_dict(held)
                self._sparsity[module_id] = pruner.sparsity()
        unsaved.put_back(self, state["unsaved"])
        self._mailbox.set_state(state.get("signals", {}))
        self._distiller.set_state(state.get("teachers", {}), self._pruners)
        self._rewinder.set_state(state.get("rewinding", {}), self._pruners)
        self._watch.restart(self._updates)

    def _attach_again(self, module_id: str) -> None:
        """Prune on what was pruned, though it isn't trained at the moment."""
        left = module_id not in self._pruners and module_id in self.module.keys()  # noqa: SIM118
        if left and is_pruned(self.config, module_id):
            self._attach(module_id)
            self._last_word.look()

    def _set_scheduled_lrs(self) -> None:
        for optimizer, schedule in self._optimizer_lr_schedules.items():
            self._set_optimizer_lr(optimizer, schedule.update(timestep=self._step))

    def _attach_missing(self) -> None:
        """Prune what isn't yet, and is to be: a module that is new, or trained from now on."""
        for module_id in self.module.keys():  # noqa: SIM118 - a MultiRLModule is no dict
            if module_id not in self._pruners and self._is_to_prune(module_id):
                self._attach(module_id)
                self._last_word.look()

    def _is_to_prune(self, module_id: str) -> bool:
        """Whether a module is chosen and trained, or asked for though it is frozen."""
        module = self.module[module_id].unwrapped()
        if not (isinstance(module, torch.nn.Module) and is_pruned(self.config, module_id)):
            return False
        if not prunable_layers(module):
            # Among others it is left alone; where it is all there is, a Pruner says what it lacks.
            return is_named(self.config, module_id) or len(self.module.keys()) == 1
        asked = is_asked_for(self.config, module_id)
        if not asked and not is_trained(self.config, module_id):
            return False
        if not self._is_wholly_frozen(module_id):
            return True
        if asked:
            # To name a module whose every layer is frozen can mean nothing else.
            self._frozen_too.add(module_id)
        return asked

    def _is_wholly_frozen(self, module_id: str) -> bool:
        """Whether there are weights that could be pruned, and none of them is trained."""
        module = self.module[module_id].unwrapped()
        layers = prunable_layers(module)
        return bool(layers) and wholly_frozen(layers)

    def _trains(self, module_id: str) -> bool:
        """Whether a module was trained by this update, or is pruned though it isn't."""
        config = self.config
        if config.policies_to_train is None or is_asked_for(config, module_id):
            return True
        # A function decides by the batch: what it left out is in none of them.
        # Learners of a group see different batches, and must decide alike.
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        by_batch = callable(config.policies_to_train) and alone
        return module_id in self._seen if by_batch else is_trained(config, module_id)

    def _attach(self, module_id: str) -> None:
        module: Any = self.module[module_id].unwrapped()
        refuse_torch_pruned(module_id, module)
        config = self.pruning_config(module_id)
        optimizers = optimizers_of(self, module_id)
        if config.fused_optimizer:
            fuse_adam(optimizers)
        targets = [target for _, target in target_pairs(module)]
        self._pruners[module_id] = Pruner(
            module,
            config,
            groups=group_of,
            heads=heads_of(module, targets, name=module_id, parent=self.module),
            sensors=functools.cache(lambda: sensors_of(module, targets)),
            exclude=targets,
            seed=self.config.seed or 0,
            # `prune` refuses a gated schedule; all else is posted, by a driver or the callback.
            driven=not config.gated or is_driven(self.config, module_id),
        )
        self._sparsity[module_id] = 0.0
        begun = self._pruners[module_id].start()
        if begun is not None:
            self._after_mask_change(module_id, begun.sparsity)
        self._live.attach(module_id, self._pruners[module_id])
        self._distiller.attach(module_id, self._pruners[module_id])
        self._watch.attach(module_id, self._pruners[module_id])
        self._watch.begin_step(self._updates)

    def _take_config(self, module_id: str, pruner: Pruner) -> None:
        config = self.pruning_config(module_id)
        if config is not pruner.config:  # checking it against the network costs 0.1 ms
            pruner.config = config

    def pruning_config(self, module_id: str) -> PruningConfig:
        """Return the config as it is now: a mutated target must act at the next update."""
        frozen_too = module_id in self._frozen_too
        return self._configs.config_of(self.config, module_id, self._mailbox.applied, frozen_too)

    def _after_mask_change(
        self, module_id: str, sparsity: float, change: MaskChange = UNCHANGED
    ) -> None:
        """Make moments and targets as sparse as the weights, and have the EnvRunners synced."""
        pruner = self._pruners[module_id]
        optimizers = self._last_word.optimizers(module_id)
        for name, parameter in pruner.masked_parameters.items():
            for moment in moments(optimizers, parameter):
                pruner.mask_tensors({parameter: moment})
                if name in change.regrown:
                    moment.masked_fill_(change.regrown[name], 0)
        parameters = pruner.masked_parameters
        for name, target in self._target_parameters(module_id):
            pruner.mask_tensors({parameters[name]: target})
            if name in change.scales:
                target.mul_(change.scales[name])
        hold_bypassed(pruner, optimizers, target_pairs(self.module[module_id].unwrapped()))
        self._cut_off.note(module_id)
        self._sparsity[module_id] = sparsity
        # EnvRunners ignore weights that carry a number they have seen.
        self._weights_seq_no += 1

    def _target_parameters(self, module_id: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each target parameter with the name of the source parameter that masks it."""
        names = {id(p): name for name, p in self._pruners[module_id].masked_parameters.items()}
        for source, target in target_pairs(self.module[module_id].unwrapped()):
            for p, t in zip(source.parameters(), target.parameters(), strict=True):
                if id(p) in names:
                    yield names[id(p)], t.data

    def _diagnosis(self, module_id: str, pruner: Pruner) -> dict[str, Any]:
        kinds: dict[str, Callable[[Pruner], Any]] = {
            "scores": _score_histograms,
            "dead_units": _dead_units,
        }
        return {
            key: self._diagnostics.take(key, module_id, partial(measure, pruner), {})
            for key, measure in kinds.items()
        }

    def _report(self, module_id: str, pruner: Pruner) -> dict[str, Any]:
        masks = pruner.held_masks
        stale = {
            f"target of {name}": int(torch.count_nonzero(target[~masks[name]]))
            for name, target in self._target_parameters(module_id)
            if name in masks
        }
        module: Any = self.module[module_id].unwrapped()
        layers = pruner.layer_counts()
        groups = dict.fromkeys(layer.group for layer in layers if not layer.exempt)
        copies = {id(p) for _, net in target_pairs(module) for p in net.parameters()}
        named = {n: p for n, p in module.named_parameters() if id(p) not in copies}
        parameters = list(named.values())
        return {
            "sparsity": pruner.masked(),
            "groups": {g: pruner.masked(g) for g in groups},
            "itop": self._diagnostics.take("itop", module_id, pruner.coverage, None),
            "layers": layers,
            "uncovered": pruner.uncovered.to_dict(),
            "cut_off": self._cut_off.report(module_id, pruner),
            "parameters": {
                "total": sum(pruner.origins.size(name, p) for name, p in named.items()),
                "held": sum(p.numel() for p in parameters),
                "nonzero": sum(int(torch.count_nonzero(p)) for p in parameters),
            },
            "violations": {**pruner.violations(), **{k: n for k, n in stale.items() if n}},
            "finite": all(bool(torch.isfinite(p).all()) for p in parameters),
            "digest": _digest(masks),
            "finished": pruner.finished(self._step),
            "most": pruner.most,
            "kept": {
                name: int(mask.sum())
                for name, mask in masks.items()
                if not name.startswith(kept_back(module))
            },
            "weights_seq_no": self._weights_seq_no,
            "step": self._step,
            "updates": self._updates,
            "mask_updates": pruner.mask_updates,
        }


def _score_histograms(pruner: Pruner) -> dict[str, Any]:
    masks = pruner.held_masks
    # Scores from data are known only in the moment of a mask update.
    criterion = pruner.config.chosen.criterion
    told = criterion.evidence or criterion.needs_returns
    scores = {} if told else pruner.scores()
    drawn = {name: histogram_of(s, masks.get(name)) for name, s in scores.items()}
    return {name: histogram for name, histogram in drawn.items() if histogram is not None}


def _dead_units(pruner: Pruner) -> dict[str, int]:
    layers = {layer.name for layer in pruner.layer_counts()}
    dead = dead_units(pruner.module)
    return {name: count for name, count in dead.items() if name in layers}


def prunable_layers(module: Any) -> list[torch.nn.Module]:
    """Return a module's layers that have weights to prune, without its target networks'."""
    if not isinstance(module, torch.nn.Module):
        return []
    targets = [target for _, target in target_pairs(module)]
    parts = [part for _, part in not_excluded(module, targets) if type(part) in KINDS]
    return [part for part in parts if prunable_parameters(part) or is_torch_pruned(part)]


def refuse_torch_pruned(module_id: str, module: torch.nn.Module) -> None:
    """Raise ConfigError for a module whose EnvRunners would look for other parameter names."""
    if is_torch_pruned(module):
        raise ConfigError(
            f"the RLModule of {module_id!r} is pruned by torch.nn.utils.prune, and its copies on "
            "the EnvRunners too. End its `setup` with `rayprune.make_maskable(self)`, which takes "
            "the masks over everywhere."
        )


def heads_of(
    module: torch.nn.Module,
    targets: list[torch.nn.Module],
    *,
    name: str = "",
    parent: Any = None,
) -> frozenset[str]:
    """Return the layers whose units are the module's outputs, so that no unit can go.

    Args:
        module: is made maskable.
        targets: target networks in it.
        name: the module's id, if it has one.
        parent: the MultiRLModule that holds it, if one does.
    """
    make_maskable(module, exclude=targets)
    layers = maskable_layers(module, exclude=targets)
    return module_heads(module, layers, name=name, parent=parent)


def sensors_of(module: torch.nn.Module, targets: list[torch.nn.Module]) -> Sensors:
    """Return the sensors that the module's prunable layers read."""
    return module_sensors(module, dict(maskable_layers(module, exclude=targets)))


def _digest(masks: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(masks):
        digest.update(name.encode())
        digest.update(masks[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
