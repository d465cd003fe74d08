"""Training without what RLlib's own loops do beside the arithmetic: the same numbers, sooner.

Each part of training (EnvRunners, replay, the training step; the Learner looks for itself) is made
lean by itself, and left to RLlib where the user's config replaces or watches something in it.
"""

from __future__ import annotations

from typing import Final, Protocol

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.rllib.off_policy.part import LeanReplay
from rayprune.rllib.sampling.part import LeanSampling
from rayprune.rllib.settings.kept_parts import keep
from rayprune.rllib.settings.keys import LEAN_KEY


class LeanPart(Protocol):
    """A part of training that can be made lean."""

    name: str
    """In words, for a debug line."""

    def concerns(self, config: AlgorithmConfig) -> bool:
        """Whether training has such a part."""

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
        keep("training loop", "`lean` is false")
        return
    for part in filter(lambda part: part.concerns(config), PARTS):
        reason = part.reason_against(config)
        if reason:
            keep(part.name, reason)
        else:
            part.apply(config)
