"""A checkpoint's policy: loaded once, asked many things."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.config import EvaluationConfig
from rayprune.rllib.checkpoints.saved_policy import SavedPolicy
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import settings_of
from rayprune.rllib.modules.sensors import sensor_report
from rayprune.statistics.intervals import summarise


class OpenPolicy:
    """A checkpoint's policy in its environments; a context that closes them.

    Each of the checkpoint's files is read once, however much is asked, and only when it is.

    Args:
        config: the algorithm's, whose environment is played in.
        checkpoint: where the policy lies; or what has been read of it already.
        evaluation: how its experiment evaluates, where that is known.
    """

    def __init__(
        self,
        config: AlgorithmConfig,
        checkpoint: Path | SavedPolicy,
        evaluation: EvaluationConfig | None = None,
    ) -> None:
        self.config = config
        self.evaluation = evaluation or EvaluationConfig()
        self.saved = SavedPolicy(checkpoint) if isinstance(checkpoint, Path) else checkpoint
        self._opened: list[Evaluator] = []

    @classmethod
    def at(cls, checkpoint: Path) -> OpenPolicy:
        """Return a policy in the environment that it was trained in.

        Args:
            checkpoint: rayprune's, plain RLlib's, or a finished run's directory.

        Raises:
            CheckpointError: nothing there is a checkpoint, or it can't be read.
        """
        held = settings_of(checkpoint)
        return cls(held.config, held.directory, held.evaluation)

    @cached_property
    def evaluator(self) -> Evaluator:
        """It as an EnvRunner holds it: what acts, and no more."""
        return self._open(whole=False)

    @cached_property
    def whole(self) -> Evaluator:
        """It as a Learner holds it: with critic and target networks."""
        return self._open(whole=True)

    def shifted(self, env_config: Mapping[str, Any]) -> OpenPolicy:
        """Return it in a variant of its environment; the caller closes that."""
        config = self.config.copy(copy_frozen=False)
        config.environment(env_config={**self.config.env_config, **env_config})
        return OpenPolicy(config, self.saved, self.evaluation)

    def returns(self, first_seed: int, episodes: int) -> list[float]:
        """Return the return of each episode, played greedily; see `Evaluator.returns`."""
        return self.evaluator.returns(first_seed, episodes)

    def measure(self, first_seed: int, episodes: int) -> dict[str, Any]:
        """Return mean, IQM and interval of the returns."""
        return summarise(self.returns(first_seed, episodes))

    def flops(self, seed: int) -> dict[str, int]:
        """Return the FLOPs of one greedy action; see `Evaluator.flops`."""
        return self.evaluator.flops(seed)

    def sensors(self) -> dict[str, list[str]] | None:
        """Return which sensors it reads and which can be unplugged; see `sensor_report`."""
        return sensor_report(self.evaluator)

    def parameters(self) -> dict[str, int]:
        """Return how many parameters what acts has, and how many aren't zero."""
        held = list(self.evaluator.module.parameters())
        return {
            "total": sum(p.numel() for p in held),
            "nonzero": sum(int(torch.count_nonzero(p)) for p in held),
        }

    def close(self) -> None:
        """Close its environments."""
        while self._opened:
            self._opened.pop().close()

    def __enter__(self) -> OpenPolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, *, whole: bool) -> Evaluator:
        evaluator = Evaluator(self.config, whole=whole)
        self._opened.append(evaluator)
        evaluator.load_saved(self.saved)
        return evaluator


def measure(
    config: AlgorithmConfig, checkpoint: Path, first_seed: int, episodes: int
) -> dict[str, Any]:
    """Return mean, IQM and interval of a checkpoint's policy over ``episodes`` seeds."""
    with OpenPolicy(config, checkpoint) as policy:
        return policy.measure(first_seed, episodes)
