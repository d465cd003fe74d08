"""Compaction of RLlib's default modules and of our own; no Ray is started for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from rayprune import Pruner, PruningConfig, compact, make_maskable
from rayprune.deploy.compaction.compact import Compacted
from rayprune.deploy.compaction.trace import tensors_in
from rayprune.rllib.models import (
    PrunableLSTM,
    PrunableMLP,
    PrunableNatureCNN,
    PrunableResidualCNN,
)
from tests.rllib.models.small_modules import IMAGE, SHARED, SMALL, a_batch
from tests.rllib.models.small_modules import build as build_ours

FLAT = gym.spaces.Box(-1, 1, (5,), np.float32)
FLOATS = gym.spaces.Box(0, 1, (42, 42, 4), np.float32)
DISCRETE, BOX = gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,), np.float32)
CONVOLUTIONS = {"conv_filters": [[16, 4, 2], [32, 4, 2]], "head_fcnet_hiddens": [32]}
Case = tuple[type[AlgorithmConfig], gym.Space, gym.Space, dict[str, Any]]
THEIRS: dict[str, Case] = {
    "ppo": (PPOConfig, FLAT, DISCRETE, {"fcnet_hiddens": [32, 32]}),
    "ppo shared": (
        PPOConfig,
        FLAT,
        BOX,
        {"fcnet_hiddens": [32, 32], "vf_share_layers": True, "free_log_std": True},
    ),
    "ppo images": (PPOConfig, FLOATS, DISCRETE, CONVOLUTIONS),
    "dqn": (DQNConfig, FLAT, DISCRETE, {"fcnet_hiddens": [32, 32]}),
    "dqn atoms": (DQNConfig, FLAT, DISCRETE, {"fcnet_hiddens": [32, 32]}),
    "sac": (SACConfig, FLAT, BOX, {"fcnet_hiddens": [32, 32], "head_fcnet_hiddens": [32]}),
}


def build_theirs(name: str) -> TorchRLModule:
    kind, obs, act, model = THEIRS[name]
    config = kind().environment(observation_space=obs, action_space=act)
    if name == "dqn atoms":
        config.training(num_atoms=5, v_min=0.0, v_max=50.0)
    spec = config.rl_module(model_config=model).rl_module_spec
    spec.observation_space, spec.action_space = obs, act
    spec.model_config = config.model_config
    torch.manual_seed(0)
    return spec.build()


def everything(module: TorchRLModule, batch: dict[str, Any]) -> tuple[Any, ...]:
    """All that is reached in training and in acting."""
    values = module.compute_values(batch) if hasattr(module, "compute_values") else None
    return module.forward_inference(batch), values


def prune(module: nn.Module, sparsity: float = 0.5) -> None:
    make_maskable(module)
    config = PruningConfig(granularity="neuron", sparsity=sparsity, criterion="random")
    Pruner(module, config).prune_to(sparsity)


def batch_for(space: gym.Space, **more: Any) -> dict[str, Any]:
    return {Columns.OBS: torch.rand(4, *space.shape), **more}


def assert_smaller_and_the_same(
    module: nn.Module, small: Compacted, batch: Any, forward: Callable[..., Any]
) -> None:
    assert small.certificate["errors"]["f64"] <= 1e-12
    parameters = small.certificate["parameters"]
    assert parameters["after"] < parameters["before"]
    with torch.no_grad():
        ours = tensors_in(small.plan.adapt_outputs(forward(module, batch)))
        theirs = tensors_in(forward(small.module, small.plan.adapt((batch,))[0]))
    assert ours
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", THEIRS)
def test_rllibs_default_modules_shrink_and_act_the_same(name):
    module = build_theirs(name)
    prune(module)
    batch = batch_for(THEIRS[name][1])
    small = compact(module, batch, forward=everything)
    assert_smaller_and_the_same(module, small, batch_for(THEIRS[name][1]), everything)
    # Half of all hidden units; before a padding one constant carries the others.
    for removed in small.removed:
        assert removed.units >= removed.of / 2 - ("cnn" in removed.layer), removed


def test_twin_q_networks_of_sac_shrink_with_what_they_are_trained_on():
    module = build_theirs("sac")
    prune(module)
    q_nets = lambda m, b: (m.compute_q_values(b), m.forward_inference(b))  # noqa: E731
    batch = batch_for(FLAT, **{Columns.ACTIONS: torch.rand(4, 2)})
    small = compact(module, batch, forward=q_nets)
    assert_smaller_and_the_same(module, small, batch, q_nets)
    assert {"qf.net.mlp.0", "pi.net.mlp.0"} <= {removed.layer for removed in small.removed}


def recurrent_batch(module: TorchRLModule) -> dict[str, Any]:
    states = tree.map_structure(
        lambda state: torch.randn(3, *np.shape(state)), module.get_initial_state()
    )
    return {Columns.OBS: torch.rand(3, 5, 5), Columns.STATE_IN: states}


def silence(module: nn.Module, units: int) -> None:
    """Cut all that the first hidden units of each LSTM say."""
    cells = [layer for layer in module.modules() if isinstance(layer, nn.LSTM)]
    with torch.no_grad():
        for cell in cells:
            cell.weight_hh_l0[:, :units] = 0
        for layer in module.modules():
            if isinstance(layer, nn.Linear) and layer.in_features == cells[0].hidden_size:
                layer.weight[:, :units] = 0


def test_rllibs_lstm_keeps_its_state_unless_it_may_shrink():
    config = PPOConfig().environment(observation_space=FLAT, action_space=DISCRETE)
    model = {"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 16, "max_seq_len": 8}
    spec = config.rl_module(model_config=model).rl_module_spec
    spec.observation_space, spec.action_space = FLAT, DISCRETE
    spec.model_config = config.model_config
    module = spec.build()
    silence(module, 12)
    batch = recurrent_batch(module)
    whole = compact(module, batch)
    assert {left.reason.split()[0] for left in whole.left} == {"the"}
    assert not any("lstm" in removed.layer for removed in whole.removed)
    infer = lambda m, b: m.forward_inference(b)  # noqa: E731
    small = compact(module, batch, forward=infer, shrink_states=True)
    # RLlib runs the critic's LSTM when it acts, too; of that one unit's
    # state goes out, and the four that it listens to.
    assert {r.layer: r.units for r in small.removed if r.kind == "hidden unit"} == {
        "encoder.actor_encoder.lstm": 12,
        "encoder.critic_encoder.lstm": 11,
    }
    assert_smaller_and_the_same(module, small, batch, infer)


@pytest.mark.parametrize("shape", ["apart", "shared"])
@pytest.mark.parametrize(
    "kind", [PrunableMLP, PrunableNatureCNN, PrunableResidualCNN, PrunableLSTM]
)
def test_our_own_modules_shrink_and_act_the_same(kind, shape):
    module = build_ours(kind, **(SMALL if shape == "apart" else SHARED)[kind])
    prune(module)
    batch = a_batch(module)
    small = compact(module, batch, forward=everything, shrink_states=True)
    if kind is PrunableLSTM:
        gone = {r.layer: (r.units, r.of) for r in small.removed if r.kind == "hidden unit"}
        own = {"policy.lstm": (6, 12), "value.lstm": (3, 6)}
        assert gone == (own if shape == "apart" else {"shared.lstm": (6, 12)})
    other = copy.deepcopy(batch)
    other[Columns.OBS] = other[Columns.OBS].flip(0)
    assert_smaller_and_the_same(module, small, other, everything)


def test_images_of_bytes_are_followed_too():
    module = build_ours(PrunableNatureCNN)
    prune(module)
    batch = {Columns.OBS: torch.as_tensor(np.stack([IMAGE.sample() for _ in range(3)]))}
    small = compact(module, batch, forward=everything)
    # Without padding all dead filters go: half of each layer, rounded.
    assert {r.layer: (r.units, r.of) for r in small.removed if "policy.conv" in r.layer} == {
        "policy.conv0": (2, 4),
        "policy.conv1": (2, 5),
    }
