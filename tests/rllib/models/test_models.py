"""The maskable RLModules: shapes, names, configs, and a real PPO over each."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

from rayprune.errors import ConfigError
from rayprune.rllib.models import (
    ActorCritic,
    LSTMConfig,
    MLPConfig,
    NatureCNNConfig,
    PrunableLSTM,
    PrunableMLP,
    PrunableNatureCNN,
    PrunableResidualCNN,
    PrunableSimBa,
    PrunableTransformer,
    ResidualCNNConfig,
    SimBaConfig,
    TransformerConfig,
)
from rayprune.rllib.models.configs import ACTIVATIONS
from rayprune.rllib.models.nets import Block, chain, hidden_layers
from rayprune.rllib.modules.heads import heads_of

FLAT = gym.spaces.Box(-1, 1, (5,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (42, 42, 3), np.uint8)
SMALL = {
    PrunableMLP: {"policy_hiddens": [16, 8], "value_hiddens": [32]},
    PrunableNatureCNN: {
        "policy_channels": [4, 5],
        "value_channels": [6, 7],
        "kernels": [[8, 4], [4, 2]],
        "policy_hiddens": [16],
        "value_hiddens": [8],
    },
    PrunableResidualCNN: {
        "policy_channels": [4, 6],
        "value_channels": [3],
        "policy_hiddens": [16],
        "value_hiddens": [8],
    },
    PrunableLSTM: {
        "policy_hiddens": [16],
        "policy_cell": 12,
        "value_hiddens": [8],
        "value_cell": 6,
        "max_seq_len": 4,
    },
    PrunableSimBa: {
        "policy_width": 8,
        "policy_blocks": [16],
        "value_width": 6,
        "value_blocks": [12, 10],
    },
    PrunableTransformer: {
        "memory": 3,
        "policy_width": 8,
        "policy_heads": 2,
        "policy_blocks": [16, 12],
        "value_width": 6,
        "value_heads": 3,
        "value_blocks": [10],
        "max_seq_len": 4,
    },
}
SHARED = {
    PrunableMLP: {"shared_hiddens": [16], "policy_hiddens": [], "value_hiddens": [8]},
    PrunableNatureCNN: {"shared_channels": [4, 5], "kernels": [[8, 4], [4, 2]]}
    | {"policy_channels": [], "value_channels": [], "policy_hiddens": [8], "value_hiddens": [4]},
    PrunableResidualCNN: {"shared_channels": [4], "policy_channels": [5], "value_channels": []}
    | {"policy_hiddens": [8], "value_hiddens": [4]},
    PrunableLSTM: {"shared_hiddens": [8], "shared_cell": 12, "policy_cell": 0, "value_cell": 0}
    | {"policy_hiddens": [], "value_hiddens": [4], "max_seq_len": 4},
    # It shares nothing: here a block is left out.
    PrunableSimBa: {"policy_width": 8, "policy_blocks": [0, 16]}
    | {"value_width": 6, "value_blocks": []},
    PrunableTransformer: {"memory": 2, "policy_width": 8, "policy_heads": 1, "policy_blocks": [0]}
    | {"value_width": 8, "value_heads": 8, "value_blocks": [0, 4], "max_seq_len": 4},
}
MODULES = list(SMALL)
ACTIONS = {
    "discrete": (gym.spaces.Discrete(3), 3),
    "multi_discrete": (gym.spaces.MultiDiscrete([2, 3]), 5),
    "box": (gym.spaces.Box(-1, 1, (2,), np.float32), 4),
}


def observation_space(module_class: type[ActorCritic]) -> gym.spaces.Box:
    return IMAGE if module_class in (PrunableNatureCNN, PrunableResidualCNN) else FLAT


def build(
    module_class: type[ActorCritic],
    action_space: gym.Space = ACTIONS["discrete"][0],
    *,
    inference_only: bool = False,
    **model_config: object,
) -> ActorCritic:
    return RLModuleSpec(
        module_class=module_class,
        observation_space=observation_space(module_class),
        action_space=action_space,
        inference_only=inference_only,
        model_config=model_config or SMALL[module_class],
    ).build()


def a_batch(module: ActorCritic, size: int = 7, time: int = 4) -> dict[str, object]:
    rng = np.random.default_rng(0)
    lead = (size, time) if module.is_stateful() else (size,)
    space = module.observation_space
    obs = torch.as_tensor(rng.uniform(0, 1, (*lead, *space.shape)).astype(space.dtype))
    state = tree.map_structure(
        lambda s: torch.as_tensor(np.stack([s] * size)), module.get_initial_state()
    )
    return {Columns.OBS: obs, Columns.STATE_IN: state}


def layer_names(module: nn.Module) -> list[str]:
    layers = (nn.Linear, nn.Conv2d, nn.LSTM)
    return [name for name, layer in module.named_modules() if isinstance(layer, layers)]


# -- shapes and names -------------------------------------------------------------------------


@pytest.mark.parametrize("space", ACTIONS)
@pytest.mark.parametrize("module_class", MODULES)
@pytest.mark.parametrize("configs", [SMALL, SHARED], ids=["apart", "shared"])
def test_a_forward_pass_gives_inputs_that_the_distribution_takes(configs, module_class, space):
    action_space, width = ACTIONS[space]
    module = build(module_class, action_space, **configs[module_class])
    batch = a_batch(module)
    lead = (7, 4) if module.is_stateful() else (7,)
    for forward, distribution in (
        (module.forward_inference, module.get_inference_action_dist_cls()),
        (module.forward_exploration, module.get_exploration_action_dist_cls()),
        (module.forward_train, module.get_train_action_dist_cls()),
    ):
        inputs = forward(batch)[Columns.ACTION_DIST_INPUTS]
        assert inputs.shape == (*lead, width)
        policy = distribution.from_logits(inputs)
        actions = policy.sample()
        assert policy.logp(actions).shape == policy.entropy().shape == lead
    assert module.compute_values(batch).shape == lead


@pytest.mark.parametrize("module_class", MODULES)
@pytest.mark.parametrize("configs", [SMALL, SHARED], ids=["apart", "shared"])
def test_values_are_the_same_with_the_embeddings_of_the_training_pass(configs, module_class):
    module = build(module_class, **configs[module_class])
    batch = a_batch(module)
    embeddings = module.forward_train(batch)[Columns.EMBEDDINGS]
    torch.testing.assert_close(
        module.compute_values(batch, embeddings), module.compute_values(batch), rtol=0, atol=0
    )


def test_every_layer_is_named_after_its_net():
    assert layer_names(build(PrunableMLP)) == [
        "policy.hidden0",
        "policy.hidden1",
        "policy.out",
        "value.hidden0",
        "value.out",
    ]
    assert layer_names(build(PrunableLSTM)) == [
        "policy.hidden0",
        "policy.lstm",
        "policy.out",
        "value.hidden0",
        "value.lstm",
        "value.out",
    ]
    cnn = build(PrunableNatureCNN, **SHARED[PrunableNatureCNN])
    assert layer_names(cnn)[:3] == ["shared.conv0", "shared.conv1", "policy.hidden0"]


@pytest.mark.parametrize("module_class", MODULES)
@pytest.mark.parametrize("configs", [SMALL, SHARED], ids=["apart", "shared"])
def test_every_layer_learns(configs, module_class):
    module = build(module_class, ACTIONS["box"][0], **configs[module_class], free_log_std=True)
    batch = a_batch(module, time=2)
    out = module.forward_train(batch)
    loss = out[Columns.ACTION_DIST_INPUTS].square().sum()
    (loss + module.compute_values(batch, out[Columns.EMBEDDINGS]).square().sum()).backward()
    without = [name for name, p in module.named_parameters() if p.grad is None]
    assert without == []


def test_the_nature_cnn_has_the_published_widths():
    module = RLModuleSpec(
        module_class=PrunableNatureCNN,
        observation_space=gym.spaces.Box(0, 255, (84, 84, 4), np.uint8),
        action_space=gym.spaces.Discrete(6),
    ).build()
    shapes = {n: tuple(p.shape) for n, p in module.named_parameters() if "policy" in n}
    assert shapes["policy.conv0.weight"] == (32, 4, 8, 8)
    assert shapes["policy.conv1.weight"] == (64, 32, 4, 4)
    assert shapes["policy.conv2.weight"] == (64, 64, 3, 3)
    assert shapes["policy.hidden0.weight"] == (512, 3136)
    assert shapes["policy.out.weight"] == (6, 512)


def test_bytes_are_scaled_to_between_zero_and_one_and_floats_are_not():
    module = build(PrunableNatureCNN)
    white = torch.full((1, 42, 42, 3), 255, dtype=torch.uint8)
    assert module.observations({Columns.OBS: white}).unique().tolist() == [1.0]
    # RLlib's connectors hand bytes over as floats too; the space says what they are.
    assert module.observations({Columns.OBS: white.float()}).unique().tolist() == [1.0]
    assert module.observations({Columns.OBS: white}).shape == (1, 3, 42, 42)


def test_a_free_log_std_depends_on_no_observation():
    module = build(PrunableMLP, ACTIONS["box"][0], free_log_std=True, policy_hiddens=[4])
    inputs = module.forward_inference(a_batch(module))[Columns.ACTION_DIST_INPUTS]
    assert (inputs[:, 2:] == 0).all()
    assert (inputs[:, :2].std(dim=0) > 0).all()
    assert module.policy.gaussian.log_std.shape == (2,)
    # It says nothing of actions that have no spread.
    build(PrunableMLP, ACTIONS["discrete"][0], free_log_std=True)


# -- what pruning relies on ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_map_zero_to_zero(name):
    activation = dict(hidden_layers(1, [1], name))["act0"]
    assert activation(torch.zeros(1)).item() == 0.0


def test_convolutions_without_padding_let_a_dead_filter_be_folded_exactly():
    module = build(PrunableNatureCNN)
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert all(conv.padding == (0, 0) for conv in convolutions)


def test_a_residual_block_of_zeros_is_the_identity():
    block = Block(3, 5, "relu")
    image = torch.randn(2, 3, 6, 6)
    for weight in (block.conv0.weight, block.conv1.weight):
        dead = copy.deepcopy(block)
        dead.get_parameter("conv0.weight" if weight is block.conv0.weight else "conv1.weight")
        name = "conv0" if weight is block.conv0.weight else "conv1"
        nn.init.zeros_(getattr(dead, name).weight)
        torch.testing.assert_close(dead(image), image, rtol=0, atol=0)


def test_a_dead_filter_inside_a_block_goes_exactly():
    block, smaller = Block(3, 5, "elu"), Block(3, 4, "elu")
    with torch.no_grad():
        block.conv0.weight[2] = 0
        keep = [0, 1, 3, 4]
        smaller.conv0.weight.copy_(block.conv0.weight[keep])
        smaller.conv1.weight.copy_(block.conv1.weight[:, keep])
    image = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(block(image), smaller(image))


def test_a_block_that_is_left_out_leaves_the_names_of_the_others():
    whole = build(PrunableResidualCNN)
    config = SMALL[PrunableResidualCNN] | {"policy_blocks": [[0, 4], [6, 3]]}
    shrunk = build(PrunableResidualCNN, **config)
    gone = {n for n in layer_names(whole) if n.startswith("policy.stage0.block0.")}
    assert set(layer_names(shrunk)) == set(layer_names(whole)) - gone
    assert shrunk.policy.stage1.block1.conv0.out_channels == 3


@pytest.mark.parametrize("module_class", MODULES)
def test_a_module_can_be_copied_and_pickled(module_class):
    module = build(module_class, ACTIONS["multi_discrete"][0])
    batch = a_batch(module)
    module.get_inference_action_dist_cls()
    expected = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(
            twin.forward_inference(batch)[Columns.ACTION_DIST_INPUTS], expected, rtol=0, atol=0
        )


def test_an_mlp_without_hidden_layers_is_the_linear_policy():
    module = build(PrunableMLP, policy_hiddens=[], value_hiddens=[])
    batch = a_batch(module)
    out = module.policy.out
    inputs = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(inputs, batch[Columns.OBS] @ out.weight.T + out.bias)
    assert sum(p.numel() for p in module.policy.parameters()) == 3 * (5 + 1)
    assert heads_of(module, targets=[]) == {"policy.out", "value.out"}


# -- inference only, states, targets --------------------------------------------------------------


@pytest.mark.parametrize("module_class", [x for x in MODULES if x is not PrunableLSTM])
def test_an_env_runner_has_no_value_net(module_class):
    module = build(module_class, inference_only=True)
    assert not hasattr(module, "value")
    state = build(module_class).get_state(inference_only=True)
    assert not [name for name in state if name.startswith("value")]
    module.set_state(state)
    assert set(module.state_dict()) == set(state)


def test_an_env_runner_keeps_the_value_lstm_whose_state_training_needs():
    learner, runner = build(PrunableLSTM), build(PrunableLSTM, inference_only=True)
    assert "value.lstm" in layer_names(runner)
    assert "value.out" not in layer_names(runner)
    runner.set_state(learner.get_state(inference_only=True))
    # Synchronised, so that the states it sends are those of the learner's net.
    torch.testing.assert_close(
        runner.value.lstm.weight_hh_l0, learner.value.lstm.weight_hh_l0, rtol=0, atol=0
    )
    memoryless = build(PrunableLSTM, inference_only=True, **SHARED[PrunableLSTM])
    assert not hasattr(memoryless, "value")


@pytest.mark.parametrize("kind", [PrunableLSTM, PrunableTransformer])
@pytest.mark.parametrize("configs", [SMALL, SHARED], ids=["apart", "shared"])
def test_a_memory_gives_the_same_outputs_step_by_step_and_at_once(configs, kind):
    module = build(kind, **configs[kind])
    batch = a_batch(module, size=3, time=5)
    at_once = module.forward_exploration(batch)
    step, outputs = dict(batch), []
    for time in range(5):
        step[Columns.OBS] = batch[Columns.OBS][:, time : time + 1]
        out = module.forward_exploration(step)
        outputs.append(out[Columns.ACTION_DIST_INPUTS])
        step[Columns.STATE_IN] = out[Columns.STATE_OUT]
    torch.testing.assert_close(torch.cat(outputs, 1), at_once[Columns.ACTION_DIST_INPUTS])
    tree.assert_same_structure(module.get_initial_state(), at_once[Columns.STATE_OUT])
    tree.map_structure(
        torch.testing.assert_close, step[Columns.STATE_IN], at_once[Columns.STATE_OUT]
    )


@pytest.mark.parametrize("module_class", MODULES)
@pytest.mark.parametrize("configs", [SMALL, SHARED], ids=["apart", "shared"])
def test_targets_start_as_copies_of_the_policy_and_are_not_trained(configs, module_class):
    module = build(module_class, **configs[module_class])
    assert module.get_target_network_pairs() == []
    module.make_target_networks()
    batch = a_batch(module)
    torch.testing.assert_close(
        next(iter(module.forward_target(batch).values())),
        module.forward_train(batch)[Columns.ACTION_DIST_INPUTS],
    )
    for _, target in module.get_target_network_pairs():
        assert not any(p.requires_grad for p in target.parameters())
    assert not [n for n in module.get_state(inference_only=True) if n.startswith("old")]


# -- configs --------------------------------------------------------------------------------------


def test_all_faults_of_a_config_come_together():
    with pytest.raises(ConfigError) as caught:
        MLPConfig.from_dict({"policy_hidens": [8], "activation": "rellu", "value_hiddens": [8, 0]})
    message = str(caught.value)
    assert len(caught.value.faults) == 3
    assert "`model_config.policy_hidens`" in message
    assert "Did you mean 'policy_hiddens'?" in message
    assert "but is 'rellu'. Did you mean 'relu'?" in message
    assert "`model_config.value_hiddens` must be a list of positive whole numbers" in message
    assert "but is [8, 0]." in message


@pytest.mark.parametrize(
    ("config_class", "given", "fault"),
    [
        (MLPConfig, {"vf_share_layers": True}, "`model_config.vf_share_layers` is not a setting"),
        (MLPConfig, {"policy_hiddens": 64}, "must be a list of positive whole numbers"),
        (MLPConfig, {"policy_hiddens": [True]}, "must be a list of positive whole numbers"),
        (MLPConfig, {"free_log_std": 1}, "must be true or false"),
        (NatureCNNConfig, {"policy_channels": [8]}, "`model_config.kernels` must have one entry"),
        (NatureCNNConfig, {"kernels": [[8, 4, 2]]}, "must be a list of [kernel size, stride]"),
        (ResidualCNNConfig, {"value_blocks": [[8, 8]]}, "`model_config.value_blocks` must have"),
        (ResidualCNNConfig, {"value_blocks": [8, 8]}, "for each stage, a list of whole numbers"),
        (LSTMConfig, {"policy_cell": 0, "value_cell": 0}, "no net has a memory"),
        (LSTMConfig, {"max_seq_len": 0}, "must be a positive whole number"),
        (TransformerConfig, {"memory": 1}, "must be a whole number of at least 2"),
        (TransformerConfig, {"value_heads": 3}, "must be a multiple of `value_heads` (3), but is"),
        (TransformerConfig, {"policy_blocks": []}, "without one nothing looks back"),
        (SimBaConfig, {"policy_width": 0}, "must be a positive whole number"),
        (SimBaConfig, {"value_blocks": 64}, "must be a list of whole numbers (0 leaves a block"),
    ],
)
def test_a_wrong_setting_is_refused(config_class, given, fault):
    with pytest.raises(ConfigError, match=r"^`model_config\.") as caught:
        config_class.from_dict(given)
    assert fault in str(caught.value)


@pytest.mark.parametrize("module_class", MODULES)
def test_a_config_survives_the_way_to_a_plain_dict_and_back(module_class):
    config = module_class.config_class.from_dict(SMALL[module_class])
    assert module_class.config_class.from_dict(config.to_dict()) == config
    # As an instance too, which RLlib turns into a dict.
    module = build(module_class)
    assert build(module_class, **module.model_config).model_config == config.to_dict()
    with pytest.raises(AttributeError):
        config.activation = "elu"


def test_shared_convolutions_take_the_place_of_the_first_own_ones():
    assert NatureCNNConfig(shared_channels=(16, 32)).channels("policy") == (64,)
    assert ResidualCNNConfig(shared_channels=(16, 32, 32)).blocks("value") == ()


def test_spaces_that_a_module_does_not_take_are_refused():
    spaces = {"observation_space": IMAGE, "action_space": gym.spaces.Discrete(2)}
    with pytest.raises(ConfigError, match="takes flat Box observations"):
        RLModuleSpec(module_class=PrunableMLP, **spaces).build()
    with pytest.raises(ConfigError, match="takes images"):
        RLModuleSpec(module_class=PrunableNatureCNN, **spaces | {"observation_space": FLAT}).build()
    with pytest.raises(ConfigError, match="action spaces, but the environment's is Dict"):
        build(PrunableMLP, gym.spaces.Dict({"a": gym.spaces.Discrete(2)}))
    tiny = spaces | {"observation_space": gym.spaces.Box(0, 1, (9, 9, 1), np.float32)}
    with pytest.raises(ConfigError, match="don't fit into images of 9x9 pixels"):
        RLModuleSpec(module_class=PrunableNatureCNN, **tiny).build()


# -- real training --------------------------------------------------------------------------------


def configure(
    config: AlgorithmConfig, module_class: type[ActorCritic], action_space: gym.Space, **given
) -> AlgorithmConfig:
    return (
        config.environment(
            "rayprune-random",
            env_config={
                "observation_space": observation_space(module_class),
                "action_space": action_space,
            },
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=module_class, model_config=given or SMALL[module_class]
            )
        )
        .debugging(seed=0)
    )


def ppo(module_class: type[ActorCritic], space: str, **given) -> PPOConfig:
    config = configure(PPOConfig(), module_class, ACTIONS[space][0], **given)
    return config.training(train_batch_size_per_learner=40, minibatch_size=20, num_epochs=1)


def weights(algorithm: PPO) -> dict[str, np.ndarray]:
    return algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].get_state()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("module_class", "space", "configs"),
    [
        (PrunableMLP, "discrete", SMALL),
        pytest.param(PrunableMLP, "multi_discrete", SHARED, marks=pytest.mark.slow),
        (PrunableMLP, "box", {PrunableMLP: {"free_log_std": True}}),
        (PrunableNatureCNN, "discrete", SMALL),
        pytest.param(PrunableResidualCNN, "discrete", SMALL, marks=pytest.mark.slow),
        (PrunableResidualCNN, "box", SHARED),
        (PrunableLSTM, "discrete", SMALL),
        pytest.param(PrunableLSTM, "multi_discrete", SHARED, marks=pytest.mark.slow),
        pytest.param(PrunableLSTM, "box", SMALL, marks=pytest.mark.slow),
    ],
)
def test_ppo_trains_and_comes_back_from_its_checkpoint(
    ray_session: None, tmp_path: Path, module_class, space, configs
):
    algorithm = ppo(module_class, space, **configs[module_class]).build_algo()
    before = weights(algorithm)
    result = [algorithm.train() for _ in range(2)][-1]
    assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["total_loss"])
    after = weights(algorithm)
    unchanged = [name for name in before if (before[name] == after[name]).all()]
    assert unchanged == []

    # The EnvRunner's policy is the Learner's.
    runner = algorithm.env_runner.module
    for name, weight in runner.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), after[name])
    assert hasattr(runner, "value") == ("value" in getattr(runner.settings, "cells", {}))

    checkpoint = algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.stop()
    restored = PPO.from_checkpoint(checkpoint)
    for name, weight in weights(restored).items():
        np.testing.assert_array_equal(weight, after[name])
    restored.train()
    restored.stop()


@pytest.mark.slow  # remote workers; test_matrix.py has both with RLlib's modules
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("config_class", "module_class"), [(APPOConfig, PrunableLSTM), (IMPALAConfig, PrunableMLP)]
)
def test_appo_and_impala_train(ray_session: None, config_class, module_class):
    config = configure(config_class(), module_class, ACTIONS["discrete"][0])
    config.env_runners(num_env_runners=1, rollout_fragment_length=10)
    config.training(train_batch_size_per_learner=40)
    config.reporting(min_time_s_per_iteration=0, min_train_timesteps_per_iteration=40)
    algorithm = config.build_algo()
    try:
        for _ in range(10):
            result = algorithm.train()
            if "total_loss" in result.get("learners", {}).get(DEFAULT_MODULE_ID, {}):
                break
        assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["total_loss"])
    finally:
        algorithm.stop()


def test_networks_without_layers_are_the_identity():
    x = torch.randn(3)
    assert chain([])(x) is x
