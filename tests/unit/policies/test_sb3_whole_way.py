"""Stable-Baselines3 from training to files: pruned in its own loop, exported, certified."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch

from rayprune import Pruner, PruningConfig
from rayprune.deploy import open_artifact
from rayprune.deploy.export.export import ExportRequest
from rayprune.policies import policy_of
from rayprune.policies.export import export_foreign
from rayprune.policies.foreign_policy import ForeignOptions

SUFFIXES = {"c": "c", "onnx": "onnx", "torch": "pt2"}
RAMP = {"kind": "cubic", "begin": 0.0, "end": 0.5, "every": 100}


def pruned(model, module, optimizer, heads, steps):
    """Prune units of a module while its own library trains it, by hooks on the optimizer."""
    config = PruningConfig(sparsity=0.5, granularity="neuron", horizon=steps, schedule=RAMP)
    pruner = Pruner(module, config, heads=heads)
    held = pruner.masked_parameters.values()
    optimizer.register_step_pre_hook(
        lambda *_: pruner.mask_gradients({one: one.grad for one in held})
    )
    optimizer.register_step_post_hook(lambda *_: pruner.mask_weights())
    model.learn(steps, callback=lambda *_: pruner.update(model.num_timesteps) is None or True)
    assert pruner.violations() == {}
    assert pruner.sparsity() == pytest.approx(0.5, abs=0.02)


def of_ppo(sb3):
    model = sb3.PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=256, seed=0, device="cpu")
    policy = model.policy
    return model, policy, policy.optimizer, ("action_net", "value_net"), 2048


def of_sac(sb3):
    model = sb3.SAC("MlpPolicy", gym.make("Pendulum-v1"), seed=0, device="cpu")
    return model, model.actor, model.actor.optimizer, ("mu", "log_std"), 600


def clear(model, seen):
    """Return where a policy's choice is no tie: SB3 compares probabilities, a file logits."""
    if isinstance(model.action_space, gym.spaces.Box):
        return np.ones(len(seen), bool)
    logits = policy_of(model)(torch.from_numpy(seen))[1].detach().numpy()
    return np.abs(logits[:, 0] - logits[:, 1]) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("make", "env"), [(of_ppo, "CartPole-v1"), (of_sac, "Pendulum-v1")])
def test_a_policy_is_exported_pruned_by_its_own_loop_and_exported_again(sb3, tmp_path, make, env):
    model, *of_pruning = make(sb3)
    source = ForeignOptions(env=env)
    model.observation_space.seed(0)
    seen = np.stack([model.observation_space.sample() for _ in range(5000)]).clip(-5, 5)
    sizes = {}
    for stage in ("dense", "pruned"):
        if stage == "pruned":
            pruned(model, *of_pruning)
        model.save(tmp_path / stage)
        expected, _ = model.predict(seen, deterministic=True)
        for name, suffix in SUFFIXES.items():
            out = tmp_path / f"{stage}_{name}.{suffix}"
            told = export_foreign(
                tmp_path / f"{stage}.zip", source, ExportRequest(out, name, episodes=5)
            )
            sizes[stage, name] = told["parameters"]["total"]
            assert told["about"]["as_trained"]["holds"]
            actions = open_artifact(out).act(seen).actions
            sure = clear(model, seen)
            assert sure.mean() > 0.99
            same = np.allclose(actions[sure], expected[sure], atol=2e-5)
            assert same, json.dumps(told["equivalence"])
    assert all(2 * sizes["pruned", name] < sizes["dense", name] for name in SUFFIXES)
