"""The maskable RLModules: shapes, names, nets, and what they compute."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import nn

from rayprune.rllib.models import (
    PrunableLSTM,
    PrunableMLP,
    PrunableNatureCNN,
    PrunableResidualCNN,
    PrunableTransformer,
)
from rayprune.rllib.models.configs import ACTIVATIONS
from rayprune.rllib.models.nets import Block, chain, hidden_layers
from rayprune.rllib.modules.heads import heads_of
from tests.rllib.models.small_modules import (
    ACTIONS,
    MODULES,
    SHARED,
    SMALL,
    a_batch,
    build,
    layer_names,
)

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


def test_networks_without_layers_are_the_identity():
    x = torch.randn(3)
    assert chain([])(x) is x
