import inspect

from ray.rllib.connectors import connector_v2
from ray.rllib.connectors.common import AddObservationsFromEpisodesToBatch

from rayprune.rllib.training import train
from tests.doubles.quick_starts import ask_about_exports_once, look_up_one_frame
from tests.rllib import configs


def test_a_connector_finds_the_same_in_the_frame_that_made_it(monkeypatch):
    monkeypatch.setattr(connector_v2, "inspect", inspect)
    slow = AddObservationsFromEpisodesToBatch(as_learner_connector=True)
    look_up_one_frame()
    assert connector_v2.inspect is not inspect
    quick = AddObservationsFromEpisodesToBatch(as_learner_connector=True)
    assert quick.get_ctor_args_and_kwargs() == slow.get_ctor_args_and_kwargs()
    assert quick.get_ctor_args_and_kwargs()[1] == {
        "input_observation_space": None,
        "input_action_space": None,
        "as_learner_connector": True,
    }


def test_unlike_policies_are_asked_about_each_and_alike_ones_once(monkeypatch):
    asked = []
    monkeypatch.setattr(train, "export_limits", lambda config: asked.append(config) or ["no"])
    monkeypatch.setattr("rayprune.search.sweep.export_limits", None)
    ask_about_exports_once()
    wide = configs.ppo().rl_module(model_config={"fcnet_hiddens": [64]})
    for config in (configs.ppo(), configs.ppo().training(lr=0.1), wide, configs.dqn()):
        assert train.export_limits(config) == ["no"]
    assert [type(config).__name__ for config in asked] == ["PPOConfig", "PPOConfig", "DQNConfig"]
