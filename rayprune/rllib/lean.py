"""Training without what RLlib's own loops do beside the arithmetic: the same numbers, sooner.

Each part of training (EnvRunners, replay, the training step; the Learner looks for itself) is made
lean by itself, and left to RLlib where the user's config replaces or watches something in it.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.rllib.off_policy.part import LeanReplay
from rayprune.rllib.sampling.part import LeanSampling
from rayprune.rllib.settings.keys import LEAN_KEY

logger = logging.getLogger(__name__)


class LeanPart(Protocol):
    """A part of training that can be made lean."""

    name: str
    """In words, for a debug line."""

    def reason_against(self, config: AlgorithmConfig) -> str:
        """Return why RLlib's own part stays, in words; empty where there is no reason."""

    def apply(self, config: AlgorithmConfig) -> None:
        """Replace RLlib's part in a config, in place."""


PARTS: Final[tuple[LeanPart, ...]] = (LeanSampling(), LeanReplay())
"""In the order in which they are applied."""


def make_lean(config: AlgorithmConfig, *, lean: bool = True) -> None:
    """Make each part of training lean that can be; a debug line says which can't, and why.

    Args:
        config: pruning already; changed in place.
        lean: False leaves all of it to RLlib.
    """
    config.learners(learner_config_dict={**config.learner_config_dict, LEAN_KEY: lean})
    if not lean:
        return
    for part in PARTS:
        reason = part.reason_against(config)
        if reason:
            logger.debug("RLlib's own %s is kept: %s.", part.name, reason)
        else:
            part.apply(config)
