"""A mixin that takes RLlib's overhead out of a torch Learner's update, part by part.

RLlib's own loop runs, and calls what is overridden here: how minibatches are cut, what a gradient
step does, what is logged. Each part computes what RLlib's does, to the bit, or is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ray.rllib.algorithms.dqn.dqn_learner import DQNLearner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.metrics import TD_ERROR_KEY
from ray.rllib.utils.minibatch_utils import MiniBatchDummyIterator
from torch import Tensor

from rayprune.rllib.learner.updates import adam, gradients
from rayprune.rllib.learner.updates.drawn_minibatches import DrawnMinibatches, draws_of
from rayprune.rllib.learner.updates.forwards import forward_train
from rayprune.rllib.learner.updates.logs import LastingLogs, RepeatedLogs, StepCounts
from rayprune.rllib.learner.updates.loss_state import loss_state_of
from rayprune.rllib.learner.updates.losses import bare_loss_of
from rayprune.rllib.learner.updates.minibatches import (
    IndexedMinibatches,
    Minibatch,
    reason_against,
)
from rayprune.rllib.learner.updates.parts import (
    CLIPPING,
    COUNTS,
    GRADIENTS,
    GRAPH,
    LOSS,
    MINIBATCHES,
    STEP,
    TARGETS,
    LeanParts,
)
from rayprune.rllib.learner.updates.replays import Computed, Replays
from rayprune.rllib.learner.updates.target_networks import TargetNetworks
from rayprune.rllib.settings.kept_parts import keep

if TYPE_CHECKING:
    _Base = TorchLearner
else:
    _Base = object

_AS_THEY_ARE = (MiniBatchDummyIterator, DrawnMinibatches)


class LeanUpdates(_Base):
    """The overrides that make a TorchLearner's update lean where that changes nothing.

    ``update(..., logs=False)`` leaves out all that a later update of the same iteration will log
    anew; the last one has to log.
    """

    def build(self) -> None:
        """Build as RLlib does, once it is known which parts can be lean."""
        if not self._is_built:
            self._lean = LeanParts(self)
            self._bare_loss = bare_loss_of(type(self))
            self._loss_state = loss_state_of(self)
            self._counts = StepCounts()
            self._logs = self._is_first = self._is_last = True
            self._is_bare = self._is_seen = self._found_finite = False
            self._replays = Replays()
            self._targets = TargetNetworks()
            self._td_errors: dict[str, Tensor] = {}
        super().build()

    def distrust_recordings(self) -> None:
        """Replay no gradients until a recording is seen to hold again: losses may be others now."""
        self._replays.begin()

    def take_td_errors(self) -> dict[str, Tensor]:
        """Return the absolute TD errors of the last minibatch, which will not be logged any more.

        Returns:
            By module id, on the Learner's device, shape ``(minibatch size,)``; empty where the
            algorithm has none.
        """
        held: dict[str, Any] = {
            mid: s.get(TD_ERROR_KEY) for mid, s in self.metrics.stats.items() if type(s) is dict
        }
        found = {mid: series.items[-1].detach() for mid, series in held.items() if series}
        for module_id in found:
            held[module_id].items.clear()
        taken, self._td_errors = self._td_errors | found, {}
        return taken

    def _make_batch_if_necessary(self, training_data: Any) -> Any:
        """Take a batch of ours as it is: tensors on the Learner's device."""
        held = getattr(training_data.batch, "policy_batches", None)
        if held and all(type(own) is Minibatch for own in held.values()):
            return training_data.batch
        return super()._make_batch_if_necessary(training_data)  # type: ignore[no-untyped-call]

    def _create_iterator_if_necessary(self, *, logs: bool = True, **kwargs: Any) -> Any:
        """Cut minibatches by index where RLlib would slice and join."""
        self._lean.look()
        source: Any = super()._create_iterator_if_necessary(**kwargs)
        self._is_first |= logs
        self._logs, self._is_last = logs, True
        if logs:
            self._replays.begin()
        if MINIBATCHES not in self._lean or type(source) in _AS_THEY_ARE:
            return source
        draws = draws_of(source)
        if draws is not None:
            self.iterator = DrawnMinibatches(
                draws,
                self.device,
                kwargs["minibatch_size"],
                source._num_iters,
                self._begin_minibatch,
            )
            return self.iterator
        reason = reason_against(source)
        if reason:
            keep("minibatches of the Learner", reason)
            return source
        return IndexedMinibatches(source, self._begin_minibatch)

    def begin_anew_with_draws(self) -> None:
        """Let recorded steps be drawn in another order from the next update on."""
        if type(self.iterator) is DrawnMinibatches or draws_of(self.iterator) is not None:
            self.iterator = None  # type: ignore[assignment]  # as RLlib begins

    def _begin_minibatch(self, is_last: bool) -> None:
        self._is_last = is_last

    @property
    def _is_read(self) -> bool:
        """Whether anyone will read what is logged of this minibatch."""
        return self._logs and self._is_last

    def _set_slicing_by_batch_id(self, batch: MultiAgentBatch, *, value: bool) -> MultiAgentBatch:
        """Leave a minibatch of ours alone, which nobody slices."""
        if not value and all(type(own) is Minibatch for own in batch.policy_batches.values()):
            return batch
        return super()._set_slicing_by_batch_id(batch, value=value)

    def _log_metrics(self, batch: MultiAgentBatch) -> None:
        """Leave it to the other of RLlib's two methods that log steps."""
        if COUNTS not in self._lean:
            super()._log_metrics(batch)

    def _log_steps_trained_metrics(self, batch: MultiAgentBatch) -> None:
        """Count a minibatch's steps, and log them with the last one's."""
        if COUNTS not in self._lean:
            super()._log_steps_trained_metrics(batch)
            return
        self._counts.add(batch)
        if self._is_read:
            self.log_counts()

    def log_counts(self) -> None:
        """Log the steps of minibatches that were counted since steps were last logged."""
        self._counts.log(self.metrics, self._log_steps)

    def _log_steps(self, batch: Any) -> None:
        super()._log_metrics(batch)
        super()._log_steps_trained_metrics(batch)

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, Any]:
        """Do one gradient step."""
        if STEP not in self._lean:
            found: tuple[Any, Any, Any] = super()._update(batch, **kwargs)
            return found
        if self._is_read:
            self._compute_off_policyness(batch)  # type: ignore[no-untyped-call]
        self._see(batch)
        self._is_seen = True
        try:
            fwd_out, losses, computed = self._computed(batch)
        finally:
            self._is_seen = False
        self.apply_gradients(self.postprocess_gradients(computed))
        return fwd_out, losses, {}

    def _see(self, batch: Mapping[str, Any]) -> None:
        """Look at a minibatch before anything is computed of it."""

    def _computed(self, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Return a minibatch's outputs, losses and gradients, or the last alone."""
        if self._is_read or GRAPH not in self._lean or self._replays.are_off:
            return self._compute(batch)
        replayed = self._replays.replayed(batch, self)
        if replayed is not None:
            gradients.forget(self._optimizer_parameters)
            self._td_errors = replayed.td_errors
            self._loss_state.put(self, batch, replayed.carried)
            self._loss_state.count(self)
            return {}, {}, replayed.gradients
        found = self._replays.watched(
            batch, self, (lambda: self._alone(batch), lambda: self._alone(batch, is_bare=True))
        )
        self._td_errors = found.td_errors
        return {}, {}, found.gradients

    def _compute(self, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
        fwd_out = forward_train(self.module, batch, sets_modes=self._is_first)
        self._is_first = False
        losses = self.compute_losses(fwd_out=fwd_out, batch=batch)
        return fwd_out, losses, self.compute_gradients(losses)

    def _alone(self, batch: dict[str, Any], *, is_bare: bool = False) -> Computed:
        """Compute what there is to do with a minibatch of which nothing is logged.

        Args:
            batch: by module id.
            is_bare: whether RLlib's loss may be replaced by one that has the same gradients.
        """
        self._is_bare = is_bare
        try:
            _, _, computed = self._compute(batch)
        finally:
            self._is_bare = False
        return Computed(computed, self.take_td_errors(), self._loss_state.carried(self, batch))

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Any, fwd_out: Any
    ) -> Any:
        """Compute RLlib's loss, without the figures beside it that nobody will read."""
        given = {"module_id": module_id, "config": config, "batch": batch, "fwd_out": fwd_out}
        if self._is_read or LOSS not in self._lean:
            loss: Any = super().compute_loss_for_module(**given)  # type: ignore[safe-super]
        elif self._is_bare and self._bare_loss is not None:
            loss = self._bare_loss(self, **given)
        else:
            logged_to = self.metrics
            kind = RepeatedLogs if self._is_bare else LastingLogs
            self.metrics = kind(logged_to)  # type: ignore[assignment]
            try:
                loss = super().compute_loss_for_module(**given)  # type: ignore[safe-super]
            finally:
                self.metrics = logged_to
        return loss

    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> Any:
        """Compute gradients of the sum of all losses."""
        if GRADIENTS not in self._lean or not gradients.come_from_sum(type(self)):
            return super().compute_gradients(loss_per_module, **kwargs)
        gradients.forget(self._optimizer_parameters)
        if not gradients.backward(loss_per_module):
            return {}
        return {ref: parameter.grad for ref, parameter in self._params.items()}

    def postprocess_gradients(self, gradients_dict: dict[Any, Any]) -> Any:
        """Clip gradients where that is asked for."""
        self._found_finite = False
        if CLIPPING not in self._lean or not self._clips_plainly():
            return super().postprocess_gradients(gradients_dict)
        processed: dict[Any, Tensor] = {}
        limits: list[float | None] = []
        all_finite = True
        for module_id in self.module.keys():  # noqa: SIM118 - a MultiRLModule is no dict
            limit = self.config.get_config_for_module(module_id).grad_clip
            limits.append(limit)
            for name, optimizer in self.get_optimizers_for_module(module_id):
                own = self.filter_param_dict_for_optimizer(gradients_dict, optimizer)
                if limit is not None:
                    clipped = gradients.clip_by_global_norm(list(own.values()), limit)
                    all_finite &= clipped.were_finite
                    self._log_norm(module_id, name, clipped.norm)
                processed.update(own)
        self._found_finite = all_finite and None not in limits
        return processed

    def _clips_plainly(self) -> bool:
        """Whether gradients of all modules are clipped together, by their norm, or not at all."""
        configs = [self.config.get_config_for_module(mid) for mid in self.module.keys()]  # noqa: SIM118
        return not any(c.log_gradients for c in configs) and all(
            c.grad_clip is None or (c.grad_clip and c.grad_clip_by == "global_norm")
            for c in configs
        )

    def _log_norm(self, module_id: str, optimizer_name: str, norm: Tensor) -> None:
        if self._is_read:
            key = (module_id, f"gradients_{optimizer_name}_global_norm")
            self.metrics.log_value(key, norm, window=1)

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Step the optimizers, if one look at all gradients finds them finite."""
        if GRADIENTS not in self._lean or not self._may_step(gradients_dict):
            super().apply_gradients(gradients_dict)
            return
        for parameter, gradient in gradients_dict.items():
            if parameter.grad is not gradient:
                parameter.grad = gradient
        for names in self._module_optimizers.values():
            for name in names:
                adam.step(self._named_optimizers[name])

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Do what is due at the end of an update."""
        if TARGETS not in self._lean:
            super().after_gradient_based_update(timesteps=timesteps)
            return
        # What comes before the target networks, in RLlib's own method.
        super(DQNLearner, self).after_gradient_based_update(timesteps=timesteps)  # type: ignore[misc]
        self._targets.update_due(self, timesteps)

    def _may_step(self, found: Mapping[Any, Any]) -> bool:
        if self.config.torch_skip_nan_gradients or self._found_finite:
            return True
        # RLlib also looks at gradients that nobody has handed over.
        return all(p.grad is None or p in found for p in self._params.values()) and (
            gradients.all_finite(list(found.values()))
        )
