"""The maskable RLModules, small, and batches for them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

from rayprune.rllib.models import (
    ActorCritic,
    PrunableLSTM,
    PrunableMLP,
    PrunableNatureCNN,
    PrunableResidualCNN,
    PrunableSimBa,
    PrunableTransformer,
)

FLAT = gym.spaces.Box(-1, 1, (5,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (42, 42, 3), np.uint8)
SMALL = {
    PrunableMLP: {"policy_hiddens": [16, 8], "value_hiddens": [32]},
    PrunableNatureCNN: {
        "policy_channels": [4, 5],
        "value_channels": [6, 7],
        "kernels": [[8, 4], [4, 2]],
        "policy_hiddens": [16],
        "value_hiddens": [8],
    },
    PrunableResidualCNN: {
        "policy_channels": [4, 6],
        "value_channels": [3],
        "policy_hiddens": [16],
        "value_hiddens": [8],
    },
    PrunableLSTM: {
        "policy_hiddens": [16],
        "policy_cell": 12,
        "value_hiddens": [8],
        "value_cell": 6,
        "max_seq_len": 4,
    },
    PrunableSimBa: {
        "policy_width": 8,
        "policy_blocks": [16],
        "value_width": 6,
        "value_blocks": [12, 10],
    },
    PrunableTransformer: {
        "memory": 3,
        "policy_width": 8,
        "policy_heads": 2,
        "policy_blocks": [16, 12],
        "value_width": 6,
        "value_heads": 3,
        "value_blocks": [10],
        "max_seq_len": 4,
    },
}
SHARED = {
    PrunableMLP: {"shared_hiddens": [16], "policy_hiddens": [], "value_hiddens": [8]},
    PrunableNatureCNN: {"shared_channels": [4, 5], "kernels": [[8, 4], [4, 2]]}
    | {"policy_channels": [], "value_channels": [], "policy_hiddens": [8], "value_hiddens": [4]},
    PrunableResidualCNN: {"shared_channels": [4], "policy_channels": [5], "value_channels": []}
    | {"policy_hiddens": [8], "value_hiddens": [4]},
    PrunableLSTM: {"shared_hiddens": [8], "shared_cell": 12, "policy_cell": 0, "value_cell": 0}
    | {"policy_hiddens": [], "value_hiddens": [4], "max_seq_len": 4},
    # It shares nothing: here a block is left out.
    PrunableSimBa: {"policy_width": 8, "policy_blocks": [0, 16]}
    | {"value_width": 6, "value_blocks": []},
    PrunableTransformer: {"memory": 2, "policy_width": 8, "policy_heads": 1, "policy_blocks": [0]}
    | {"value_width": 8, "value_heads": 8, "value_blocks": [0, 4], "max_seq_len": 4},
}
MODULES = list(SMALL)
ACTIONS = {
    "discrete": (gym.spaces.Discrete(3), 3),
    "multi_discrete": (gym.spaces.MultiDiscrete([2, 3]), 5),
    "box": (gym.spaces.Box(-1, 1, (2,), np.float32), 4),
}


def observation_space(module_class: type[ActorCritic]) -> gym.spaces.Box:
    return IMAGE if module_class in (PrunableNatureCNN, PrunableResidualCNN) else FLAT


def build(
    module_class: type[ActorCritic],
    action_space: gym.Space = ACTIONS["discrete"][0],
    *,
    inference_only: bool = False,
    **model_config: object,
) -> ActorCritic:
    return RLModuleSpec(
        module_class=module_class,
        observation_space=observation_space(module_class),
        action_space=action_space,
        inference_only=inference_only,
        model_config=model_config or SMALL[module_class],
    ).build()


def a_batch(module: ActorCritic, size: int = 7, time: int = 4) -> dict[str, object]:
    rng = np.random.default_rng(0)
    lead = (size, time) if module.is_stateful() else (size,)
    space = module.observation_space
    obs = torch.as_tensor(rng.uniform(0, 1, (*lead, *space.shape)).astype(space.dtype))
    state = tree.map_structure(
        lambda s: torch.as_tensor(np.stack([s] * size)), module.get_initial_state()
    )
    return {Columns.OBS: obs, Columns.STATE_IN: state}


def layer_names(module: nn.Module) -> list[str]:
    layers = (nn.Linear, nn.Conv2d, nn.LSTM)
    return [name for name, layer in module.named_modules() if isinstance(layer, layers)]
