"""What a checkpoint carries over, and what stays the new config's own."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.rllib import prune
from rayprune.rllib.checkpoints.files import open_settings
from tests.rllib import configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def donor(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint at 60 %, trained with a learning rate of 0.001."""
    path = tmp_path_factory.mktemp("donor")
    algo = configs.build(
        prune(configs.ppo().training(lr=1e-3), configs.pruning(sparsity=0.6, criterion="random"))
    )
    algo.train()
    algo.save_to_path(path)
    algo.stop()
    return path


def restored(donor: Path, **changes: Any) -> Any:
    config = configs.ppo().training(lr=changes.pop("lr", 1e-3))
    algo = configs.build(prune(config, configs.pruning(**{"sparsity": 0.6, **changes})))
    algo.restore_from_path(str(donor))
    return algo


def sparsity(algo: Any) -> float:
    return float(configs.learner_of(algo).pruning_report()[DEFAULT_MODULE_ID]["sparsity"])


def test_masks_weights_and_moments_come_back(donor: Path) -> None:
    algo = restored(donor)
    learner = configs.learner_of(algo)
    module = learner.module[DEFAULT_MODULE_ID]
    weights = dict(module.named_parameters())
    masks = learner.masks()[DEFAULT_MODULE_ID]
    (optimizer,) = learner._named_optimizers.values()
    assert sparsity(algo) == pytest.approx(0.6, abs=0.01)
    for name, mask in masks.items():
        assert torch.all(weights[name][~mask] == 0)
        assert torch.any(weights[name][mask] != 0)
        moment = optimizer.state[weights[name]]["exp_avg_sq"]
        assert torch.all(moment[~mask] == 0)
        assert torch.any(moment[mask] != 0)
    algo.stop()


def test_the_env_runner_has_the_pruned_policy_right_after_a_restore(donor: Path) -> None:
    algo = restored(donor)
    learned = configs.learner_of(algo).module[DEFAULT_MODULE_ID].get_state(inference_only=True)
    for name, held in algo.env_runner.module.state_dict().items():
        assert np.array_equal(learned[name], held.numpy())
    algo.stop()


def test_a_clone_keeps_its_own_learning_rate_from_the_first_update_on(donor: Path) -> None:
    algo = restored(donor, lr=5e-5)
    learner = configs.learner_of(algo)
    (optimizer,) = learner._named_optimizers.values()
    assert optimizer.param_groups[0]["lr"] == 5e-5
    assert optimizer.param_groups[0]["fused"] is True
    algo.stop()


def test_a_clone_with_a_higher_target_prunes_on_and_one_with_a_lower_holds(donor: Path) -> None:
    for target, expected in ((0.9, 0.9), (0.3, 0.6)):
        algo = restored(donor, sparsity=target)
        algo.train()
        assert sparsity(algo) == pytest.approx(expected, abs=0.01)
        algo.stop()


def test_a_running_learner_takes_a_mutated_target_at_its_next_update(donor: Path) -> None:
    algo = restored(donor)
    learner = configs.learner_of(algo)
    held = learner.config.learner_config_dict["rayprune"]
    learner.config.learner_config_dict["rayprune"] = {**held, "sparsity": 0.75}
    algo.train()
    assert sparsity(algo) == pytest.approx(0.75, abs=0.01)
    algo.stop()


def test_restoring_a_dense_checkpoint_of_plain_rllib_gives_no_masks(tmp_path: Path) -> None:
    plain = configs.build(configs.ppo())
    plain.train()
    plain.save_to_path(tmp_path)
    plain.stop()
    algo = restored(tmp_path)
    (optimizer,) = configs.learner_of(algo)._named_optimizers.values()
    assert optimizer.param_groups[0]["fused"] is True  # RLlib's own checkpoint says None
    assert sparsity(algo) == 0
    algo.train()
    assert sparsity(algo) == pytest.approx(0.6, abs=0.01)
    algo.stop()


def test_what_rllib_pickled_by_its_name_may_lie_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from gymnasium.envs.classic_control import CartPoleEnv\nclass Mine(CartPoleEnv): ...\n"
    )
    (tmp_path / "envs_beside_the_script.py").write_text(source)
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    config = PPOConfig().environment(importlib.import_module("envs_beside_the_script").Mine)
    held = pickle.dumps({"ctor_args_and_kwargs": ((config.get_state(),), {})})
    (tmp_path / "class_and_ctor_args.pkl").write_bytes(held)
    (tmp_path / "learner_group").mkdir()
    monkeypatch.delitem(sys.modules, "envs_beside_the_script")
    monkeypatch.setattr("sys.path", sys.path[:-1])
    monkeypatch.chdir(tmp_path)
    _, read = open_settings(tmp_path)
    assert getattr(read.env, "__module__", None) == "envs_beside_the_script"
