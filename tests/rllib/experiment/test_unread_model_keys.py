"""A key of ``model_config`` is refused where it changes nothing in RLlib's own network."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rayprune.rllib.algorithms import family_named
from rayprune.rllib.experiment.experiment_checks import experiment_parts_faults
from rayprune.rllib.experiment.rllib_checks import rllib_faults
from rayprune.rllib.experiment.unread_model_keys import unread_for_spaces, unread_model_faults
from tests.rllib import experiments

VECTORS = gym.spaces.Box(-1, 1, (3,), np.float32)
IMAGES = gym.spaces.Box(-1, 1, (6, 6, 1), np.float32)
CHOICES = gym.spaces.Discrete(2)
TORQUES = gym.spaces.Box(-1, 1, (2,), np.float32)

BARE: dict[str, Any] = {"fcnet_hiddens": [4, 4]}
CHANGES: dict[str, Any] = {
    "fcnet_hiddens": [5, 3],
    "fcnet_activation": "relu",
    "fcnet_use_layernorm": True,
    "conv_filters": [[3, 3, 1]],
    "conv_activation": "tanh",
    "head_fcnet_hiddens": [7],
    "head_fcnet_activation": "tanh",
    "head_fcnet_use_layernorm": True,
    "free_log_std": True,
    "log_std_clip_param": 3.0,
    "vf_share_layers": True,
    "use_lstm": True,
    "max_seq_len": 7,
    "lstm_cell_size": 6,
    "lstm_use_prev_action": True,
    "lstm_use_prev_reward": True,
    "fusionnet_hiddens": [6],
    "fusionnet_activation": "relu",
}
FILLED: dict[str, Any] = {}
for _part in ("fcnet", "conv", "head_fcnet", "lstm", "fusionnet"):
    for _of in ("kernel", "bias"):
        _name = f"{_part}_{_of}_initializer"
        CHANGES[_name] = "trunc_normal_"
        CHANGES[f"{_name}_kwargs"] = {"std": 4.0}
        FILLED |= {_name: "normal_", f"{_name}_kwargs": {"std": 5.0}}


def build(algorithm: str, spaces: tuple[Any, Any], model: Mapping[str, Any]) -> torch.nn.Module:
    config = family_named(algorithm).config()
    spec = config.get_default_rl_module_spec()
    spec.observation_space, spec.action_space = spaces
    spec.inference_only = False
    spec.model_config = {**config._model_config_auto_includes, **model}
    torch.manual_seed(0)
    return spec.build()


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return its weights and buffers, without the bound of a deviation that nothing clips."""
    idle = {
        f"{name}.log_std_clip_param_const"
        for name, part in module.named_modules()
        if not getattr(part, "clip_log_std", True)
    }
    return {name: value for name, value in module.state_dict().items() if name not in idle}


def activations(module: torch.nn.Module) -> list[Any]:
    """Return those that aren't layers, as SAC's fusion has them."""
    return [vars(part).get("hidden_activation") for part in module.modules()]


