"""rayprune on RLlib: ``prune`` turns any AlgorithmConfig into one that prunes while it trains."""

from rayprune.rllib.callback import PruningCallback
from rayprune.rllib.learner import pruned
from rayprune.rllib.normalise import normalise
from rayprune.rllib.wrap import prune

__all__ = ["PruningCallback", "normalise", "prune", "pruned"]
