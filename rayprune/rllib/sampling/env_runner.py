"""An EnvRunner that steps a vector of environments without handling each episode at each step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import (
    CONNECTOR_PIPELINE_TIMER,
    ENV_STEP_TIMER,
    ENV_TO_MODULE_CONNECTOR,
    ENV_TO_MODULE_SUM_EPISODES_LENGTH_IN,
    ENV_TO_MODULE_SUM_EPISODES_LENGTH_OUT,
    MODULE_TO_ENV_CONNECTOR,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    RLMODULE_INFERENCE_TIMER,
)
from ray.rllib.utils.spaces.space_utils import batch

from rayprune.rllib.environments.guard import note_last_observation
from rayprune.rllib.sampling.acting import Acting
from rayprune.rllib.sampling.episodes import Array
from rayprune.rllib.sampling.fragment import Fragment
from rayprune.rllib.sampling.metrics import Key, QuickMetrics, quicken
from rayprune.rllib.sampling.stepping import Failing, stepping
from rayprune.rllib.settings.kept_parts import keep

_TIMERS: Final[tuple[Key, ...]] = (
    RLMODULE_INFERENCE_TIMER,
    (MODULE_TO_ENV_CONNECTOR, CONNECTOR_PIPELINE_TIMER),
    (ENV_TO_MODULE_CONNECTOR, CONNECTOR_PIPELINE_TIMER),
    ENV_STEP_TIMER,
)
_LENGTHS: Final = (ENV_TO_MODULE_SUM_EPISODES_LENGTH_IN, ENV_TO_MODULE_SUM_EPISODES_LENGTH_OUT)
_STEPS: Final = (
    NUM_ENV_STEPS_SAMPLED,
    (NUM_AGENT_STEPS_SAMPLED, DEFAULT_AGENT_ID),
    (NUM_MODULE_STEPS_SAMPLED, DEFAULT_MODULE_ID),
)
_LIFETIME_STEPS: Final = (
    (NUM_AGENT_STEPS_SAMPLED_LIFETIME, DEFAULT_AGENT_ID),
    (NUM_MODULE_STEPS_SAMPLED_LIFETIME, DEFAULT_MODULE_ID),
)


_TOLD_FROM: Final = 64
"""Steps that are counted before Ray's metrics are told, which takes as long as many of theirs."""


@dataclass(slots=True)
class _Progress:
    """How far one call of ``sample`` is."""

    steps: int = 0
    """Since the environments last had to be made anew."""
    episodes: int = 0
    waiting: list[int] = field(default_factory=list)
    """Environments that have to begin an episode, at their next step."""
    under_way: int = 0
    """Steps that the episodes under way hold."""
    lengths: list[int] = field(default_factory=list)
    """``under_way`` after each row."""
    seconds: list[float] = field(default_factory=lambda: [0.0] * len(_TIMERS))


