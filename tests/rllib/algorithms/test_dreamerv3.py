"""DreamerV3: the moving average of its critic is as sparse as that, and what it lacks is told."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.dreamerv3 import DreamerV3Config
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import SampleBatch

from rayprune.errors import ConfigError
from rayprune.rllib import prune
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.algorithms.target_networks import target_pairs
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.checkpoints.files import restore, save
from tests.rllib import configs

ROWS, STEPS = 4, 8
GRADUAL = {"kind": "cubic", "begin": 0, "end": 20, "every": 1}


def dreamer() -> DreamerV3Config:
    """DreamerV3 of the smallest size, with an update each iteration."""
    config = DreamerV3Config().environment("CartPole-v1").env_runners(num_env_runners=0)
    config.training(
        model_size="nano",
        batch_size_B=ROWS,
        batch_length_T=STEPS,
        horizon_H=3,
        training_ratio=ROWS * STEPS,
    )
    return config.debugging(seed=0, log_level="ERROR")


def batch() -> Any:
    shape = (ROWS, STEPS)
    chosen = np.random.default_rng(0).integers(2, size=shape)
    columns = {
        "obs": np.random.default_rng(1).normal(size=(*shape, 4)).astype(np.float32),
        "actions": np.eye(2, dtype=np.float32)[chosen],
        "rewards": np.ones(shape, np.float32),
        **{name: np.zeros(shape, bool) for name in ("is_first", "is_last", "is_terminated")},
    }
    return SampleBatch(columns).as_multi_agent()  # type: ignore[no-untyped-call]


def check_averages(learner: Any) -> None:
    module, masks = learner.module[DEFAULT_MODULE_ID], learner.masks()[DEFAULT_MODULE_ID]
    averages = dict(module.critic.named_parameters())
    assert not any("_ema" in name for name in masks)
    for name in ("mlp._net.0.weight", "return_layer.reward_buckets_layer.weight"):
        part, _, rest = name.partition(".")
        average = averages[f"{part}_ema.{rest}"]
        assert not average[~masks[f"critic.{name}"]].any()
        assert average.any()


def test_the_critic_s_moving_average_is_as_sparse_as_the_critic() -> None:
    config = prune(dreamer(), configs.pruning(schedule=GRADUAL, horizon=100))
    learner = config.build_learner(env=gym.make("CartPole-v1"))
    learner.build()
    assert len(target_pairs(learner.module[DEFAULT_MODULE_ID])) == 2
    for step in range(4):
        learner.update(batch=batch(), timesteps={"num_env_steps_sampled_lifetime": 5 * step + 5})
        check_averages(learner)
    report = learner.pruning_report()[DEFAULT_MODULE_ID]
    assert report["violations"] == {}
    assert report["sparsity"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.slow  # fifty iterations
@pytest.mark.usefixtures("ray_session")
def test_fifty_iterations_keep_exact_zeros_and_their_masks_when_restored(tmp_path: Any) -> None:
    config = prune(dreamer(), configs.pruning(schedule=GRADUAL, horizon=100))
    algo = configs.build(config)
    try:
        for _ in range(50):
            algo.train()  # the callback raises on a broken promise
            check_averages(configs.learner_of(algo))
        report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
        assert report["violations"] == {}
        assert report["updates"] >= 50
        assert report["sparsity"] == pytest.approx(0.8, abs=0.01)
        save(algo, tmp_path / "saved", None, {"env_steps": 50})
        held = algo.replay_buffer.get_num_timesteps()
    finally:
        algo.stop()
    restored = configs.build(config)
    try:
        restore(restored, tmp_path / "saved")
        again = learner_reports(restored)[0][DEFAULT_MODULE_ID]
        assert (again["digest"], again["violations"]) == (report["digest"], {})
        assert restored.replay_buffer.get_num_timesteps() == held > 0
        restored.train()
    finally:
        restored.stop()


def test_whole_units_and_model_configs_are_refused() -> None:
    with pytest.raises(ConfigError, match="'neuron' can't be had with DreamerV3: what its model"):
        prune(dreamer(), configs.pruning(granularity="neuron"))
    blocks = {"rl_module": {"model_config": {"fcnet_hiddens": [8]}}}
    (fault,) = family_named("DreamerV3").faults(blocks)
    assert "set `rllib.training.model_size`" in fault
