"""Distillation while retraining: a KL term that keeps the pruned policy close to a frozen one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import POLICY_LOSS_KEY
from torch import Tensor

from rayprune.errors import ConfigError
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.reports import MaskChange
from rayprune.rllib.algorithms import teacher_kl
from rayprune.rllib.algorithms.policy import observed
from rayprune.rllib.checkpoints.files import fetch
from rayprune.rllib.checkpoints.saved_policy import SavedPolicy
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.learner.extensions.teachers import check_apart, frozen_copy
from rayprune.rllib.settings.keys import START

KL_KEY: Final = "distillation_kl"
"""Name of the KL term in a Learner's metrics, before its weight."""


class Distillation(Extension):
    """Holds a Learner's teachers, and adds their KL terms to its losses.

    A teacher is a copy of the module outside of everything that trains, syncs or prunes. Policy
    distillation after Rusu et al. 2016 (arXiv:1511.06295): ``KL(teacher || student)`` over the
    batch, of the action distribution, or of ``softmax(Q / temperature)`` where there is none.
    """

    key = "teachers"

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._teachers: dict[str, Any] = {}
        self._checked: set[str] = set()

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """See that a module can be copied, if a teacher will be wanted.

        Raises:
            ConfigError: it can't.
        """
        if pruner.config.distillation is not None:
            frozen_copy(pruner.module)
            self._checked.discard(module_id)

    @property
    def teaches(self) -> bool:
        """Whether it holds a teacher."""
        return bool(self._teachers)

    def before_update(self, module_id: str, pruner: Pruner) -> None:
        """Take the teacher that is known before the first update: a checkpoint's, or the start's.

        Raises:
            CheckpointError: the checkpoint is of another network, or can't be read.
        """
        settings = pruner.config.distillation
        if settings is None or settings["from"] is None or module_id in self._teachers:
            return
        teacher = frozen_copy(pruner.module)
        if settings["from"] != START:
            saved = SavedPolicy(fetch(settings["from"]))
            saved.check_fits(pruner.module)
            teacher.set_state(saved.weights)
        self._teachers[module_id] = teacher

    def before_mask_update(self, module_id: str, pruner: Pruner) -> None:
        """Take the policy of now for a teacher, if the first mask update is due."""
        wanted = pruner.config.distillation is not None and module_id not in self._teachers
        if wanted and pruner.due(self._view.clock):
            self._teachers[module_id] = frozen_copy(pruner.module)

    def after_mask_update(self, module_id: str, pruner: Pruner, change: MaskChange) -> None:
        """Forget the teacher of a mask update that pruned nothing: a later one will be better."""
        settings = pruner.config.distillation
        if change.pruned:
            return
        if settings is not None and settings["from"] is None and pruner.sparsity() == 0.0:
            self._teachers.pop(module_id, None)

    def detach(self, module_id: str) -> None:
        """Forget a module's teacher: the module is gone."""
        self._teachers.pop(module_id, None)

    def on_losses(
        self, losses: dict[str, Any], fwd_out: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> None:
        """Add each module's weighted KL term to its loss, and log it.

        Args:
            losses: by module id, changed.
            fwd_out: the students' outputs, by module id.
            batch: by module id.
        """
        self._check_copies(fwd_out, batch)
        learner = self._view.learner
        for module_id, teacher in self._teachers.items():
            settings = self._view.config(module_id).distillation
            if settings is None or module_id not in losses:
                continue
            student = self._view.module(module_id)
            kl = divergence(
                student, teacher, fwd_out[module_id], batch[module_id], settings["temperature"]
            )
            term = settings["weight"] * kl
            losses[module_id] = losses[module_id] + term
            # SAC's gradients come from the losses of its parts, not from their sum.
            parts = getattr(learner, "_temp_losses", {})
            if (module_id, POLICY_LOSS_KEY) in parts:
                parts[module_id, POLICY_LOSS_KEY] = parts[module_id, POLICY_LOSS_KEY] + term
            learner.metrics.log_value((module_id, KL_KEY), kl.detach(), window=1)

    def _check_copies(self, fwd_out: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """See with the first minibatch whether a copy of the module goes by its own weights."""
        for module_id, pruner in self._view.pruners.items():
            settings = pruner.config.distillation
            if settings is None or module_id in self._checked or module_id not in fwd_out:
                continue
            self._checked.add(module_id)
            student, teacher = pruner.module, frozen_copy(pruner.module)
            outputs, minibatch = fwd_out[module_id], batch[module_id]
            run = partial(divergence, student, teacher, outputs, minibatch, 1.0)
            check_apart(teacher, student, run)

    def get_state(self) -> dict[str, Any]:
        """Return the teachers' parameters as NumPy arrays, by module id."""
        return {
            module_id: {n: t.cpu().numpy() for n, t in teacher.state_dict().items()}
            for module_id, teacher in self._teachers.items()
        }

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `get_state` returned."""
        self._teachers = {}
        pruners = self._view.pruners
        for module_id, weights in (state or {}).items():
            if module_id in pruners:
                teacher = frozen_copy(pruners[module_id].module)
                teacher.set_state(weights)
                self._teachers[module_id] = teacher


def divergence(
    student: Any,
    teacher: Any,
    outputs: Mapping[str, Any],
    batch: Mapping[str, Any],
    temperature: float,
) -> Tensor:
    """Return ``KL(teacher || student)``, in nats, mean over the batch's valid steps.

    Args:
        student: the module that trains.
        teacher: a frozen one of the same class. A recurrent one starts from the student's states.
        outputs: of the student's ``forward_train(batch)``.
        batch: shape ``(B, ...)``, or ``(B, T, ...)`` with a loss mask where it is recurrent.
        temperature: divides Q values; of no account where the module has an action distribution.

    Raises:
        ConfigError: the module has neither an action distribution nor Q values.
    """
    kl = teacher_kl(student, teacher, outputs, observed(batch), temperature)
    if kl is None:
        raise ConfigError(
            f"`pruning.distillation` needs an action distribution or Q values, and "
            f"{type(student).__name__} gives neither. Leave it out."
        )
    mask = batch.get(Columns.LOSS_MASK)
    return kl.mean() if mask is None else kl[mask].sum() / mask.sum()
