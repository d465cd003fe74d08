"""Which parts of a Learner's update are made lean, and why the others are left to RLlib's code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ray.rllib.algorithms.dqn.dqn_learner import DQNLearner
from ray.rllib.algorithms.impala.impala_learner import IMPALALearner
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.metrics.metrics_logger import DEFAULT_STATS_CLS_LOOKUP

from rayprune.rllib.learner.updates.losses import goes_by_batch
from rayprune.rllib.settings.foreign_code import rllibs_own, users_methods
from rayprune.rllib.settings.kept_parts import keep
from rayprune.rllib.settings.keys import LEAN_KEY
from rayprune.rllib.settings.module_configs import competes

MINIBATCHES: Final = "minibatches"
COUNTS: Final = "counts of steps"
STEP: Final = "gradient step"
LOSS: Final = "loss"
GRADIENTS: Final = "gradients"
CLIPPING: Final = "clipping"
GRAPH: Final = "graph of operations"
TARGETS: Final = "target networks"

_OF_ANOTHER_FAMILY: Final = "it is not of DQN's family"
_OPTIMIZERS: Final = {"get_optimizer", "get_optimizers_for_module"}

METHODS: Final[Mapping[str, frozenset[str]]] = {
    MINIBATCHES: frozenset({"_create_iterator_if_necessary", "_set_slicing_by_batch_id"}),
    COUNTS: frozenset({"_log_steps_trained_metrics", "_log_metrics"}),
    STEP: frozenset({"_update", "_uncompiled_update"}),
    LOSS: frozenset({"compute_loss_for_module"}),
    TARGETS: frozenset({"after_gradient_based_update"}),
    GRAPH: frozenset({"_update", "compute_loss_for_module", "compute_losses", "compute_gradients"}),
    GRADIENTS: frozenset({"compute_gradients", "apply_gradients", *_OPTIMIZERS}),
    CLIPPING: frozenset(
        {
            "_get_clip_function",
            "filter_param_dict_for_optimizer",
            "postprocess_gradients",
            "postprocess_gradients_for_module",
            *_OPTIMIZERS,
        }
    ),
}
"""What of RLlib's each part does in its own way; where a user's class does it, the part is not."""

_NAMES: Final = frozenset(name for names in METHODS.values() for name in names)


class LeanParts:
    """The parts of one Learner's update that are lean.

    Args:
        learner: not built yet; its class and its config are looked at, and what was put on it.
    """

    def __init__(self, learner: TorchLearner) -> None:
        self._learner = learner
        self._theirs = users_methods(type(learner))
        self._put_on: frozenset[str] | None = None
        self._lean: set[str] = set()
        self.look()

    def __contains__(self, part: str) -> bool:
        """Whether a part is lean."""
        return part in self._lean

    def look(self) -> None:
        """See whether functions were put on the Learner itself since the last time."""
        put_on = _NAMES & vars(self._learner).keys()
        if put_on == self._put_on:
            return
        self._put_on, learner = put_on, self._learner
        reasons = {part: _reason(part, learner, self._theirs | put_on) for part in METHODS}
        self._lean = {part for part, reason in reasons.items() if not reason}
        if learner.config.learner_config_dict.get(LEAN_KEY):
            for part, reason in reasons.items():
                if reason not in ("", _OF_ANOTHER_FAMILY):
                    keep(f"{part} of the Learner", reason)


def _reason(part: str, learner: TorchLearner, own: set[str]) -> str:
    return next(_reasons(part, learner, own), "")


def _reasons(part: str, learner: TorchLearner, own: set[str]) -> Iterator[str]:
    config = learner.config
    if not config.learner_config_dict.get(LEAN_KEY):
        yield "`lean` is false"
    if config.torch_compile_learner:
        yield "`torch_compile_learner` compiles the update"
    theirs = sorted(METHODS[part] & own)
    if theirs:
        yield f"{type(learner).__name__} has a `{theirs[0]}` of the user's"
    if part == COUNTS and config.stats_cls_lookup != DEFAULT_STATS_CLS_LOOKUP:
        yield "`stats_cls_lookup` is not RLlib's"
    if part == GRADIENTS and config._torch_grad_scaler_class:
        yield "gradients are scaled"
    if part == GRADIENTS and config._torch_lr_scheduler_classes:
        yield "torch's schedulers are made at the first step"
    if part == CLIPPING and _is_other(learner, "postprocess_gradients_for_module", Learner):
        yield "the algorithm clips in a way of its own"
    if part in (LOSS, GRAPH) and _updates_in_thread(type(learner)):
        yield "it updates in a thread of its own"
    if part == GRAPH and not goes_by_batch(type(learner), config):
        yield "its loss may go by more than the minibatch"
    if part == GRAPH and competes(config):
        yield "several networks learn from each minibatch"
    if part == GRAPH and config.num_learners > 1:
        yield "gradients are averaged while they are computed"
    if part == TARGETS and _is_other(learner, "after_gradient_based_update", DQNLearner):
        yield _OF_ANOTHER_FAMILY
    if part == STEP and _is_other(learner, "_update", TorchLearner):
        yield "the algorithm updates in a way of its own"
    if part == STEP and config.num_learners > 1:
        # Users' code in it may count on running unsynchronised, and so may IMPALA's.
        if _is_other(learner, "_uncompiled_update", TorchLearner):
            yield "the algorithm synchronises Learners in a way of its own"
        if own & (METHODS[GRADIENTS] | METHODS[CLIPPING]):
            yield "the user's gradient code runs while Learners aren't synchronised"


def _updates_in_thread(learner_class: type) -> bool:
    # Others log meanwhile. No thread has begun when this is asked.
    return issubclass(learner_class, IMPALALearner)


def _is_other(learner: Learner, method: str, owner: type) -> bool:
    return rllibs_own(type(learner), method) is not getattr(owner, method)
