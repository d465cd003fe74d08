"""Evaluates a policy on given seeds, one environment a seed, with greedy actions.

It runs RLlib's own connectors around the module, so that observation filters, recurrent states and
action squashing are those of training. Every episode starts from a seed of its own, so that two
policies are compared on the same episodes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import unbatch

from rayprune.pruning.layers.resizing import fit_to, misfits
from rayprune.pruning.measures.counting import count_flops
from rayprune.rllib.algorithms.target_networks import target_prefixes
from rayprune.rllib.checkpoints.saved_policy import SavedPolicy
from rayprune.rllib.connectors.filters import ObservationFilter
from rayprune.rllib.connectors.observations import KeepObservations
from rayprune.rllib.connectors.pipelines import pieces_of
from rayprune.rllib.environments.environment import guarded_env, lone_env_runner, start_episode
from rayprune.rllib.environments.guard import Guarded, silence_tracebacks, tell_of_cut
from rayprune.rllib.evaluation.steps import Acted, add_step
from rayprune.rllib.torch_threads import fitting_threads
from rayprune.statistics.intervals import summarise
from rayprune.tracking.reporter import Pace

AT_ONCE: Final = 32
"""Episodes stepped side by side, through one batched forward pass."""


class Evaluator:
    """A policy beside its environments, apart from the training EnvRunners."""

    def __init__(self, config: AlgorithmConfig, *, whole: bool = False) -> None:
        """Build an EnvRunner for its module and connectors; nothing is trained or sampled with it.

        Args:
            config: the algorithm's config; its env and module spec are used.
            whole: with critic and target networks, as a Learner holds the module; else what an
                EnvRunner holds.
        """
        self._runner = lone_env_runner(config)
        self._config: AlgorithmConfig = self._runner.config
        if whole:
            self._runner.module = _whole_module(self._config, self.spaces)
        self._whole: Any = None
        self.cut = 0
        """Episodes of the last `returns` that were cut off."""
        self._freeze_filters()

    @property
    def module(self) -> Any:
        """The policy's RLModule, inference only."""
        return self._runner.module

    @property
    def config(self) -> AlgorithmConfig:
        """The algorithm's config, without exploration."""
        return self._config

    @property
    def spaces(self) -> Any:
        """RLlib's dict of spaces: of the environment, and as the module sees them."""
        return self._runner.get_spaces()

    @property
    def connectors(self) -> tuple[list[Any], list[Any]]:
        """The connectors that lead to the module, and those that lead from it, in their order."""
        runner: Any = self._runner
        return pieces_of(runner._env_to_module), pieces_of(runner._module_to_env)

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over weights and connector states, as an EnvRunner's `get_state` gives them."""
        self._fit(state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID])
        self._runner.set_state(dict(state))

    def load_checkpoint(self, directory: Path) -> None:
        """Take over the policy of an Algorithm's checkpoint, rayprune's or plain RLlib's.

        Raises:
            CheckpointError: it is of another network, or can't be read.
        """
        self.load_saved(SavedPolicy(directory))

    def load_saved(self, policy: SavedPolicy) -> None:
        """Take over a policy of which others may be made too; see `load_checkpoint`."""
        _drop_targets_beside(self.module, policy.weights)
        policy.check_fits(self.module)
        self._fit(policy.weights)
        self.module.set_state(policy.weights)
        policy.restore_connectors(self._runner)
        self._freeze_filters()

    def make_env(self) -> Guarded:
        """Make one more of its environments; the caller closes it."""
        return guarded_env(self._config)

    def returns(
        self, first_seed: int, episodes: int, watch: Callable[[Acted], None] | None = None
    ) -> list[float]:
        """Return the undiscounted return of each episode, shape ``(episodes,)``.

        Args:
            first_seed: episode i is reset with ``first_seed + i``.
            episodes: how many.
            watch: told of every step.
        """
        seeds = range(first_seed, first_seed + episodes)
        waves = [seeds[i : i + AT_ONCE] for i in range(0, episodes, AT_ONCE)]
        self.cut, pace = 0, Pace()
        with fitting_threads(self.module):
            found = [value for wave in waves for value in self._wave(wave, watch, pace, episodes)]
        tell_of_cut(self.cut, self._config)
        return found

    def evaluate(self, first_seed: int, episodes: int) -> dict[str, Any]:
        """Return `summarise`'s dict for episodes from ``first_seed`` on.

        Where episodes didn't end within `evaluation.max_steps`, ``cut`` says how many.
        """
        summary = summarise(self.returns(first_seed, episodes))
        return {**summary, "cut": self.cut} if self.cut else summary

    def act(self, episodes: list[SingleAgentEpisode], shared: dict[str, Any]) -> Acted:
        """Act greedily on the last observation of each episode, which is left as it is.

        Args:
            episodes: open ones.
            shared: the connectors' own memory: one dict for all steps of the same episodes.
        """
        common = self._common(episodes, shared)
        # Before the connectors, which overwrite them in the episodes.
        observations = [episode.get_observations(-1) for episode in episodes]
        batch = self._runner._env_to_module(batch={}, **common)
        with torch.no_grad():
            outputs = self.module.forward_inference(batch)
        logits = outputs.get(Columns.ACTION_DIST_INPUTS)
        to_env = self._runner._module_to_env(batch=outputs, **common)
        actions = to_env.pop(Columns.ACTIONS)
        for_env = unbatch(to_env.pop(Columns.ACTIONS_FOR_ENV, actions))
        return Acted(observations, batch, logits, unbatch(actions), for_env, to_env)

    def play(self, episodes: int, seed: int, *, explore: bool) -> list[SingleAgentEpisode]:
        """Return whole episodes with all that happened in them, observations as they were given.

        Args:
            episodes: how many.
            seed: of the environment, which all of them follow from.
            explore: draw the actions as in training; else the greedy ones.
        """
        silence_tracebacks()  # the error says what is in them
        runner: Any = self._runner
        runner._seed, runner._needs_initial_reset = seed, True
        kept = KeepObservations()
        runner._env_to_module.prepend(kept)
        try:
            played: list[SingleAgentEpisode] = runner.sample(num_episodes=episodes, explore=explore)
        finally:
            runner._env_to_module.remove(KeepObservations)
        for episode in played:
            kept.restore(episode)
        return played

    def first_batch(self, seed: int) -> dict[str, Any]:
        """Return the module's input for the first observation of the episode of ``seed``."""
        env = self.make_env()
        try:
            batch: dict[str, Any] = self._runner._env_to_module(
                batch={}, **self._common([start_episode(env, seed)], {})
            )
            return batch
        finally:
            env.close()

    def flops(self, seed: int) -> dict[str, int]:
        """Return the FLOPs of one greedy action at batch 1, dense and counting non-zeros only.

        What live compaction has taken out counts among the dense ones, as zeros do.

        Args:
            seed: of the episode whose first observation is acted on.
        """
        batch = self.first_batch(seed)
        now, whole = (
            count_flops(module, partial(module.forward_inference, batch))
            for module in (self.module, self._whole or self.module)
        )
        return {"dense": whole.dense, "sparse": now.sparse}

    def close(self) -> None:
        """Close the environments."""
        self._runner.stop()

    def _fit(self, weights: Mapping[str, Any]) -> None:
        """Let the module take the sizes of a policy that shrank while it was trained."""
        if self._whole is None and misfits(self.module, weights):
            self._whole = copy.deepcopy(self.module)
        fit_to(self.module, weights)

    def _common(self, episodes: list[SingleAgentEpisode], shared: dict[str, Any]) -> dict[str, Any]:
        return {
            "rl_module": self.module,
            "episodes": episodes,
            "explore": False,
            "shared_data": shared,
        }

    def _freeze_filters(self) -> None:
        for connector in self.connectors[0]:
            # A running observation filter is applied in an evaluation, but does not learn from it.
            if hasattr(connector, "_update_stats"):
                connector._update_stats = False
            if isinstance(connector, ObservationFilter):
                # What is recorded of its episodes is what the environment gave.
                connector.rewrite = False

    def _wave(
        self,
        seeds: Sequence[int],
        watch: Callable[[Acted], None] | None,
        pace: Pace,
        episodes_in_all: int,
    ) -> list[float]:
        envs = [self.make_env() for _ in seeds]
        try:
            episodes = [start_episode(env, seed) for env, seed in zip(envs, seeds, strict=True)]
            shared: dict[str, Any] = {}
            active = list(range(len(envs)))
            while active:
                acted = self._step([envs[i] for i in active], [episodes[i] for i in active], shared)
                if watch is not None:
                    watch(acted)
                active = [i for i in active if not episodes[i].is_done]
                pace.tell(lambda: _how_far(episodes, seeds, episodes_in_all))
            self.cut += sum(env.cut for env in envs)
            return [float(episode.get_return()) for episode in episodes]
        finally:
            for env in envs:
                env.close()

    def _step(
        self,
        envs: list[gym.Env[Any, Any]],
        episodes: list[SingleAgentEpisode],
        shared: dict[str, Any],
    ) -> Acted:
        acted = self.act(episodes, shared)
        for i, (env, episode) in enumerate(zip(envs, episodes, strict=True)):
            add_step(env.step(acted.for_env[i]), [(episode, acted)], acted.actions[i], i)
        return acted


def _how_far(episodes: list[SingleAgentEpisode], seeds: Sequence[int], of: int) -> str:
    longest = max(len(episode) for episode in episodes)
    going = sum(not episode.is_done for episode in episodes)
    return (
        f"Evaluates {of} episodes: {going} of those from seed {seeds[0]} to {seeds[-1]} are still "
        f"open, after up to {longest:,} steps."
    )


def _drop_targets_beside(module: Any, weights: Mapping[str, Any]) -> None:
    """Let target networks go that weights have none of: PPO trains modules that could have them."""
    for prefix in target_prefixes(module):
        if not any(name.startswith(prefix) for name in weights):
            parent, _, own = prefix.removesuffix(".").rpartition(".")
            delattr(module.get_submodule(parent), own)


def _whole_module(config: AlgorithmConfig, spaces: Any) -> Any:
    module: Any = config.get_rl_module_spec(spaces=spaces, inference_only=False).build()
    if isinstance(module, TargetNetworkAPI):
        # A checkpoint of a Learner holds them too.
        module.make_target_networks()
    return module
