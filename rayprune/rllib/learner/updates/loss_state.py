"""What some losses go by beside the minibatch and the weights: counts, and moving averages."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any, Final

from ray.air.constants import TRAINING_ITERATION
from ray.rllib.algorithms.cql.torch.cql_torch_learner import CQLTorchLearner
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.core import ALL_MODULES
from torch import Tensor

from rayprune.rllib.settings.foreign_code import rllibs_own

UPDATES: Final = (ALL_MODULES, TRAINING_ITERATION)
"""Where CQL's loss counts the updates that it clones actions in."""


class LossState:
    """A loss that goes by nothing else."""

    def phase(self, learner: Any) -> Hashable:
        """Return what says which of several functions the next loss will be."""
        return None

    def carried(self, learner: Any, module_ids: Iterable[str]) -> list[Tensor]:
        """Return the tensors that the next loss takes over from the last one."""
        return []

    def put(self, learner: Any, module_ids: Iterable[str], carried: list[Tensor]) -> None:
        """Put these tensors in place of what `carried` returns."""

    def count(self, learner: Any) -> None:
        """Count a loss whose gradients were replayed."""


class _UpdatesOfCQL(LossState):
    """Clones actions for `bc_iters` updates, and asks the critics then."""

    def phase(self, learner: Any) -> Hashable:
        return bool(updates_counted(learner) + 1 >= learner.config.bc_iters)

    def count(self, learner: Any) -> None:
        learner.metrics.log_value(UPDATES, 1, reduce="sum")


class _NormsOfMARWIL(LossState):
    """Divides advantages by a moving average of their norms."""

    def carried(self, learner: Any, module_ids: Iterable[str]) -> list[Tensor]:
        norms = learner.moving_avg_sqd_adv_norms_per_module
        return [norms[module_id] for module_id in module_ids]

    def put(self, learner: Any, module_ids: Iterable[str], carried: list[Tensor]) -> None:
        norms = learner.moving_avg_sqd_adv_norms_per_module
        norms.update(zip(module_ids, carried, strict=True))


def loss_state_of(learner: Any) -> LossState:
    """Return what the loss of a Learner's algorithm goes by."""
    loss = rllibs_own(type(learner), "compute_loss_for_module")
    if loss is vars(CQLTorchLearner)["compute_loss_for_module"]:
        return _UpdatesOfCQL()
    is_marwil = loss is vars(MARWILTorchLearner)["compute_loss_for_module"]
    # BC is MARWIL without advantages.
    return _NormsOfMARWIL() if is_marwil and learner.config.beta != 0 else LossState()


def updates_counted(learner: Any) -> float:
    """Return how many updates CQL's loss has counted since they were last reduced."""
    held = learner.metrics.peek(UPDATES, default=0)
    return 0 if math.isnan(held) else held