class LeanEnvRunner(SingleAgentEnvRunner):
    """RLlib's EnvRunner for one agent, with arrays of shape (time, envs) within a ``sample``.

    It gives the episodes that RLlib's gives, draws the same random numbers and logs the same
    metrics, but for timers: connectors that it doesn't call have none from then on. What it can't
    do on arrays (`Acting.reason`) RLlib's own loop does.
    """

    sampled_finite = False
    """Whether it is known that all observations and rewards of the last sample are numbers."""
    hands_pieces = False
    """Whether `sample` may return a `Piece` in a chunk's place: who asks takes it apart anyway."""
    metrics: QuickMetrics
    # RLlib's own hints say None of what is none of it while it samples.
    env: Any
    module: Any
    _ongoing_episodes: list[Any]
    _cached_to_module: Any
    _shared_data: Any
    _acting: Acting | None = None

    def __init__(self, **kwargs: Any) -> None:
        self._untold: dict[Any, int] = {}
        super().__init__(**kwargs)
        quicken(self.metrics)

    def stop(self) -> None:
        """Tell Ray's metrics what they haven't been told, and close the environments."""
        for metric, steps in self._untold.items():
            super()._log_env_steps(metric, steps)
        self._untold.clear()
        super().stop()  # type: ignore[no-untyped-call]

    def _log_env_steps(self, metric: Any, num_steps: int) -> None:
        steps = self._untold.pop(metric, 0) + num_steps
        if 0 < steps < _TOLD_FROM:
            self._untold[metric] = steps
        else:
            super()._log_env_steps(metric, steps)

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Any]:
        self.sampled_finite = False
        if random_actions or not (num_timesteps or num_episodes) or not self._acts_on_arrays():
            episodes: list[Any] = super()._sample(
                num_timesteps=num_timesteps,
                num_episodes=num_episodes,
                explore=explore,
                random_actions=random_actions,
                force_reset=force_reset,
            )
            return episodes
        has_reset = force_reset or num_episodes is not None or self._needs_initial_reset
        if has_reset:
            self._reset_envs_and_episodes(explore)
        if num_episodes is not None:
            self._needs_initial_reset = True
        fragment = Fragment(self._ongoing_episodes)
        try:
            progress = self._run(fragment, num_timesteps, num_episodes, explore)
        except Exception:
            self._show(fragment)
            raise
        # What an environment gives at its reset is not in the fragment.
        self.sampled_finite = not has_reset and fragment.is_finite()
        samples = self._hand_over(fragment, cut=num_timesteps is not None)
        self._log(progress)
        return samples

    def _acts_on_arrays(self) -> bool:
        if self.module is None:
            return False
        if self._acting is None or not self._acting.is_of(self):
            self._acting = Acting(self)
            if self._acting.reason:
                keep("loop of EnvRunners", self._acting.reason)
        return not self._acting.reason

    def _run(
        self, fragment: Fragment, most_steps: int | None, most_episodes: int | None, explore: bool
    ) -> _Progress:
        """Step until there are enough steps, or episodes that have ended."""
        progress = _Progress()
        self._begin_with_open(progress)
        while (
            progress.steps < most_steps
            if most_steps is not None
            else progress.episodes < (most_episodes or 0)
        ):
            outputs, actions, results = self._act_and_step(progress, explore)
            if isinstance(results, str):  # ENV_STEP_FAILURE: RLlib has made new environments
                self._log_rows(progress)
                self._reset_envs_and_episodes(explore)
                fragment.restart(self._ongoing_episodes)
                self._begin_with_open(progress)
                continue
            self._take(fragment, progress, outputs, actions, results)
            ended = np.logical_or(results[2], results[3])
            if progress.waiting or ended.any():
                self._begin_and_end(fragment, progress, ended, most_episodes)
        return progress

    def _begin_with_open(self, progress: _Progress) -> None:
        episodes = self._ongoing_episodes
        progress.waiting = [n for n, episode in enumerate(episodes) if not episode.is_reset]
        progress.steps, progress.under_way = 0, sum(map(len, episodes))

    def _act_and_step(
        self, progress: _Progress, explore: bool
    ) -> tuple[dict[str, Any], Array, Any]:
        acting, inputs = self._acting, self._cached_to_module
        assert acting is not None
        assert inputs is not None
        self._cached_to_module = None
        runners = self.config.num_env_runners or 1
        step = (self.num_env_steps_sampled_lifetime // runners + progress.steps) * runners
        begin = time.perf_counter()
        outputs = acting.forward(inputs, explore=explore, step=step)
        ran = time.perf_counter()
        if self.metrics.held(_TIMERS[1]) is None:
            outputs, actions, for_env = self._connected(outputs, explore)
        else:
            actions, for_env = acting.to_env(outputs, explore=explore)
            progress.seconds[1] += time.perf_counter() - ran
        progress.seconds[0] += ran - begin
        return outputs, actions, self._step_envs(progress, for_env)

    def _step_envs(self, progress: _Progress, actions: Array) -> Any:
        """Step the environments; where one fails, do and return what RLlib does."""
        assert self._acting is not None
        begin = time.perf_counter()
        try:
            results = self._acting.step(actions)
        except Exception as error:
            return self._fail(error)
        progress.seconds[3] += time.perf_counter() - begin
        return results

    def _fail(self, error: Exception) -> Any:
        """Let RLlib deal with an environment that has failed: it may make new ones."""
        assert self._acting is not None
        held, self.env = self.env, Failing(self.env, error)
        try:
            failure = self._try_env_step(None)  # type: ignore[no-untyped-call]
        finally:
            if isinstance(self.env, Failing):
                self.env = held
        self._acting.step = stepping(self.env)
        return failure

    def _connected(
        self, outputs: dict[str, Any], explore: bool
    ) -> tuple[dict[str, Any], Array, Array]:
        """Have RLlib's connectors make actions of outputs, once, so that all of them are timed."""
        columns = self._module_to_env(
            rl_module=self.module,
            batch=outputs,
            episodes=self._ongoing_episodes,
            explore=explore,
            shared_data=self._shared_data,
            metrics=self.metrics,
            metrics_prefix_key=(MODULE_TO_ENV_CONNECTOR,),
        )
        actions = columns.pop(Columns.ACTIONS)
        for_env = columns.pop(Columns.ACTIONS_FOR_ENV, actions)
        return {name: batch(values) for name, values in columns.items()}, actions, for_env

    def _take(
        self,
        fragment: Fragment,
        progress: _Progress,
        outputs: dict[str, Any],
        actions: Array,
        results: Any,
    ) -> None:
        """Note what a step gave, and make the module's next inputs of it."""
        assert self._acting is not None
        observations, *ends, infos = results
        begin, to_module = time.perf_counter(), self._acting.to_module
        rows = to_module.rows(observations)
        states = outputs.get(Columns.STATE_OUT)
        self._cached_to_module = to_module.inputs(rows, states, progress.waiting)
        progress.seconds[2] += time.perf_counter() - begin
        fragment.add(rows, actions, tuple(ends), infos, outputs)
        stepped = self.num_envs - len(progress.waiting)
        progress.steps += stepped
        progress.under_way += stepped
        progress.lengths.append(progress.under_way)

    def _begin_and_end(
        self, fragment: Fragment, progress: _Progress, ended: Array, most_episodes: int | None
    ) -> None:
        """Begin the episodes of environments that were reset, and end those that have ended."""
        assert self._acting is not None
        watched, begun, progress.waiting = self._acting.is_watched, progress.waiting, []
        for place in begun:
            fragment.begin(place, self._acting.to_module.space)
        for place in sorted({*begun, *np.flatnonzero(ended).tolist()}):
            if place in begun:
                if watched:
                    self._make_on_episode_callback(
                        "on_episode_start", place, self._ongoing_episodes
                    )
                continue
            progress.under_way -= fragment.end(place)
            progress.episodes += 1
            progress.waiting.append(place)
            if watched:
                fragment.fill_ended(self._weights_seq_no)
                self._make_on_episode_callback("on_episode_end", place, self._ongoing_episodes)
            self._new_episode(place)
            if most_episodes is not None and progress.episodes >= most_episodes:
                break

    def _new_episode(self, env_index: int, episodes: list[Any] | None = None) -> None:
        if self._acting is None or self._acting.reason or self._acting.is_watched:
            super()._new_episode(env_index, episodes)  # type: ignore[no-untyped-call]
            return
        held = self._ongoing_episodes if episodes is None else episodes
        held[env_index] = self._acting.new_episodes.make()

    def _hand_over(self, fragment: Fragment, *, cut: bool) -> list[Any]:
        """Return the episodes that have ended, and the others cut off where they are."""
        number, to_numpy = self._weights_seq_no, self.episodes_to_numpy
        fragment.finish_ended(number, to_numpy=to_numpy)
        self._done_episodes_for_metrics.extend(fragment.ended)
        if not cut:
            return fragment.ended
        held, self._ongoing_episodes = fragment.finish_open(
            number,
            self.config.episode_lookback_horizon,
            to_numpy=to_numpy,
            in_pieces=self._may_hand_pieces(),
        )
        # For RLlib's own loop, should it be asked next.
        self._shared_data["memorized_map_structure"] = [one.id_ for one in held]
        begun = [episode for episode in held if episode.t]
        for episode in begun:
            self._ongoing_episodes_for_metrics[episode.id_].append(episode)
        return [*fragment.ended, *begun]

    def _may_hand_pieces(self) -> bool:
        assert self._acting is not None
        # Who looks for what is no number looks at episodes.
        finite = self.sampled_finite and self.episodes_to_numpy
        return self.hands_pieces and finite and not self._acting.are_samples_watched

    def _show(self, fragment: Fragment) -> None:
        """Let what was sampled so far be looked at, for it failed."""
        fragment.fill_all(self._weights_seq_no)
        for episode in fragment.ended:
            note_last_observation(self, episode)

    def _log(self, progress: _Progress) -> None:
        self._log_rows(progress)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=progress.steps)
        self._increase_sampled_metrics(progress.steps, progress.episodes)

    def _log_rows(self, progress: _Progress) -> None:
        rows = len(progress.lengths)
        for key, seconds in zip(_TIMERS, progress.seconds, strict=True):
            self.metrics.push_mean(key, seconds / max(1, rows), rows)
        for key in _LENGTHS:
            self.metrics.push_all(key, progress.lengths)
        if rows:
            self._log_env_steps(metric=self._metrics_num_try_env_step, num_steps=rows)
        progress.lengths, progress.seconds = [], [0.0] * len(_TIMERS)

    def _increase_sampled_metrics(self, num_steps: int, num_episodes_completed: int) -> int:
        add = self.metrics.add
        for key in _STEPS:
            add(key, num_steps, reduce="sum")
        add(NUM_EPISODES, num_episodes_completed, reduce="sum")
        add(NUM_ENV_STEPS_SAMPLED_LIFETIME, num_steps, reduce="lifetime_sum", with_throughput=True)
        for key in _LIFETIME_STEPS:
            add(key, num_steps, reduce="lifetime_sum")
        add(NUM_EPISODES_LIFETIME, num_episodes_completed, reduce="lifetime_sum")
        return num_steps
