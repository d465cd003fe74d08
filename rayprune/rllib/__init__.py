"""rayprune on RLlib: ``prune`` turns any AlgorithmConfig into one that prunes while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayprune.lazy import lazy_names

if TYPE_CHECKING:
    from rayprune.rllib.callback import PruningCallback
    from rayprune.rllib.learner import pruned
    from rayprune.rllib.normalisation import normalise
    from rayprune.rllib.training.layer_returns import post_layer_returns
    from rayprune.rllib.wrap import prune

__all__ = ["PruningCallback", "normalise", "post_layer_returns", "prune", "pruned"]

# Fetched at first use: an EnvRunner or a Learner needs a small part of the room.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PruningCallback": "callback",
        "normalise": "normalisation",
        "post_layer_returns": "training.layer_returns",
        "prune": "wrap",
        "pruned": "learner",
    },
)
