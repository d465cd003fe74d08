"""Buffers with their steps in arrays against RLlib's own: same draws, same bits."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.rllib.utils.replay_buffers.multi_agent_episode_buffer import MultiAgentEpisodeReplayBuffer

from rayprune.rllib.connectors.filters import Scaling
from rayprune.rllib.connectors.sampling import STATISTICS, let_buffer_normalise
from rayprune.rllib.replay.buffers import make_columnar, reason_against
from rayprune.rllib.replay.n_step_columns import columns_of

from .oracles import (
    CLASSES,
    Pair,
    assert_same_columns,
    assert_same_metrics,
    assert_same_state,
)
from .streams import IMAGE, Stream

KINDS = list(CLASSES)
BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


def train(pair: Pair, stream: Stream, times: int, n_step: Any = 1, first: int = 10) -> None:
    """Add, sample and set priorities in turns, from turn ``first`` on."""
    for turn, episodes in enumerate(stream.many(times)):
        if episodes:
            pair.add(episodes)
        if turn > first and turn % 3 == 0:
            pair.sample(n_step=n_step)
            assert_same_metrics(pair.ours.get_metrics(), pair.theirs.get_metrics())
            if hasattr(pair.theirs, "update_priorities"):
                pair.update()
                assert pair.ours._max_priority == pair.theirs._max_priority


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_step", [1, 2, 3, 5, (1, 5), (2, 4)], ids=str)
def test_samples_are_rllibs_to_the_bit(kind: str, n_step: Any) -> None:
    pair = Pair(kind)
    train(pair, Stream(), 54, n_step, first=30)
    assert pair.in_arrays


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("environments", [1, 3])
def test_samples_stay_rllibs_as_episodes_are_evicted(kind: str, environments: int) -> None:
    pair = Pair(kind, capacity=70)
    train(pair, Stream(environments=environments), 150 // environments, n_step=2)
    assert pair.theirs.get_num_episodes_evicted() > 3
    assert pair.in_arrays
    assert_same_state(pair.ours, pair.theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_evicted_while_it_goes_on_is_as_in_rllib(kind: str) -> None:
    """Its next chunk is dropped by the prioritised buffer, and a new episode in the uniform one."""
    pair, short = Pair(kind, capacity=40), Stream(environments=1, longest=5)
    long = Stream(seed=1).unfinished(60)
    long.id_ = "long"
    for end, others in zip(range(1, 61), short.many(60), strict=True):
        pair.add([long[end - 1 : end].to_numpy()])
        for other in others:
            pair.add([other])
    pair.sample()
    assert pair.theirs.get_num_episodes_evicted() > 3
    assert pair.in_arrays
    assert_same_state(pair.ours, pair.theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "spaces",
    [
        {"observations": IMAGE},
        {"observations": gym.spaces.Discrete(5)},
        {"observations": gym.spaces.Box(0, 1, (), np.float64)},
        {"observations": gym.spaces.MultiBinary(3), "actions": gym.spaces.MultiDiscrete([2, 3])},
        {"actions": BOX},
    ],
    ids=["image", "discrete", "number", "binary", "box actions"],
)
def test_spaces_keep_their_dtypes(kind: str, spaces: dict[str, Any]) -> None:
    pair = Pair(kind, capacity=60)
    train(pair, Stream(**spaces), 40, n_step=2)
    assert pair.in_arrays


def test_images_stay_bytes() -> None:
    pair = Pair("uniform")
    pair.add(Stream(observations=IMAGE).chunks(20))
    assert pair.sample()["new_obs"].dtype == np.uint8


def test_a_single_step_is_worked_out_by_hand() -> None:
    pair, stream = Pair("uniform"), Stream(environments=1)
    (episode,) = stream.chunks(1)
    pair.add([episode])
    columns = pair.sample(items=2)
    np.testing.assert_array_equal(columns["obs"], [episode.get_observations(0)] * 2)
    np.testing.assert_array_equal(columns["new_obs"], [episode.get_observations(1)] * 2)
    assert columns["rewards"].tolist() == [episode.get_rewards(0)] * 2
    assert columns["n_step"].tolist() == [1, 1]


@pytest.mark.parametrize("weight", [None, 2.5, 0.3, np.float32(0.7)])
def test_priorities_of_all_types_add_up_as_in_rllib(weight: Any) -> None:
    pair, stream = Pair("prioritised", capacity=64, alpha=0.6), Stream()
    for turn, episodes in enumerate(stream.many(60)):
        if episodes:
            pair.add(episodes, weight=weight if turn % 3 else None)
        if turn > 10:
            pair.sample()
            pair.update([0.3, 1e-13, 2.0, 1] * 4 if turn % 5 == 0 else None)
    assert pair.in_arrays
    assert_same_state(pair.ours, pair.theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_asked_for_once_are_those_that_rllib_gathers_sample_by_sample(kind: str) -> None:
    window = {"metrics_num_episodes_for_smoothing": 20}
    pair, stream = Pair(kind, capacity=60, **window), Stream()
    theirs, ours = MetricsLogger(root=True), MetricsLogger(root=True)
    for episodes in stream.many(60):
        if episodes:
            pair.add(episodes)
            pair.sample(n_step=(1, 3))
            theirs.aggregate([pair.theirs.get_metrics()], key="replay")
    ours.aggregate([pair.ours.get_metrics()], key="replay")
    for _ in range(2):
        np.testing.assert_equal(ours.reduce(compile=True), theirs.reduce(compile=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_filled_buffer_is_taken_over_and_given_back(kind: str) -> None:
    pair, stream = Pair(kind, capacity=80), Stream()
    train(pair, stream, 60)
    pair.ours.leave_arrays("it is tested")
    assert not pair.in_arrays
    assert_same_state(pair.ours, pair.theirs)
    train(pair, stream, 30)
    pair.ours.enter_arrays()
    assert pair.in_arrays
    train(pair, stream, 30)
    assert_same_state(pair.ours, pair.theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_goes_on_in_arrays(kind: str) -> None:
    pair, stream = Pair(kind, capacity=80), Stream()
    train(pair, stream, 60)
    for copied in (lambda buffer: pickle.loads(pickle.dumps(buffer)), copy.deepcopy):
        pair.ours = copied(pair.ours)
        train(pair, stream, 30)
        assert pair.in_arrays
        assert_same_state(pair.ours, pair.theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_rllibs_is_taken_over(kind: str) -> None:
    pair, stream = Pair(kind, capacity=80), Stream()
    train(pair, stream, 40)
    pair.ours = Pair(kind, capacity=80).ours
    pair.ours.set_state(copy.deepcopy(pair.theirs.get_state()))
    assert pair.in_arrays
    assert_same_state(pair.ours, pair.theirs)
    pair.seed(3)
    pair.sample()


@pytest.mark.parametrize("name", ["episodes", "_indices", "_sum_segment"])
def test_who_looks_into_a_buffer_finds_what_rllib_has_there(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair("prioritised")
    pair.add(Stream().chunks(10))
    caplog.set_level("DEBUG", logger="rayprune")
    assert type(getattr(pair.ours, name)) is type(getattr(pair.theirs, name))
    assert f"its `{name}` is asked for" in caplog.text
    assert not pair.in_arrays


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{"items": 0}, {"n_step": (2, 4.0)}], ids=str)
def test_odd_requests_are_left_to_rllib(kind: str, how: dict[str, Any]) -> None:
    pair = Pair(kind)
    pair.add(Stream().chunks(20))
    pair.sample(**how)
    assert not pair.in_arrays


@pytest.mark.parametrize("kind", KINDS)
def test_who_asks_for_episodes_gets_rllibs(kind: str) -> None:
    pair, stream = Pair(kind), Stream()
    train(pair, stream, 40)
    pair.seed(5)
    how = {"num_items": 8, "n_step": 1, "sample_episodes": True}
    assert_same_columns(columns_of(pair.ours.sample(**how)), columns_of(pair.theirs.sample(**how)))
    assert not pair.in_arrays
    train(pair, stream, 20)


def nested(episodes: list[Any]) -> None:
    for episode in episodes:
        episode.observations.data = {"a": episode.observations.data}


def of_two_dtypes(episodes: list[Any]) -> None:
    episodes[0].rewards.data = episodes[0].rewards.data.astype(np.float32)


def with_own_ids(episodes: list[Any]) -> None:
    for episode in episodes:
        episode.id_ += "_own"


def with_states(episodes: list[Any]) -> None:
    for episode in episodes:
        logp = episode.extra_model_outputs["action_logp"]
        logp.data = {"h": logp.data}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoil", [nested, of_two_dtypes, with_own_ids, with_states])
def test_episodes_that_fit_no_array_are_left_to_rllib(
    kind: str, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pair, stream = Pair(kind), Stream(longest=7)
    caplog.set_level("DEBUG", logger="rayprune")
    episodes = [episode for episode in stream.chunks(20) if episode.is_done]
    spoil(episodes)
    pair.add(episodes)
    assert not pair.in_arrays
    assert caplog.text.count("RLlib's own replay buffer is kept: ") == 1
    if spoil is not nested:
        pair.sample()


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_as_lists_are_left_to_rllib(kind: str) -> None:
    pair = Pair(kind)
    pair.add([Stream().unfinished(3)])
    assert not pair.in_arrays
    pair.sample()


def test_chunks_that_do_not_fit_together_get_rllibs_own_error() -> None:
    pair, first, last = Pair("uniform"), Stream().unfinished(2), Stream().unfinished(3)
    pair.add([first.to_numpy()])
    last.id_ = first.id_
    with pytest.raises(AssertionError):
        pair.ours.add(last.to_numpy())


def test_priorities_of_double_precision_are_left_to_rllib() -> None:
    pair = Pair("prioritised")
    pair.add(Stream().chunks(20))
    pair.sample()
    pair.update(np.linspace(0.1, 2.0, 16))
    assert not pair.in_arrays
    pair.sample()
    pair.update()


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_normalise_columns_as_they_do_episodes(kind: str) -> None:
    pair = Pair(kind)
    let_buffer_normalise(_algorithm(pair.theirs))
    let_buffer_normalise(_algorithm(pair.ours))
    assert pair.in_arrays
    scaling = Scaling(np.array([0.1, 0.2, 0.3]), np.array([1.5, 1.0, 2.0]))
    for episodes in Stream().many(30):
        if episodes:
            episodes[-1].custom_data[STATISTICS] = (scaling, 1.7)
            pair.add(episodes)
    columns = pair.sample()
    assert (columns["obs"].dtype, columns["rewards"].dtype) == (np.float32, np.float32)
    assert pair.in_arrays


def test_only_buffers_of_rllibs_for_single_agents_are_made_columnar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "MultiAgentEpisodeReplayBuffer" in reason_against(MultiAgentEpisodeReplayBuffer())

    class Own(CLASSES["uniform"]):  # type: ignore[misc]
        """A user's."""

    assert "Own" in reason_against(Own())
    buffer = CLASSES["prioritised"](100)
    assert reason_against(buffer) == ""
    with monkeypatch.context() as older:
        older.setattr(np, "__version__", "1.26.4")
        assert "NumPy" in reason_against(buffer)
        assert reason_against(CLASSES["uniform"](100)) == ""
    make_columnar(buffer)
    assert reason_against(buffer) == ""
    make_columnar(buffer)


def _algorithm(buffer: Any) -> Any:
    config = SimpleNamespace(replay_buffer_config={"type": "any"}, is_offline=False)
    return SimpleNamespace(local_replay_buffer=buffer, config=config)
