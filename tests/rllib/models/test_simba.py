"""SimBa: its arithmetic by hand, its Q-networks in RLlib's modules, its normalised observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.errors import ConfigError
from rayprune.rllib import models, prune
from rayprune.rllib.connectors.pipelines import EnvToModule
from rayprune.rllib.experiment.algorithm_config import base_config, build_module
from rayprune.rllib.models.nets import FeedForward
from rayprune.rllib.modules.groups import group_of
from rayprune.rllib.modules.heads import heads_of
from tests.rllib import configs, experiments

NETS = {"policy_width": 8, "policy_blocks": [16], "value_width": 6, "value_blocks": [12, 10]}
OF_DQN = {"width": 8, "blocks": [16]}
Q_NETWORKS: dict[str, tuple[Any, type, dict[str, Any]]] = {
    "SAC": (configs.sac, models.PrunableSimBaSAC, NETS),
    "SAC_discrete": (
        lambda: configs.sac().environment("CartPole-v1"),
        models.PrunableSimBaSAC,
        NETS,
    ),
    "TQC": (configs.tqc, models.PrunableSimBaTQC, NETS),
    "IQL": (
        lambda: IQLConfig().environment("Pendulum-v1"),
        models.PrunableSimBaIQL,
        {**NETS, "normalise_observations": False},
    ),
    "DQN": (configs.dqn, models.PrunableSimBaDQN, OF_DQN),
    "DQN_C51": (
        lambda: configs.dqn(num_atoms=5, v_min=0.0, v_max=9.0, dueling=False),
        models.PrunableSimBaDQN,
        OF_DQN,
    ),
}


def with_module(
    config: AlgorithmConfig, module_class: type, settings: dict[str, Any]
) -> AlgorithmConfig:
    spec = RLModuleSpec(module_class=module_class, model_config=settings)
    return config.rl_module(rl_module_spec=spec, model_config={})


def q_networks(name: str, **changes: Any) -> AlgorithmConfig:
    make, module_class, settings = Q_NETWORKS[name]
    return with_module(make(), module_class, {**settings, **changes})


def test_a_block_adds_two_layers_of_its_normed_input() -> None:
    block, x = FeedForward(3, 5, "relu"), torch.tensor([[1.0, 2.0, 6.0]])
    with torch.no_grad():
        block.norm.bias.copy_(torch.tensor([0.5, 0.0, -0.5]))
        # By hand: mean 3, variance 14/3.
        normed = (x - 3.0) / (14 / 3 + 1e-5) ** 0.5 + block.norm.bias
        expected = x + torch.relu(normed @ block.fc0.weight.T) @ block.fc1.weight.T
        torch.testing.assert_close(block(x), expected)
        block.fc1.weight.zero_()
        assert torch.equal(block(x), x)


@pytest.mark.parametrize("name", Q_NETWORKS)
def test_q_networks_do_all_that_rllibs_own_do(name: str) -> None:
    module = build_module(q_networks(name))
    twin = type(module)(
        observation_space=module.observation_space,
        action_space=module.action_space,
        inference_only=True,
        model_config=module.model_config,
    )
    assert twin.model_config == module.model_config
    twin.set_state(module.get_state(inference_only=True))
    assert set(twin.state_dict()) == set(module.get_state(inference_only=True))
    module.make_target_networks()
    rng = np.random.default_rng(0)
    obs = torch.as_tensor(rng.normal(size=(4, *module.observation_space.shape)), dtype=torch.float)
    actions = torch.as_tensor(np.stack([module.action_space.sample() for _ in range(4)]))
    batch = {Columns.OBS: obs, Columns.NEXT_OBS: obs, Columns.ACTIONS: actions}
    assert module.forward_train(batch)
    if name != "TQC":  # whose targets are quantiles
        torch.testing.assert_close(module.compute_q_values(batch), module.forward_target(batch))
    acts = (m.forward_inference({Columns.OBS: obs}) for m in (module, twin))
    torch.testing.assert_close(*acts)
    layers = [n.rpartition(".")[0] for n, p in module.named_parameters() if p.dim() > 1]
    groups = {layer: group_of(layer) for layer in layers}
    if name == "IQL":
        assert module.vf_encoder.net.embed.weight.shape == (6, 3)
        assert module.compute_values(batch).shape == (4,)
    if name.startswith("SAC"):
        assert set(groups.values()) == {"policy", "value"}
        assert {x for x in layers if groups[x] == "policy"} == {
            "pi_encoder.net.embed",
            "pi_encoder.net.block0.fc0",
            "pi_encoder.net.block0.fc1",
            "pi",
        }
        assert heads_of(module, [p[1] for p in module.get_target_network_pairs()]) == {
            *("pi", "qf", "qf_twin")
        }


def test_a_critic_reads_continuous_actions() -> None:
    module = build_module(q_networks("SAC"))
    batch = {Columns.OBS: torch.zeros(2, 3), Columns.ACTIONS: torch.tensor([[0.0], [1.0]])}
    first, second = module.compute_q_values(batch)
    assert first != second
    assert module.qf_encoder.net.embed.in_features == 4


def test_observations_are_normalised_unless_it_is_said_otherwise() -> None:
    wanted = prune(q_networks("SAC"), configs.pruning())._env_to_module_connector
    assert isinstance(wanted, EnvToModule)
    assert wanted.observations
    assert not wanted.rewards
    raw = prune(q_networks("SAC", normalise_observations=False), configs.pruning())
    assert raw._env_to_module_connector is None
    # In a YAML, too.
    block = {
        "module_class": "rayprune.rllib.models:PrunableSimBa",
        "model_config": NETS,
    }
    held = experiments.experiment(experiments.PPO, rllib={"rl_module": block})
    assert base_config(held)._env_to_module_connector.observations
    offline = with_module(BCConfig().environment("CartPole-v1"), models.PrunableSimBa, NETS)
    with pytest.raises(ConfigError, match="normalise_observations` must be false"):
        prune(offline.offline_data(input_=["there"]), configs.pruning())


@pytest.mark.parametrize(
    ("algorithm", "env", "name", "instead"),
    [
        ("SAC", "Pendulum-v1", "PrunableSimBa", "Take one of ['PrunableSimBaSAC']"),
        ("DQN", "CartPole-v1", "PrunableMLP", "Take one of ['PrunableSimBaDQN']"),
        ("PPO", "CartPole-v1", "PrunableSimBaSAC", "Take one of ['PrunableMLP',"),
        ("APPO", "CartPole-v1", "PrunableSimBaDQN", "Take one of ['PrunableMLP',"),
    ],
)
def test_a_module_for_other_algorithms_is_refused(algorithm, env, name, instead) -> None:
    raw = {
        **experiments.PPO,
        "algorithm": algorithm,
        "env": env,
        "rllib": {"rl_module": {"module_class": f"rayprune.rllib.models:{name}"}},
    }
    with pytest.raises(ConfigError) as caught:
        base_config(experiments.experiment(raw))
    assert f"`rllib.rl_module.module_class` {name} is no network for {algorithm}" in str(
        caught.value
    )
    assert instead in str(caught.value)
