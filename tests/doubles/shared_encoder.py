"""RLlib's example of a policy that reads what another RLModule has made of the observation."""

from __future__ import annotations

import gymnasium as gym
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule, MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.rl_modules.classes import vpg_using_shared_encoder_rlm as vpg

ENCODER = vpg.SHARED_ENCODER_ID


def build(seen: gym.Space[object], acts: gym.Space[object]) -> MultiRLModule:
    """Build a policy "p0" behind its encoder."""
    specs = {
        ENCODER: (vpg.SharedEncoder, {"embedding_dim": 6}),
        "p0": (vpg.VPGPolicyAfterSharedEncoder, {"embedding_dim": 6, "hidden_dim": 8}),
    }
    return MultiRLModuleSpec(
        multi_rl_module_class=vpg.VPGMultiRLModuleWithSharedEncoder,
        rl_module_specs={
            name: RLModuleSpec(
                module_class=kind, model_config=model, observation_space=seen, action_space=acts
            )
            for name, (kind, model) in specs.items()
        },
    ).build()
