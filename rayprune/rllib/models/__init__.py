"""Maskable RLModules for people who start fresh; actor-critics, and SimBa for Q-networks too.

Their policy and value nets have their own widths, which RLlib's default modules can't have, and
pruning (later compaction) finds everything it needs in the names::

    shared.*   layers that both nets start from, if there are any
    policy.*   the policy net; ``policy.out`` gives the action distribution's inputs
    value.*    the value net; ``value.out`` gives the value, and stays on the Learners

::

    spec = RLModuleSpec(module_class=PrunableMLP, model_config={"policy_hiddens": [64, 64]})
    config = PPOConfig().environment("CartPole-v1").rl_module(rl_module_spec=spec)
"""

from typing import Final

from ray.rllib.core.rl_module.torch import TorchRLModule

from rayprune.rllib.models.configs import (
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    NatureCNNConfig,
    ResidualCNNConfig,
    SimBaConfig,
    SimBaDQNConfig,
    SimBaSACConfig,
    TransformerConfig,
)
from rayprune.rllib.models.modules import (
    ActorCritic,
    PrunableLSTM,
    PrunableMLP,
    PrunableNatureCNN,
    PrunableResidualCNN,
)
from rayprune.rllib.models.simba import (
    PrunableSimBa,
    PrunableSimBaCQL,
    PrunableSimBaDQN,
    PrunableSimBaIQL,
    PrunableSimBaSAC,
    PrunableSimBaTQC,
)
from rayprune.rllib.models.transformer import PrunableTransformer

OWN_MODULES: Final[tuple[type[TorchRLModule], ...]] = (
    PrunableMLP,
    PrunableNatureCNN,
    PrunableResidualCNN,
    PrunableLSTM,
    PrunableTransformer,
    PrunableSimBa,
    PrunableSimBaSAC,
    PrunableSimBaTQC,
    PrunableSimBaCQL,
    PrunableSimBaIQL,
    PrunableSimBaDQN,
)
"""All of them, as messages list them."""

__all__ = [
    "OWN_MODULES",
    "ActorCritic",
    "LSTMConfig",
    "MLPConfig",
    "ModelConfig",
    "NatureCNNConfig",
    "PrunableLSTM",
    "PrunableMLP",
    "PrunableNatureCNN",
    "PrunableResidualCNN",
    "PrunableSimBa",
    "PrunableSimBaCQL",
    "PrunableSimBaDQN",
    "PrunableSimBaIQL",
    "PrunableSimBaSAC",
    "PrunableSimBaTQC",
    "PrunableTransformer",
    "ResidualCNNConfig",
    "SimBaConfig",
    "SimBaDQNConfig",
    "SimBaSACConfig",
    "TransformerConfig",
]
