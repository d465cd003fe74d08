"""DreamerV3: a model of the world, and an actor and a critic that learn in its dreams."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.errors import InputError
from rayprune.extras import needs
from rayprune.rllib.algorithms.family import AlgorithmFamily, Unread, value_at

_RLLIBS: Final = "ray.rllib.algorithms.dreamerv3"
"""It imports Pillow, which no other algorithm needs: so it is imported when it is asked for."""


class DreamerV3Family(AlgorithmFamily):
    """Mastering diverse domains through world models, Hafner et al. 2023 (arXiv:2301.04104).

    Its critic's moving average is a target network, see `target_pairs`.
    """

    actions: ClassVar[tuple[type, ...] | None] = (gym.spaces.Box, gym.spaces.Discrete)
    value_net = False
    learns_deviation = False
    no_units = "what its model of the world puts out can't be told from its hidden units"
    unread: ClassVar[tuple[Unread, ...]] = (
        Unread(
            "training",
            ("minibatch_size", "num_epochs", "shuffle_batch_per_epoch"),
            "Set `batch_size_B`, `batch_length_T` and `training_ratio`.",
        ),
    )

    @property
    def known_config(self) -> type[AlgorithmConfig] | None:
        """RLlib's class of its configs; None while nobody has imported it."""
        return getattr(sys.modules.get(_RLLIBS), "DreamerV3Config", None)

    def config(self) -> AlgorithmConfig:
        """Return a fresh config.

        Raises:
            InputError: Pillow is missing.
        """
        try:
            fresh: AlgorithmConfig = importlib.import_module(_RLLIBS).DreamerV3Config()
        except ModuleNotFoundError as error:
            raise InputError(
                f"{needs('`algorithm: DreamerV3`', 'dreamerv3')} ({error})."
            ) from error
        return fresh

    def faults(self, blocks: Mapping[str, Any]) -> Iterator[str]:
        """Yield what it can't do: read a ``model_config``."""
        yield from super().faults(blocks)
        if value_at(blocks, "rl_module", "model_config"):
            yield (
                "`rllib.rl_module.model_config` does nothing with DreamerV3, whose networks have "
                "one size: set `rllib.training.model_size`, such as XS."
            )
