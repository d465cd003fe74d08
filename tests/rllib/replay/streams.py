"""Episodes as EnvRunners hand them over: chunks of several environments' episodes, in turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

VECTOR = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (4, 4, 2), np.uint8)


class Stream:
    """Random episodes of random lengths, some terminated, some truncated.

    Long enough for the n-steps here: RLlib's uniform buffer takes back more items than it gives
    where most transitions lack some steps, and its loop then never ends.

    Args:
        seed: of all that is random here.
        observations: the space.
        actions: the space.
        environments: how many are stepped in turns.
        longest: steps of an episode at most.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        observations: gym.Space[Any] = VECTOR,
        actions: gym.Space[Any] = gym.spaces.Discrete(3),  # noqa: B008 - never changed
        environments: int = 2,
        longest: int = 25,
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._observations, self._actions, self._longest = observations, actions, longest
        observations.seed(seed)
        actions.seed(seed)
        self._made = 0
        self._ongoing = [self._new() for _ in range(environments)]

    def chunks(self, steps: int) -> list[SingleAgentEpisode]:
        """Step each environment ``steps`` times; return what an EnvRunner's ``sample`` would."""
        done = []
        for place in range(len(self._ongoing)):
            for _ in range(steps):
                episode = self._ongoing[place]
                self._step(episode)
                if episode.is_done:
                    done.append(episode.to_numpy())
                    self._ongoing[place] = self._new()
        ongoing = [episode for episode in self._ongoing if episode.t]
        self._ongoing = [episode.cut(len_lookback_buffer=1) for episode in self._ongoing]
        return done + [episode.to_numpy() for episode in ongoing]

    def many(self, times: int, steps: int = 1) -> Iterator[list[SingleAgentEpisode]]:
        """Yield chunks a number of times."""
        return (self.chunks(steps) for _ in range(times))

    def unfinished(self, steps: int) -> SingleAgentEpisode:
        """Return an episode of some steps as lists, which goes on."""
        episode = self._new()
        for _ in range(steps):
            self._step(episode)
            episode.is_terminated = episode.is_truncated = False
        return episode

    def _new(self) -> SingleAgentEpisode:
        self._made += 1
        episode = SingleAgentEpisode(
            id_=f"episode{self._made}",
            observation_space=self._observations,
            action_space=self._actions,
        )
        episode.add_env_reset(self._observations.sample(), {"made": self._made})
        return episode

    def _step(self, episode: SingleAgentEpisode) -> None:
        end = self._random.random()
        episode.add_env_step(
            self._observations.sample(),
            self._actions.sample(),
            self._random.choice([0.0, -0.0, 1.0, self._random.normal()]),
            {"t": episode.t},
            terminated=bool(end < 0.04),
            truncated=bool(0.04 <= end < 0.06 or episode.t + 1 >= self._longest),
            extra_model_outputs={"action_logp": np.float32(end)},
        )
