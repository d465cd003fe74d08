"""rayprune on RLlib: ``prune`` turns any AlgorithmConfig into one that prunes while it trains."""

from rayprune.rllib.callback import PruningCallback
from rayprune.rllib.learner import pruned
from rayprune.rllib.normalisation import normalise
from rayprune.rllib.training.layer_returns import post_layer_returns
from rayprune.rllib.wrap import prune

__all__ = ["PruningCallback", "normalise", "post_layer_returns", "prune", "pruned"]
