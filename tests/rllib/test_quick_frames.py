import inspect

from ray.rllib.connectors import connector_v2
from ray.rllib.connectors.common import AddObservationsFromEpisodesToBatch

from tests.doubles.quick_frames import look_up_one_frame


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
