"""The transformer: what its tokens are, how far back it sees, and what heads of zeros are."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rayprune import Pruner, PruningConfig, make_maskable
from rayprune.rllib import prune
from rayprune.rllib.models import PrunableTransformer
from rayprune.rllib.models.nets import Attention
from rayprune.rllib.models.transformer import MEMORY
from rayprune.rllib.sampling.env_runner import LeanEnvRunner
from tests.rllib import configs

SETTINGS = {
    "memory": 3,
    "policy_width": 8,
    "policy_heads": 4,
    "policy_blocks": [8, 8],
    "value_width": 4,
    "value_heads": 2,
    "value_blocks": [8],
}


def build() -> Any:
    torch.manual_seed(0)
    return RLModuleSpec(
        module_class=PrunableTransformer,
        observation_space=gym.spaces.Box(-1, 1, (2,), np.float32),
        action_space=gym.spaces.Discrete(3),
        model_config=SETTINGS,
    ).build()


def batch_of(obs: torch.Tensor) -> dict[str, Any]:
    return {Columns.OBS: obs, Columns.STATE_IN: {MEMORY: torch.zeros(len(obs), 2, 3)}}


def test_a_token_is_an_observation_a_one_and_its_age() -> None:
    module = build()
    first = torch.tensor([[[0.5, -0.5], [0.25, 1.0]]])
    windows = module.forward_train(batch_of(first))[Columns.EMBEDDINGS]
    ages = torch.eye(3)
    nothing, old, new = torch.zeros(3), torch.tensor([0.5, -0.5, 1]), torch.tensor([0.25, 1.0, 1])
    expected = torch.stack([torch.stack([nothing, nothing, old]), torch.stack([nothing, old, new])])
    assert torch.equal(windows, torch.cat([expected, ages.expand(2, -1, -1)], -1))
    out = module.forward_inference(batch_of(first))[Columns.STATE_OUT][MEMORY]
    assert torch.equal(out, torch.stack([old, new])[None])


def test_what_it_does_depends_on_so_many_observations_and_no_more() -> None:
    module, obs = build(), torch.randn(1, 6, 2)

    def last(changed: int) -> tuple[torch.Tensor, torch.Tensor]:
        other = obs.clone()
        other[0, changed] += 1.0
        batch = batch_of(other)
        inputs = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
        return inputs[0, -1], module.compute_values(batch)[0, -1]

    before = last(0)
    for place in range(6):
        same = [torch.equal(a, b) for a, b in zip(last(place), before, strict=True)]
        # The last three of six.
        assert same == [place < 3] * 2


def test_heads_of_zeros_are_no_heads() -> None:
    module = build()
    make_maskable(module)
    config = PruningConfig(granularity="head", sparsity=0.5, distribution="uniform")
    Pruner(module, config).prune_to(0.5)
    one: Attention = module.policy.attention0
    x = torch.randn(2, 3, 8)
    weights = one.attention.in_proj_weight.detach().unflatten(0, (3, 4, 2))
    lives = weights.abs().sum((0, 2, 3)) > 0
    assert int(lives.sum()) == 2
    # Those that are left, by hand; the scale is of a head's width of 2.
    q, k, v = (torch.einsum("btw,hrw->bhtr", one.norm(x), part[lives]) for part in weights)
    mixed = torch.softmax(q @ k.transpose(-1, -2) / 2**0.5, -1) @ v
    out = one.attention.out_proj.weight.detach().unflatten(1, (4, 2))[:, lives]
    expected = x + torch.einsum("bhtr,whr->btw", mixed, out)
    torch.testing.assert_close(one(x), expected)
    with torch.no_grad():
        one.attention.out_proj.weight.zero_()
    assert torch.equal(one(x), x)


HEADS_AND_WEIGHTS = {"head": 0.5, "weight": 0.8}


@pytest.mark.slow  # test_live_modules.py has RLlib's nets in every run
@pytest.mark.parametrize(
    ("pruning", "rows"),
    [
        ({"granularity": "head", "sparsity": 0.5}, 12),
        ({"granularity": "hybrid", "sparsity": None, "hybrid": HEADS_AND_WEIGHTS}, 12),
    ],
)
def test_heads_go_in_mid_training_and_an_env_runner_follows(
    pruning: dict[str, Any], rows: int
) -> None:
    spec = RLModuleSpec(module_class=PrunableTransformer, model_config=SETTINGS)
    config = configs.ppo().rl_module(rl_module_spec=spec, model_config={})
    config = prune(config, configs.pruning(compact_every=10, **pruning))
    runner = LeanEnvRunner(config=config)
    learner = config.build_learner(env=runner.env)
    module = learner.module[DEFAULT_MODULE_ID]
    for step in (100, 200):
        learner.update(
            episodes=runner.sample(num_timesteps=64, random_actions=False),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: step},
            minibatch_size=32,
            num_epochs=1,
        )
        runner.module.set_state(module.get_state(inference_only=True))
    assert learner.pruning_report()[DEFAULT_MODULE_ID]["violations"] == {}
    for acting in (module, runner.module):
        # Two of four heads of width two, of which each has queries, keys and values.
        assert acting.policy.attention0.attention.in_proj_weight.shape[0] == rows
    given = {Columns.OBS: torch.randn(2, 1, 4), Columns.STATE_IN: {MEMORY: torch.randn(2, 2, 5)}}
    ours, theirs = (m.forward_inference(given) for m in (module, runner.module))
    assert torch.equal(ours[Columns.ACTION_DIST_INPUTS], theirs[Columns.ACTION_DIST_INPUTS])
