"""Configs as users have them: own overrides, modules that go, weights from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import (
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole
from ray.rllib.examples.rl_modules.classes.tiny_atari_cnn_rlm import TinyAtariCNN

from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.callback import RESULT_KEY
from tests.doubles.envs import Images
from tests.rllib import configs
from tests.rllib.learner.test_final_masks import not_zero

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]


def two_policies() -> Any:
    config = configs.ppo(MultiAgentCartPole).environment(env_config={"num_agents": 2})
    return config.multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=lambda agent, *_, **__: f"p{agent}"
    )


def test_overrides_of_a_modules_learner_config_dict_keep_the_pruning() -> None:
    overrides = {
        "p0": PPOConfig.overrides(learner_config_dict={"own": 1}),
        "p1": PPOConfig.overrides(learner_config_dict={"rayprune": {"sparsity": 0.5}}),
    }
    config = two_policies().multi_agent(algorithm_config_overrides_per_module=overrides)
    algo = configs.build(prune(config, configs.pruning()))
    try:
        result = algo.train()[RESULT_KEY]
    finally:
        algo.stop()
    assert result["p0"]["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert result["p1"]["sparsity"] == pytest.approx(0.5, abs=0.01)


def test_removing_the_last_pruned_module_leaves_a_run_that_goes_on() -> None:
    algo = configs.build(prune(two_policies(), configs.pruning(), modules=["p0"]))
    try:
        algo.train()
        algo.remove_module(
            "p0",
            new_agent_to_module_mapping_fn=lambda *_, **__: "p1",
            new_should_module_be_updated=["p1"],
        )
        assert algo.train()[RESULT_KEY] == {}
    finally:
        algo.stop()


def test_a_module_with_target_networks_trains_where_nobody_makes_them() -> None:
    model = {"conv_filters": [[4, 8, 4, "same"], [8, 11, 1, "valid"]]}
    config = configs.ppo(Images).rl_module(
        rl_module_spec=RLModuleSpec(module_class=TinyAtariCNN, model_config=model)
    )
    config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
    algo = configs.build(prune(config, configs.pruning(criterion="taylor")))
    try:
        sparsity = algo.train()[RESULT_KEY][DEFAULT_MODULE_ID]["sparsity"]
    finally:
        algo.stop()
    assert sparsity == pytest.approx(0.8, abs=0.01)


STATIC = {"kind": "static"}


@pytest.fixture(scope="module")
def saved(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights alone of a dense policy."""
    path = tmp_path_factory.mktemp("weights")
    algo = configs.build(configs.ppo().debugging(seed=7))
    algo.save_to_path(path)
    algo.stop()
    return path / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / COMPONENT_RL_MODULE


def by_component(algo: Any, saved: Path) -> None:
    component = f"{COMPONENT_LEARNER_GROUP}/{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
    algo.restore_from_path(str(saved), component=component)


def by_set_weights(algo: Any, saved: Path) -> None:
    algo.learner_group.set_weights(dense_weights(algo))


def by_the_groups_state(algo: Any, saved: Path) -> None:
    algo.learner_group.set_state({COMPONENT_LEARNER: {COMPONENT_RL_MODULE: dense_weights(algo)}})


def dense_weights(algo: Any) -> dict[str, Any]:
    held = algo.learner_group.get_weights()
    return {
        mid: {
            name: np.random.default_rng(0).normal(0, 0.1, w.shape).astype(np.float32)
            for name, w in module.items()
        }
        for mid, module in held.items()
    }


@pytest.mark.parametrize("way", [by_component, by_set_weights, by_the_groups_state])
@pytest.mark.parametrize("schedule", [STATIC, configs.AT_ONCE], ids=["static", "mid-run"])
def test_dense_weights_from_elsewhere_are_pruned_by_their_own_size_at_the_next_update(
    way: Any, schedule: Any, saved: Path
) -> None:
    algo = configs.build(prune(configs.ppo().training(lr=0.0), configs.pruning(schedule=schedule)))
    try:
        if schedule is not STATIC:
            algo.train()
        way(algo, saved)
        learner = configs.learner_of(algo)
        came = {
            n: p.detach().clone() for n, p in learner.module[DEFAULT_MODULE_ID].named_parameters()
        }
        assert all(torch.all(p != 0) for n, p in came.items() if n.endswith("weight"))
        algo.train()
        (left,) = foreach_learner(algo, not_zero)
        assert not left
        for name, mask in learner.masks()[DEFAULT_MODULE_ID].items():
            size = came[name].abs()
            assert mask.float().mean() == pytest.approx(0.2, abs=0.02)
            assert size[mask].min() >= size[~mask].max()
    finally:
        algo.stop()
