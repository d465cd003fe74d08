"""A transformer whose memory is the last observations themselves.

Its recurrent state holds them, so that what it does in a step depends on nothing else: training
sequences of any length give what sampling gave, and no gradient is cut off in time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import TARGET_NETWORK_ACTION_DIST_INPUTS
from torch import Tensor, nn
from torch.nn import functional

from rayprune.rllib.models import nets, spaces
from rayprune.rllib.models.configs import TransformerConfig
from rayprune.rllib.models.modules import ActorCritic, Batch

MEMORY = "memory"
"""The state's name."""


class PrunableTransformer(ActorCritic):
    """Attention over the last observations, in each net; settings in :class:`TransformerConfig`.

    A token is an observation, a 1 (places before the episode's begin hold zeros), and its age, as
    one of ``memory`` places that is 1. Ages and observations go through one layer, so that all of
    the memory is pruned and shrinks by layers that pruning knows.
    """

    config_class = TransformerConfig
    settings: TransformerConfig
    ages: Tensor

    def build(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return nothing that is shared, the policy net, and the value net."""
        c = self.settings
        size = self._place + c.memory
        self.register_buffer("ages", torch.eye(c.memory), persistent=False)
        policy = nets.attention_layers(
            size, c.policy_width, c.policy_heads, c.policy_blocks, c.activation
        )
        value = nets.attention_layers(
            size, c.value_width, c.value_heads, c.value_blocks, c.activation
        )
        return (
            nets.chain([]),
            nets.chain([*policy, *self.policy_out(c.policy_width)]),
            nets.chain([*value, ("out", nn.Linear(c.value_width, 1))]),
        )

    def get_initial_state(self) -> dict[str, Any]:
        """Return ``{"memory": (memory - 1, observation + 1)}``, in which nothing was seen yet."""
        return {MEMORY: np.zeros((self.settings.memory - 1, self._place), dtype=np.float32)}

    @property
    def _place(self) -> int:
        """How many numbers the memory holds of an observation."""
        return spaces.flat_size(self.observation_space, type(self).__name__) + 1

    def _forward(self, batch: Batch, **kwargs: Any) -> Batch:
        seen = self._seen(batch)
        inputs = self._along_time(self.policy(self._windows(seen)), batch)
        state = {MEMORY: seen[:, 1 - self.settings.memory :]}
        return {Columns.ACTION_DIST_INPUTS: inputs, Columns.STATE_OUT: state}

    def _forward_train(self, batch: Batch, **kwargs: Any) -> Batch:
        windows = self._windows(self._seen(batch))
        inputs = self._along_time(self.policy(windows), batch)
        return {Columns.ACTION_DIST_INPUTS: inputs, Columns.EMBEDDINGS: windows}

    def compute_values(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """Return the values, shape ``(batch, time)``."""
        windows = self._windows(self._seen(batch)) if embeddings is None else embeddings
        return self._along_time(self.value(windows), batch).squeeze(-1)

    def forward_target(self, batch: Batch) -> Batch:
        """Run the target policy."""
        inputs = self.old_policy(self._windows(self._seen(batch)))
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: self._along_time(inputs, batch)}

    def _seen(self, batch: Batch) -> Tensor:
        """Return what is remembered and what came then, ``(batch, memory - 1 + time, place)``."""
        obs: Tensor = batch[Columns.OBS]
        new = functional.pad(obs, (0, 1), value=1.0)
        return torch.cat([batch[Columns.STATE_IN][MEMORY], new], dim=1)

    def _windows(self, seen: Tensor) -> Tensor:
        """Return what is seen in each step, ``(batch * time, memory, place + memory)``."""
        memory = self.settings.memory
        windows = seen
        if seen.shape[1] > memory:
            windows = seen.unfold(1, memory, 1).transpose(-1, -2).flatten(0, 1)
        return torch.cat([windows, self.ages.expand(windows.shape[0], -1, -1)], dim=-1)

    def _along_time(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return outputs by step as ``(batch, time, ...)``."""
        steps: int = batch[Columns.OBS].shape[1]
        return outputs.reshape(-1, steps, *outputs.shape[1:])
