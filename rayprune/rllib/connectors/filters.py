"""Observations and rewards normalised by running statistics, beside RLlib's connectors.

RLlib 2.60's own MeanStdFilter can't be built on: its merge takes the sum of the mean's *changes*
for the mean of the new data, so that with remote EnvRunners the mean is drawn to zero from the
second synchronisation on; it counts an asynchronous EnvRunner's samples again at each; it fails on
Dict observations, and cuts integer ones to whole numbers. (ADR 0031.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns

from rayprune.errors import ConfigError
from rayprune.rllib.connectors.running_moments import Moments, Shares

Array = npt.NDArray[Any]

CLIP: Final = 10.0
"""Largest magnitude of a normalised reading, as in RLlib's filter and Stable-Baselines3's."""
_EPSILON: Final = 1e-8
"""Added to the variance, as gymnasium does: a reading that never changed stays small."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """What normalises an observation: ``clip((x - mean) / std)``."""

    mean: Array
    """float64, shape of the observation; 0 where a reading is left alone."""
    std: Array
    """As ``mean``; 1 where a reading is left alone."""

    def __call__(self, observations: Array) -> Array:
        """Return them normalised, float32, shape ``(..., *shape)``."""
        # An exported policy takes float32, so what comes in counts as that, to the last bit.
        given = np.asarray(observations, np.float32).astype(np.float64)
        centred = (given - self.mean) / self.std
        return np.clip(centred, -CLIP, CLIP, out=centred).astype(np.float32)


class _Running(ConnectorV2):
    """A connector whose state is moments that all EnvRunners gather."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._shares: Shares | None = None
        self._update_stats = True
        """Off in an evaluation, which applies the statistics and must not add to them."""
        self._restoring = False
        super().__init__(*args, **kwargs)

    @property
    def shares(self) -> Shares:
        """The moments gathered."""
        assert self._shares is not None, "the spaces are known by now"
        return self._shares

    def get_state(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return what is known of the moments."""
        return self.shares.get_state()

    def set_state(self, state: Any) -> None:
        """Take over what is known of the moments."""
        if state and self._restoring:
            self.shares.restart_from(state)
        else:
            self.shares.set_state(state)

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint's moments alone, in mid-run too.

        What EnvRunners have gathered is another policy's then, and RLlib merges it next.
        """
        self._restoring = True
        try:
            super().restore_from_path(path, *args, **kwargs)
        finally:
            self._restoring = False

    def merge_states(self, states: list[Any]) -> dict[str, Any]:
        """Return a state in which all of them count once."""
        return self.shares.merged(states)

    def freeze(self) -> None:
        """Let nothing be added any more."""
        self.shares.frozen = True

    def consolidate(self) -> None:
        """See `Shares.consolidate`."""
        self.shares.consolidate()


class ObservationFilter(_Running):
    """Centres and scales each reading by what all EnvRunners have seen of it.

    Args:
        choices: for each element of the observation, whether it is one of a choice's (one-hot),
            which is left alone; None where none is.
        rewrite: put what comes out into the episodes too, from which an on-policy Learner then
            takes exactly what was acted on. Where they are replayed they are kept raw, and
            `rayprune.rllib.connectors.sampling` normalises them with the newest statistics.
    """

    def __init__(
        self, *args: Any, choices: Array | None = None, rewrite: bool = True, **kwargs: Any
    ) -> None:
        self._choices = choices
        self.rewrite = rewrite
        super().__init__(*args, choices=choices, rewrite=rewrite, **kwargs)

    def recompute_output_observation_space(self, seen: Any, _: Any) -> gym.Space[Any]:
        """Return a Box of the same shape.

        Raises:
            ConfigError: the observations are none.
        """
        if not isinstance(seen, gym.spaces.Box) or (
            self._choices is not None and self._choices.all()
        ):
            raise ConfigError(
                "`rllib.env_runners.observation_filter` MeanStdFilter has no reading to normalise: "
                f"the observations are {seen if self._choices is None else 'choices only'}. "
                "Set `normalise.observations` to false (a recipe sets it to true where nothing is "
                "said), or let a connector before it make a Box of them."
            )
        if self._shares is None or self._shares.shape != seen.shape:
            self._shares = Shares(seen.shape)
        return gym.spaces.Box(-CLIP, CLIP, seen.shape, np.float32)

    @property
    def scaling(self) -> Scaling:
        """What it does to an observation, as of now."""
        total = self.shares.total
        mean, std = total.mean, np.sqrt(total.variance + _EPSILON)
        if self._choices is not None:
            mean, std = np.where(self._choices, 0.0, mean), np.where(self._choices, 1.0, std)
        return Scaling(mean, std)

    def normalised(self, observations: Array) -> Array:
        """Count observations in, and return them normalised, float32.

        Args:
            observations: one of each environment, shape ``(envs, *shape)``.
        """
        # Of a float64 reading as much as the network will get to see.
        seen = observations.astype(np.float32, copy=False)
        if self._update_stats:
            self.shares.add(seen.astype(np.float64))
        return self.scaling(seen)

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **_: Any) -> dict[str, Any]:
        """Normalise the newest observation of each episode that waits for an action."""
        acting = list(self.single_agent_episode_iterator(episodes, agents_that_stepped_only=True))
        if not acting:
            return batch
        seen = np.stack([np.float32(episode.get_observations(-1)) for episode in acting])
        for episode, observation in zip(acting, self.normalised(seen), strict=True):
            if self.rewrite:
                episode.set_observations(at_indices=-1, new_data=observation)
                episode.observation_space = self.observation_space
            else:
                self.add_batch_item(
                    batch, Columns.OBS, item_to_add=observation, single_agent_episode=episode
                )
        return batch


class RewardFilter(_Running):
    """Holds the running spread of the discounted return, by which rewards are scaled.

    As gymnasium's NormalizeReward: rewards are divided by the standard deviation of the discounted
    return so far; their mean stays. It leaves the batch as it is: an EnvRunner reports raw returns,
    and scales what it hands to the Learners (`rayprune.rllib.connectors.sampling`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._open: dict[str, float] = {}
        super().__init__(*args, **kwargs)
        self._shares = Shares(())

    def __call__(self, *, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Do nothing."""
        return batch

    def watch(self, episodes: Sequence[Any], gamma: float) -> None:
        """Count the discounted return at each step of episodes, whole or in chunks.

        Args:
            episodes: as an EnvRunner's ``sample`` returns them.
            gamma: the discount.
        """
        for episode in episodes:
            held = self._open.pop(episode.id_, 0.0)
            returns = []
            for reward in episode.get_rewards():
                held = held * gamma + float(reward)
                returns.append(held)
            self.shares.add(np.array(returns, np.float64))
            if not episode.is_done and math.isfinite(held):
                self._open[episode.id_] = held

    def consolidate(self) -> None:
        """See `Shares.consolidate`; episodes under way are dropped at a barrier."""
        super().consolidate()
        self._open.clear()

    @property
    def std(self) -> float:
        """What rewards are divided by, as of now."""
        return math.sqrt(float(self.shares.total.variance) + _EPSILON)


def moments_of_rllib(state: Any) -> Moments | None:
    """Return the moments in the state of an RLlib MeanStdFilter of vectors, None for another's."""
    from ray.rllib.utils.filter import RunningStat

    held = state.get(None, {}).get("running_stats", []) if isinstance(state, dict) else []
    if len(held) != 1:
        return None
    statistics = RunningStat.from_state(held[0])
    return Moments(
        int(statistics.n),
        np.array(statistics.mean_array, np.float64),
        np.array(statistics.sum_sq_diff_array, np.float64),
    )
