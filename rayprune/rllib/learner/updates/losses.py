"""What is known of the losses of RLlib's algorithms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ray.rllib.algorithms.cql.torch.cql_torch_learner import CQLTorchLearner
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.iql.torch.iql_torch_learner import IQLTorchLearner
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.algorithms.tqc.torch.tqc_torch_learner import TQCTorchLearner
from torch import Tensor

from rayprune.rllib.learner.updates.ppo_loss import ppo_loss
from rayprune.rllib.settings.foreign_code import rllibs_own

BareLoss = Callable[..., Tensor]
"""Takes the Learner, and what its ``compute_loss_for_module`` takes."""


_KNOWN: Final = (
    PPOTorchLearner,
    DQNTorchLearner,
    SACTorchLearner,
    TQCTorchLearner,
    IQLTorchLearner,
    MARWILTorchLearner,
)


def goes_by_batch(learner_class: type, config: Any) -> bool:
    """Whether a loss is known to be the same function of every minibatch of an iteration.

    What CQL's and MARWIL's go by beside it, their `loss_state.LossState` tells.
    """
    loss = rllibs_own(learner_class, "compute_loss_for_module")
    if loss is vars(CQLTorchLearner)["compute_loss_for_module"]:
        # It counts once for each module.
        return not config.is_multi_agent
    return any(loss is vars(known)["compute_loss_for_module"] for known in _KNOWN)


def bare_loss_of(learner_class: type) -> BareLoss | None:
    """Return the loss of a Learner's algorithm alone, if it is known."""
    loss = rllibs_own(learner_class, "compute_loss_for_module")
    return ppo_loss if loss is vars(PPOTorchLearner)["compute_loss_for_module"] else None
