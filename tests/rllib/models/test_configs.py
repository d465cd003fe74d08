"""The models' settings: what is refused, and what survives the way to a plain dict."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.errors import ConfigError
from rayprune.rllib.models import (
    LSTMConfig,
    MLPConfig,
    NatureCNNConfig,
    PrunableMLP,
    PrunableNatureCNN,
    ResidualCNNConfig,
    SimBaConfig,
    TransformerConfig,
)
from tests.rllib.models.small_modules import (
    FLAT,
    IMAGE,
    MODULES,
    SMALL,
    build,
)


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
