"""DQN's training step, which SAC and TQC share, without what RLlib does beside its work."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights
from ray.rllib.core import ALL_MODULES, DEFAULT_AGENT_ID
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_CONNECTOR,
    LEARNER_CONNECTOR_SUM_EPISODES_LENGTH_IN,
    LEARNER_CONNECTOR_SUM_EPISODES_LENGTH_OUT,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    REPLAY_BUFFER_ADD_DATA_TIMER,
    REPLAY_BUFFER_RESULTS,
    REPLAY_BUFFER_SAMPLE_TIMER,
    REPLAY_BUFFER_UPDATE_PRIOS_TIMER,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import (
    PrioritizedEpisodeReplayBuffer,
)

from rayprune.rllib.off_policy.batches import batch_of
from rayprune.rllib.off_policy.held_metrics import HeldMetrics
from rayprune.rllib.off_policy.weights import LocalWeights

FIGURES_EVERY: Final = 50
"""Of so many updates of an iteration the first one logs losses and what else it has computed."""

_SAMPLED: Final = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
_SAMPLED_BY_AGENT: Final = (
    ENV_RUNNER_RESULTS,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    DEFAULT_AGENT_ID,
)
_TRAINED: Final = (LEARNER_RESULTS, ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME)
_CONNECTOR: Final = (ALL_MODULES, LEARNER_CONNECTOR, "connector_pipeline_timer")
_LENGTHS: Final = tuple(
    (ALL_MODULES, key)
    for key in (
        LEARNER_CONNECTOR_SUM_EPISODES_LENGTH_IN,
        LEARNER_CONNECTOR_SUM_EPISODES_LENGTH_OUT,
    )
)


class ReplayStep:
    """One step: sample, store, replay, learn; and what it has logged, when that is asked for.

    Args:
        algorithm: with a local Learner, one agent, a columnar buffer, and metrics that hold.
    """

    def __init__(self, algorithm: Any) -> None:
        self._algorithm = algorithm
        self._buffer = algorithm.local_replay_buffer
        self._learner = algorithm.learner_group._learner
        self._weights = LocalWeights(algorithm)
        # RLlib's hint says floats.
        self._rounds: list[Any] = calculate_rr_weights(algorithm.config)
        self._metrics: HeldMetrics = algorithm.metrics
        self._learner_metrics: HeldMetrics = self._learner.metrics
        self._runner_metrics: HeldMetrics | None = (
            None if self.is_remote else algorithm.env_runner.metrics
        )
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._updates = self._steps_learnt = 0
        """Of which nothing is reported yet."""

    @property
    def is_remote(self) -> bool:
        """Whether EnvRunners are."""
        return bool(self._algorithm.env_runner_group.num_remote_workers())

    @property
    def sampled(self) -> float:
        """Env steps of the run's lifetime."""
        return self._steps(_SAMPLED, self._runner_metrics, NUM_ENV_STEPS_SAMPLED_LIFETIME)

    @property
    def trained(self) -> float:
        """Env steps that were learnt from, of the run's lifetime."""
        return self._metrics.lifetime_sum(_TRAINED) + self._steps_learnt

    def __call__(self) -> None:
        """Do a step."""
        stores, trains = self._rounds
        for _ in range(stores):
            self._store(self._sample())
        if self.sampled >= self._algorithm.config.num_steps_sampled_before_learning_starts:
            for _ in range(trains):
                self._learn()
            self._weights.have_changed()
            if self.is_remote:
                self.bring_weights()

    def bring_weights(self) -> None:
        """Let EnvRunners act with what was learnt."""
        with self.timed(SYNCH_WORKER_WEIGHTS_TIMER):
            self._weights.bring()

    def report(self) -> None:
        """Log all that wasn't yet to the Algorithm's metrics."""
        if self._runner_metrics is not None:
            self._take(self._runner_metrics, ENV_RUNNER_RESULTS)
        if self._updates:
            self._metrics.aggregate([self._buffer.get_metrics()], key=REPLAY_BUFFER_RESULTS)
            with self._learner_metrics.holding():
                self._learner.log_counts()
                self._learner.metrics.reduce()
            self._take(self._learner_metrics, LEARNER_RESULTS)
            self._updates = self._steps_learnt = 0
        for timer, seconds in self._seconds.items():
            self._metrics.push_all((TIMERS, timer), seconds)
        self._seconds.clear()

    def _sample(self) -> list[Any]:
        """Return new episodes, or chunks of them."""
        self.bring_weights()
        with self.timed(ENV_RUNNER_SAMPLING_TIMER):
            if self._runner_metrics is not None:
                return self._sample_here(self._runner_metrics)
            algorithm = self._algorithm
            sampled: Any = synchronous_parallel_sample(
                worker_set=algorithm.env_runner_group,
                concat=True,
                sample_timeout_s=algorithm.config.sample_timeout_s,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
        episodes, results = sampled
        self._metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        return list(episodes)

    def _sample_here(self, metrics: HeldMetrics) -> list[Any]:
        env_runner, episodes = self._algorithm.env_runner, list[Any]()
        before = metrics.lifetime_sum(NUM_ENV_STEPS_SAMPLED_LIFETIME)
        # The buffer takes them as they are, or makes chunks of them.
        env_runner.hands_pieces = True
        try:
            while metrics.lifetime_sum(NUM_ENV_STEPS_SAMPLED_LIFETIME) == before:
                episodes += env_runner.sample()
                with metrics.holding():
                    env_runner.get_metrics()
        finally:
            env_runner.hands_pieces = False
        return episodes

    def _store(self, episodes: list[Any]) -> None:
        with self.timed(REPLAY_BUFFER_ADD_DATA_TIMER):
            self._buffer.add(episodes)

    def _learn(self) -> None:
        """Replay a batch, do an update, and set the priorities that follow from it."""
        with self.timed(REPLAY_BUFFER_SAMPLE_TIMER):
            columns = self._draw()
        with self.timed(LEARNER_UPDATE_TIMER):
            errors = self._update(columns)
        with self.timed(REPLAY_BUFFER_UPDATE_PRIOS_TIMER):
            if isinstance(self._buffer, PrioritizedEpisodeReplayBuffer):
                for module_id, error in errors.items():
                    # As Python's floats, which is what RLlib makes of them for its metrics: single
                    # precision would have other powers.
                    self._buffer.update_priorities(error.tolist(), module_id)

    def _draw(self) -> Any:
        config = self._algorithm.config
        return self._buffer.sample_columns(
            num_items=config.total_train_batch_size,
            n_step=config.n_step,
            gamma=config.gamma,
            beta=config.replay_buffer_config.get("beta"),
        )

    def _update(self, columns: Any) -> Any:
        """Do an update; return the absolute TD errors by module id."""
        learner, first = self._learner, self._updates % FIGURES_EVERY == 0
        begin = time.perf_counter()
        batch = batch_of(columns, learner._device)
        learner.metrics.log_value(_CONNECTOR, time.perf_counter() - begin)
        for key in _LENGTHS:
            learner.metrics.log_value(key, batch.env_steps())
        with self._learner_metrics.holding():
            learner.update(
                batch=batch, timesteps=self._timesteps(), logs=first, _no_metrics_reduce=True
            )
            errors = learner.take_td_errors()
            learner.metrics.reduce()
        self._updates += 1
        self._steps_learnt += batch.env_steps()
        return errors

    def _timesteps(self) -> dict[str, Any]:
        agents = self._steps(
            _SAMPLED_BY_AGENT,
            self._runner_metrics,
            (NUM_AGENT_STEPS_SAMPLED_LIFETIME, DEFAULT_AGENT_ID),
        )
        return {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self.sampled,
            NUM_AGENT_STEPS_SAMPLED_LIFETIME: {DEFAULT_AGENT_ID: agents},
        }

    def _steps(self, key: tuple[str, ...], metrics: HeldMetrics | None, held: Any) -> float:
        """Return a lifetime's sum: what was reported of it, and what is held."""
        known = self._metrics.lifetime_sum(key)
        return known if metrics is None else known + metrics.lifetime_sum(held)

    def _take(self, metrics: HeldMetrics, key: str) -> None:
        for results in metrics.take():
            self._metrics.aggregate([results], key=key)

    @contextmanager
    def timed(self, timer: str) -> Iterator[None]:
        """Measure the time within, to be logged with the next report."""
        begin = time.perf_counter()
        yield
        self._seconds[timer].append(time.perf_counter() - begin)
