"""Runs with and without the lean training step, and what of them must be the same to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig

from rayprune.rllib import prune
from rayprune.rllib.off_policy.training import LeanTraining
from tests.rllib.configs import learner_of

PRIORITISED = {"type": "PrioritizedEpisodeReplayBuffer", "capacity": 40, "alpha": 0.6, "beta": 0.4}
UNIFORM = {"type": "EpisodeReplayBuffer", "capacity": 40}
_SMALL = {"fcnet_hiddens": [16, 16], "fusionnet_hiddens": [16], "head_fcnet_hiddens": []}
_OF_TIME = ("timer", "throughput", "_sec", "time_between", "sample")


def dqn(*, buffer: Any = None, envs: int = 1, **training: Any) -> DQNConfig:
    """DQN that evicts what it holds, and learns, within two iterations."""
    config = DQNConfig().environment("CartPole-v1")
    config.rl_module(model_config={"fcnet_hiddens": [16, 16]})
    return _replaying(config, buffer or PRIORITISED, envs, target_network_update_freq=5, **training)


def sac(kind: Any = SACConfig, *, buffer: Any = None, **training: Any) -> Any:
    """SAC, or what is made like it, as short."""
    config = kind().environment("Pendulum-v1").rl_module(model_config=_SMALL)
    rates = {"actor_lr": 1e-3, "critic_lr": 1e-3, "alpha_lr": 1e-3}
    return _replaying(config, buffer or UNIFORM, 1, **rates, **training)


def _replaying(config: Any, buffer: dict[str, Any], envs: int, **training: Any) -> Any:
    return (
        config.env_runners(
            num_env_runners=0, num_envs_per_env_runner=envs, rollout_fragment_length="auto"
        )
        .training(
            replay_buffer_config=buffer,
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=12,
            **training,
        )
        .reporting(min_sample_timesteps_per_iteration=30, min_time_s_per_iteration=0)
        .debugging(seed=3, log_level="ERROR")
    )


class Run:
    """Iterations of an algorithm.

    Args:
        config: the algorithm's.
        sparsity: reached while it learns; 0 for a dense run.
        lean: whether it trains leanly.
        iterations: how many.
    """

    def __init__(
        self, config: Any, *, sparsity: float = 0.0, lean: bool = True, iterations: int = 2
    ) -> None:
        once = {"kind": "one_shot", "begin": 25 if sparsity else 0, "every": 1}
        pruning = {"sparsity": sparsity, "schedule": once, "horizon": 1000}
        _seed()
        self.algorithm = prune(config, pruning, lean=lean).build_algo()
        self.algorithm.local_replay_buffer.rng = np.random.default_rng(5)
        _seed()
        self.results = [self.algorithm.train() for _ in range(iterations)]
        self.draws = [
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002 - RLlib draws from it
            random.getstate(),
            self.algorithm.local_replay_buffer.rng.random(),
        ]
        state = learner_of(self.algorithm).get_state()
        self.state = {key: state[key] for key in state if key != "metrics_logger"}
        self.acting = self.algorithm.env_runner.module.get_state()
        training = getattr(self.algorithm.training_step, "__self__", None)
        self.is_lean = isinstance(training, LeanTraining) and training._known_step() is not None
        """Whether the training step is ours."""
        self.algorithm.stop()


def assert_same(make_config: Callable[[], Any], *, sparsity: float = 0.0) -> None:
    """Assert that both runs leave the same weights, the same draws, and the same results."""
    ours = Run(make_config(), sparsity=sparsity)
    theirs = Run(make_config(), sparsity=sparsity, lean=False)
    assert ours.is_lean
    assert not theirs.is_lean
    assert ours.draws == theirs.draws
    assert differing(ours.state, theirs.state) == []
    assert differing(ours.acting, theirs.acting) == []
    for mine, other in zip(ours.results, theirs.results, strict=True):
        for part in ("env_runners", "replay_buffer"):
            assert differing(mine[part], other[part], but=_OF_TIME) == []
        for counts in ("num_env_steps_sampled_lifetime", "num_training_step_calls_per_iteration"):
            assert mine[counts] == other[counts]
        of_module = [each["learners"]["default_policy"].keys() for each in (mine, other)]
        assert of_module[0] == of_module[1]
        learnt = [each["learners"]["__all_modules__"] for each in (mine, other)]
        counted = [{k: v for k, v in each.items() if "steps_trained" in k} for each in learnt]
        assert differing(*counted, but=_OF_TIME) == []


def differing(ours: Any, theirs: Any, *, but: tuple[str, ...] = ()) -> list[str]:
    """Return the paths of leaves that aren't the same to the bit, or that one of two lacks."""
    mine, other = dict(_leaves(ours)), dict(_leaves(theirs))
    return [
        path
        for path in sorted({*mine, *other})
        if not any(word in path for word in but)
        and not (path in mine and path in other and _is_same(mine[path], other[path]))
    ]


def _seed() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - RLlib draws from it
    torch.manual_seed(1)


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, held in tree.items():
            yield from _leaves(held, f"{path}/{key}")
    else:
        yield path, tree


def _is_same(ours: Any, theirs: Any) -> bool:
    return np.array_equal(ours, theirs, equal_nan=np.asarray(ours).dtype.kind == "f")
