"""What a checkpoint pickles of ours, by address: one that moves makes older checkpoints unreadable.

RLlib pickles an algorithm's config, and with it the classes and functions that it names; a replay
buffer is pickled whole. All else is plain values and arrays.
"""

from __future__ import annotations

from typing import Final

ADDRESSES: Final = (
    # Algorithms that a user registered.
    "rayprune.algorithms.KnownAlgorithm",
    # Arrays that are mostly zero, in every file that holds some.
    "rayprune.deploy.storage.unpack",
    # Callbacks.
    "rayprune.rllib.callback.PruningCallback",
    "rayprune.rllib.composed_callbacks.Callbacks",
    "rayprune.rllib.composed_callbacks.check_algorithm",
    "rayprune.rllib.composed_callbacks.mask_after_callbacks",
    "rayprune.rllib.normalisation.NormalisingCallback",
    "rayprune.rllib.off_policy.training.train_leanly",
    # Connectors.
    "rayprune.rllib.connectors.observations.encode_observations",
    "rayprune.rllib.connectors.observations.fit_actions",
    "rayprune.rllib.connectors.pipelines.EnvToModule",
    "rayprune.rllib.connectors.pipelines.Imported",
    "rayprune.rllib.connectors.pipelines.Joined",
    # EnvRunners.
    "rayprune.rllib.sampling.env_runner.LeanEnvRunner",
    # Networks without hidden layers.
    "rayprune.rllib.algorithms.bc.LinearBCCatalog",
    "rayprune.rllib.algorithms.dqn.LinearDQNCatalog",
    "rayprune.rllib.algorithms.ppo.LinearPPOCatalog",
    "rayprune.rllib.algorithms.sac.LinearSACCatalog",
    "rayprune.rllib.algorithms.tqc.LinearTQCCatalog",
    # Networks of ours, which users' specs name too.
    "rayprune.rllib.models.modules.PrunableLSTM",
    "rayprune.rllib.models.modules.PrunableMLP",
    "rayprune.rllib.models.modules.PrunableNatureCNN",
    "rayprune.rllib.models.modules.PrunableResidualCNN",
    "rayprune.rllib.models.simba.PrunableSimBa",
    "rayprune.rllib.models.simba.PrunableSimBaCQL",
    "rayprune.rllib.models.simba.PrunableSimBaDQN",
    "rayprune.rllib.models.simba.PrunableSimBaIQL",
    "rayprune.rllib.models.simba.PrunableSimBaSAC",
    "rayprune.rllib.models.simba.PrunableSimBaTQC",
    "rayprune.rllib.models.transformer.PrunableTransformer",
    # Replay buffers that normalise.
    "rayprune.rllib.connectors.filters.Scaling",
    "rayprune.rllib.connectors.sampling.NormalisingEpisodeReplayBuffer",
    "rayprune.rllib.connectors.sampling.NormalisingPrioritizedEpisodeReplayBuffer",
    # Replay buffers with their steps in arrays.
    "rayprune.rllib.replay.prioritised.ColumnarPrioritizedEpisodeReplayBuffer",
    "rayprune.rllib.replay.priorities.PriorityTrees",
    "rayprune.rllib.replay.records.Record",
    "rayprune.rllib.replay.tally.Tally",
    "rayprune.rllib.replay.transitions.Order",
    "rayprune.rllib.replay.transitions.Transitions",
    "rayprune.rllib.replay.uniform.ColumnarEpisodeReplayBuffer",
)

MADE: Final = (
    "rayprune.rllib.learner.Pruning",
    "rayprune.rllib.modules.quantisable.Quantisable",
    "rayprune.rllib.modules.resizable.Shrinkable",
)
"""Beginnings of the names of classes made on demand, see `rayprune.rllib.by_reference`."""