def is_same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Compare all that tells two networks apart: layers, weights and clipping."""
    states = state(one), state(other)
    return (
        str(one) == str(other)
        and activations(one) == activations(other)
        and states[0].keys() == states[1].keys()
        and all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    )


def is_refused(algorithm: str, spaces: tuple[Any, Any], model: Mapping[str, Any], key: str) -> bool:
    faults = [
        *unread_model_faults(algorithm, model),
        *unread_for_spaces(algorithm, model, *spaces),
    ]
    return any(f"model_config.{key}`" in fault for fault in faults)


@pytest.mark.parametrize("filled", [False, True], ids=["bare", "filled"])
@pytest.mark.parametrize(
    ("algorithm", "spaces"),
    [
        ("PPO", (VECTORS, TORQUES)),
        ("IMPALA", (IMAGES, CHOICES)),
        ("APPO", (VECTORS, CHOICES)),
        ("DQN", (VECTORS, CHOICES)),
        ("DQN", (IMAGES, CHOICES)),
        ("SAC", (VECTORS, TORQUES)),
        ("SAC", (VECTORS, CHOICES)),
        ("CQL", (IMAGES, TORQUES)),
        ("BC", (VECTORS, TORQUES)),
        ("BC", (IMAGES, CHOICES)),
        ("TQC", (VECTORS, TORQUES)),
        ("MARWIL", (VECTORS, CHOICES)),
        ("IQL", (VECTORS, TORQUES)),
    ],
)
def test_exactly_the_keys_that_change_nothing_are_refused(
    algorithm: str, spaces: tuple[Any, Any], filled: bool
) -> None:
    base = {**BARE, "fusionnet_hiddens": [4]}
    if spaces[0] is IMAGES:
        base["conv_filters"] = [[2, 3, 1]]
    if filled:
        base |= {**FILLED, "head_fcnet_hiddens": [4]}
        fuses = family_named(algorithm).fuses_actions
        base |= {} if fuses else {"use_lstm": True, "lstm_cell_size": 5}
    plain = build(algorithm, spaces, base)
    wrong = []
    for key, value in CHANGES.items():
        if key in ("use_lstm", "max_seq_len"):
            continue  # the one is read first of all, the other by connectors
        if key == "vf_share_layers":
            value = algorithm not in ("IMPALA", "MARWIL")  # of which it is the default
        model = {**base, key: value}
        try:
            idle = is_same(plain, build(algorithm, spaces, model))
        except AssertionError:
            assert key == "free_log_std"  # refused when the network is built
            continue
        if idle != is_refused(algorithm, spaces, model, key):
            wrong.append(key)
    assert wrong == []


def test_every_key_of_rllibs_is_looked_at() -> None:
    assert CHANGES.keys() == {field.name for field in dataclasses.fields(DefaultModelConfig)}


@pytest.mark.parametrize(
    ("algorithm", "model", "message"),
    [
        ("DQN", {"vf_share_layers": False}, "with DQN. Only PPO, APPO, IMPALA and MARWIL"),
        ("PPO", {"lstm_cell_size": 8}, "does nothing with PPO. Set `use_lstm: true`"),
        ("PPO", {"max_seq_len": 8}, "Set `use_lstm: true`, or leave it out."),
        ("PPO", {"head_fcnet_activation": "relu"}, "Set `head_fcnet_hiddens`, or leave it out."),
        ("PPO", {"head_fcnet_kernel_initializer": "ones_"}, "Only DQN reads how heads begin"),
        ("BC", {"fusionnet_hiddens": [8]}, "Only SAC, TQC, CQL and IQL fuse"),
        ("PPO", {"fcnet_bias_initializer_kwargs": {"val": 1}}, "Set `fcnet_bias_initializer` too"),
        ("PPO", {"use_lstm": True, "lstm_use_prev_action": True}, "env_to_module_connector"),
        ("PPO", {"fcnet_hiddens": [], "fcnet_activation": "relu"}, "Give `fcnet_hiddens` a layer"),
    ],
)
def test_a_key_that_does_nothing_is_refused_with_the_way_out(
    algorithm: str, model: dict[str, Any], message: str
) -> None:
    raw = {"algorithm": algorithm, "rllib": {"rl_module": {"model_config": model}}}
    (fault,) = (fault for fault in rllib_faults(raw) if "does nothing" in fault)
    assert message in fault


def test_what_is_switched_off_is_no_fault_nor_what_a_users_own_module_reads() -> None:
    off = {"lstm_use_prev_action": False, "use_lstm": False, "fcnet_kernel_initializer": None}
    assert list(unread_model_faults("PPO", off)) == []
    assert list(unread_for_spaces("PPO", {"fcnet_hiddens": []}, IMAGES, CHOICES)) == []
    own = {"module_class": "rayprune.rllib.models:PrunableMLP", "model_config": {"max_seq_len": 3}}
    assert rllib_faults({"algorithm": "PPO", "rllib": {"rl_module": own}}) == []


def test_a_key_that_the_environment_leaves_without_use_is_refused_before_a_run() -> None:
    raw = copy.deepcopy(experiments.PPO)
    raw["rllib"]["rl_module"]["model_config"]["conv_activation"] = "tanh"
    (fault,) = experiment_parts_faults(raw)
    assert fault.startswith(
        "`rllib.rl_module.model_config.conv_activation` does nothing for observations of shape (4,)"
    )
