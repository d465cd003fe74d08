"""A local Learner's weights on their way to the EnvRunner beside it."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from torch import Tensor

from rayprune.rllib.off_policy.tensors import HeldTensors
from rayprune.rllib.settings.foreign_code import strangers, unknown_classes
from rayprune.rllib.settings.kept_parts import keep


class LocalWeights:
    """Copies what EnvRunners need of a Learner's weights, from tensor to tensor.

    RLlib makes NumPy arrays of them, puts those into Ray's object store, and makes tensors of them
    for ``load_state_dict``.

    Args:
        algorithm: with a local Learner.
    """

    def __init__(self, algorithm: Any) -> None:
        self._algorithm = algorithm
        self._learner = algorithm.learner_group._learner
        self._pairs: _Pairs | None = None
        self._is_stale = False
        self.reason = _reason_against(algorithm, self._learner)
        """Why RLlib's own way is gone, in words; empty where it isn't."""
        if self.reason:
            keep("way to sync weights", self.reason)

    def have_changed(self) -> None:
        """Note that the Learner's have; they are brought over when `bring` is called."""
        self._is_stale = True

    def bring(self) -> None:
        """Bring them over, if they have changed."""
        if not self._is_stale:
            return
        self._is_stale = False
        env_runner, learner = self._algorithm.env_runner, self._learner
        if self.reason or not env_runner._weights_seq_no < learner._weights_seq_no:
            self._sync_as_rllib()
            return
        pairs = self._pairs
        if pairs is None or not pairs.are_of(learner.module, env_runner.module):
            # RLlib's way may resize the EnvRunner's module.
            self._sync_as_rllib()
            self._pairs = _Pairs(learner.module, env_runner.module)
            return
        pairs.copy()
        env_runner._weights_seq_no = learner._weights_seq_no

    def _sync_as_rllib(self) -> None:
        self._algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=self._algorithm.learner_group,
            policies={DEFAULT_MODULE_ID},
            global_vars=None,
            inference_only=True,
        )


class _Pairs:
    """Tensors of an EnvRunner's module, each with the Learner's.

    Args:
        modules: the Learner's.
        module: the EnvRunner's.
    """

    def __init__(self, modules: Any, module: Any) -> None:
        learnt = modules[DEFAULT_MODULE_ID]
        self._from, self._to = HeldTensors(learnt), HeldTensors(module)
        names = [name for name in learnt.get_state(inference_only=True) if name in self._to.by_name]
        self._sources: list[Tensor] = [self._from.by_name[name] for name in names]
        self._copies: list[Tensor] = [self._to.by_name[name] for name in names]

    def are_of(self, modules: Any, module: Any) -> bool:
        """Whether both modules still hold these tensors."""
        return self._from.are_of(modules[DEFAULT_MODULE_ID]) and self._to.are_of(module)

    @torch.no_grad()
    def copy(self) -> None:
        """Copy all."""
        torch._foreach_copy_(self._copies, self._sources)


def _reason_against(algorithm: Any, learner: Any) -> str:
    group = algorithm.env_runner_group
    if group.num_remote_env_runners() or algorithm.env_runner is None:
        return "there are remote EnvRunners"
    own, acting = learner.module[DEFAULT_MODULE_ID], algorithm.env_runner.module
    for module in (own, acting):
        if unknown_classes(type(module)):
            return f"the RLModule {type(module).__qualname__} is the user's"
    others = strangers(algorithm.config, type(learner), [own])
    return f"{others[0]} may write weights" if others else ""
