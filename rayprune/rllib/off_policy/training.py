"""An Algorithm that trains by replay, made to do so leanly."""

from __future__ import annotations

import time
from typing import Any, Final

from ray.rllib.algorithms.algorithm import Algorithm, TrainIterCtx
from ray.rllib.algorithms.dqn.dqn import DQN
from ray.rllib.utils.metrics import (
    NUM_TRAINING_STEP_CALLS_PER_ITERATION,
    RESTORE_ENV_RUNNERS_TIMER,
    TIMERS,
    TRAINING_ITERATION_TIMER,
    TRAINING_STEP_TIMER,
)
from ray.rllib.utils.metrics.ray_metrics import TimerAndPrometheusLogger

from rayprune.rllib.off_policy.held_metrics import hold
from rayprune.rllib.off_policy.training_step import ReplayStep
from rayprune.rllib.replay.buffers import make_columnar
from rayprune.rllib.replay.buffers import reason_against as reason_against_buffer
from rayprune.rllib.settings.foreign_code import users_methods
from rayprune.rllib.settings.kept_parts import keep

_OF_UPDATES: Final = frozenset(
    {"update", "_make_batch_if_necessary", "_create_iterator_if_necessary", "update_from_batch"}
)
"""What of a user's Learner may take another batch, or return something else."""


class LeanTraining:
    """Stands in for an Algorithm's ``training_step``, and for the loop around it.

    Args:
        algorithm: whose Learners and EnvRunners are made, but which may not be set up in all.
    """

    def __init__(self, algorithm: Any) -> None:
        self._algorithm = algorithm
        self._step: ReplayStep | None = None
        self._of: Any = None

    def training_step(self) -> None:
        """Do a training step."""
        step = self._known_step()
        if step is None:
            type(self._algorithm).training_step(self._algorithm)
            return
        step()
        step.bring_weights()
        step.report()

    def run_one_training_iteration(self) -> tuple[Any, TrainIterCtx]:
        """Do training steps for as long as an iteration lasts."""
        step, algorithm = self._known_step(), self._algorithm
        if step is None or step.is_remote:
            found: tuple[Any, TrainIterCtx] = type(algorithm)._run_one_training_iteration(algorithm)
            return found
        with (
            TimerAndPrometheusLogger(algorithm._metrics_run_one_training_iteration_time),
            algorithm.metrics.log_time((TIMERS, TRAINING_ITERATION_TIMER)),
            TrainIterCtx(algo=algorithm) as context,
        ):
            with algorithm.metrics.log_time((TIMERS, RESTORE_ENV_RUNNERS_TIMER)):
                algorithm.restore_env_runners(algorithm.env_runner_group)
            calls = self._run(step, context)
            step.bring_weights()
            step.report()
            algorithm.metrics.log_value(NUM_TRAINING_STEP_CALLS_PER_ITERATION, calls, reduce="sum")
        return algorithm.metrics.compile(), context

    def _run(self, step: ReplayStep, context: TrainIterCtx) -> int:
        """Do steps until there are enough; return how many."""
        algorithm, calls = self._algorithm, 0
        while not calls or not _is_enough(step, context, algorithm.config):
            with (
                step.timed(TRAINING_STEP_TIMER),
                TimerAndPrometheusLogger(algorithm._metrics_training_step_time),
            ):
                step()
            calls += 1
        return calls

    def _known_step(self) -> ReplayStep | None:
        """Return the lean step, made with what the Algorithm holds now; None if there is none."""
        algorithm = self._algorithm
        parts = algorithm.local_replay_buffer, algorithm.learner_group, algorithm.env_runner_group
        if self._of is None or any(a is not b for a, b in zip(self._of, parts, strict=True)):
            self._of, reason = parts, _reason_against(algorithm)
            if reason:
                keep("training step", reason)
                self._step = None
            else:
                make_columnar(algorithm.local_replay_buffer)
                self._step = ReplayStep(algorithm)
        return self._step


def train_leanly(*, algorithm: Any, **_: Any) -> None:
    """Have an Algorithm train leanly from now on: a function for ``on_algorithm_init``."""
    kind, training = type(algorithm), LeanTraining(algorithm)
    # On this one object, so that a config stays one of RLlib's Algorithm, whoever builds it.
    vars(algorithm)["training_step"] = training.training_step
    if kind._run_one_training_iteration is Algorithm._run_one_training_iteration:
        vars(algorithm)["_run_one_training_iteration"] = training.run_one_training_iteration


def has_own_step(algorithm_class: Any) -> bool:
    """Whether an Algorithm's training step is not DQN's."""
    return algorithm_class.training_step is not DQN.training_step or (
        algorithm_class._training_step_new_api_stack is not DQN._training_step_new_api_stack
    )


def _reason_against(algorithm: Any) -> str:
    """Return why RLlib's own step is taken, in words; empty where it isn't."""
    config, learner = algorithm.config, algorithm.learner_group._learner
    if learner is None:
        return "Learners are remote"
    if algorithm._module_is_stateful:
        return "the module is recurrent"
    theirs = sorted(users_methods(type(learner)) & _OF_UPDATES)
    if theirs:
        return f"{type(learner).__name__} has a `{theirs[0]}` of the user's"
    if config._learner_connector is not None:
        return "the config has a learner connector"
    here = [] if algorithm.env_runner_group.num_remote_workers() else [algorithm.env_runner]
    if not all(hold(part.metrics) for part in (algorithm, learner, *here)):
        return "there is a MetricsLogger of the user's"
    return reason_against_buffer(algorithm.local_replay_buffer)


def _is_enough(step: ReplayStep, context: Any, config: Any) -> bool:
    """Whether an iteration has lasted as long as a config says, see ``TrainIterCtx``."""
    seconds, sampled = config.min_time_s_per_iteration, config.min_sample_timesteps_per_iteration
    trained = config.min_train_timesteps_per_iteration
    return (
        (not seconds or time.time() - context.time_start >= seconds)
        and (not sampled or step.sampled - context.init_env_steps_sampled >= sampled)
        and (not trained or step.trained - context.init_env_steps_trained >= trained)
    )
