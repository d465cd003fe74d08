"""What offline Learners are given, drawn at random, and as RLlib's connectors make it."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.air.constants import TRAINING_ITERATION
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID

from rayprune.errors import InputError
from rayprune.rllib.learner.updates.replays import _Recorded as Recorded
from rayprune.rllib.offline.data import MOST_BYTES, RecordedData
from rayprune.rllib.offline.draws import Draws
from tests.rllib.learner.updates import twins
from tests.rllib.offline import recordings

AVERAGE = "moving_avg_sqd_adv_norms_per_module"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recordings by environment."""
    home = tmp_path_factory.mktemp("data")
    return {
        env: recordings.write(recordings.steps(env), home / env)
        for env in ("CartPole-v1", "Pendulum-v1")
    }


def numbered(count: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"a": {"obs": torch.arange(count)}}


def test_each_step_is_drawn_once_before_any_is_drawn_again() -> None:
    drawn = Draws(numbered(10)).minibatches(4)
    found = torch.cat([next(drawn)["a"]["obs"] for _ in range(5)])
    assert sorted(found[:10].tolist()) == sorted(found[10:].tolist()) == list(range(10))
    assert found[:10].tolist() != found[10:].tolist()


def test_a_batch_may_be_larger_than_the_data() -> None:
    (batch,) = itertools.islice(Draws(numbered(3)).minibatches(7), 1)
    assert sorted(batch["a"]["obs"].tolist())[2:5] == [1, 1, 1] or len(batch["a"]["obs"]) == 7


def test_learners_share_the_steps_and_have_each_their_own() -> None:
    shards = [Draws(numbered(9), slice(rank, None, 2)) for rank in range(2)]
    found = [next(shard.minibatches(4))["a"]["obs"].tolist() for shard in shards]
    assert not set(found[0]) & set(found[1])


def test_ray_data_s_names_are_module_and_column() -> None:
    (batch,) = itertools.islice(Draws(numbered(3)).iter_torch_batches(batch_size=2), 1)
    assert list(batch) == ["a/obs"]


def test_reading_draws_no_random_numbers(folders: dict[str, Path]) -> None:
    data = recordings.data_of(recordings.config_of("BC", folders["CartPole-v1"]))
    before = torch.get_rng_state()
    data.sample(16, return_iterator=True, num_shards=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_marwil_is_told_what_each_step_earned_to_the_end(folders: dict[str, Path]) -> None:
    config = recordings.config_of("MARWIL", folders["CartPole-v1"], gamma=0.5)
    (draws,) = recordings.data_of(config).sample(16, return_iterator=True, num_shards=0)
    steps = draws._steps[DEFAULT_MODULE_ID]
    rows = recordings.steps("CartPole-v1")
    found, expected = steps["value_targets"].tolist(), 0.0
    for row, earned in zip(reversed(rows), reversed(found), strict=True):
        ends = row["terminateds"] or row["truncateds"]
        expected = row["rewards"] + (0.0 if ends else 0.5 * expected)
        assert earned == pytest.approx(expected)
    assert np.allclose(steps["obs"], [row["obs"] for row in rows])


def test_resuming_draws_what_going_on_would_have_drawn(folders: dict[str, Path]) -> None:
    config = recordings.config_of("MARWIL", folders["CartPole-v1"])
    state, weights = None, []
    for before in (3, 0):
        data, learner = recordings.data_of(config), recordings.learner_of(config)
        iterators = data.sample(16, return_iterator=True, num_shards=0)
        if state is None:
            recordings.updates(learner, iterators, before)
            state = learner.get_state()
        else:
            learner.set_state(state)
        torch.manual_seed(5)
        learner.cross_barrier()
        recordings.updates(learner, iterators, 1)
        weights.append(learner.module[DEFAULT_MODULE_ID].get_state())
    for name, weight in weights[0].items():
        assert np.array_equal(weight, weights[1][name]), name


def test_cql_clones_for_as_many_updates_as_it_is_told(folders: dict[str, Path]) -> None:
    config = recordings.config_of("CQL", folders["Pendulum-v1"], lr=None, bc_iters=7)
    learner = recordings.learner_of(config)
    iterators = recordings.data_of(config).sample(16, return_iterator=True, num_shards=0)
    counts = []
    for _ in range(3):
        results = recordings.updates(learner, iterators, 1)
        counts.append(results[ALL_MODULES][TRAINING_ITERATION].peek())
    assert counts == [5, 10, 15]


@pytest.mark.parametrize(
    ("algorithm", "training"),
    [
        ("IQL", {}),
        ("CQL", {"lr": None, "bc_iters": 28}),  # another loss from within an iteration on
        pytest.param("CQL", {"lr": None, "twin_q": False}, marks=pytest.mark.slow),
        ("MARWIL", {"beta": 1.0}),
        pytest.param("BC", {}, marks=pytest.mark.slow),
    ],
)
def test_lean_and_rllib_s_own_loop_learn_the_same(
    algorithm: str, training: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, replays = [], []
    ran = Recorded.run
    monkeypatch.setattr(Recorded, "run", lambda *given: replays.append(given) or ran(*given))
    for lean in (False, True):
        folder = folders[recordings.env_of(algorithm)]
        config = recordings.config_of(algorithm, folder, **training).copy(copy_frozen=False)
        config.learners(learner_config_dict={**config.learner_config_dict, "rayprune_lean": lean})
        torch.manual_seed(1)
        learner = recordings.learner_of(config)
        iterators = recordings.data_of(config).sample(16, return_iterator=True, num_shards=0)
        torch.manual_seed(2)
        assert not replays
        results = [recordings.updates(learner, iterators, 1) for _ in range(8)]
        found.append([*twins.learned(learner), getattr(learner, AVERAGE, {}), *results])
    assert twins.differences(*found) == []
    # Layers are watched for plasticity at first; then one of five is compared, one logged.
    # Whether replays pay is judged by time, so that there may be fewer on a busy machine.
    assert len(replays) > 3


def test_a_single_update_an_iteration_is_given_a_batch(folders: dict[str, Path]) -> None:
    config = recordings.config_of("BC", folders["CartPole-v1"])
    data = recordings.data_of(config)
    first = data.sample(16, return_iterator=False, num_shards=0)
    assert first.env_steps() == len(first[DEFAULT_MODULE_ID]["obs"]) == 16
    data.cross_barrier()
    assert data._draws is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_": ["s3://bucket/data"]}, "it isn't on this machine's disks"),
        ({"input_read_method": "read_json"}, "`input_read_method` is set"),
        ({"iter_batches_kwargs": {"prefetch_batches": 3}}, "`iter_batches_kwargs` is set"),
        ({"dataset_num_iters_per_learner": None}, "an iteration is a pass over all of it"),
    ],
)
def test_what_is_read_in_another_way_is_left_to_rllib(
    folders: dict[str, Path],
    changes: dict[str, Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = recordings.config_of("BC", folders["CartPole-v1"]).copy(copy_frozen=False)
    for name, value in changes.items():
        setattr(config, name, value)
    monkeypatch.setattr("ray.rllib.offline.offline_data.OfflineData.__init__", lambda *_: None)
    with caplog.at_level(logging.DEBUG, logger="rayprune"):
        RecordedData(config)
    assert f"RLlib's own reading of recorded data is kept: {reason}" in caplog.text


def test_marwil_does_not_learn_from_parts_of_episodes(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayprune.rllib.offline.data.MOST_BYTES", 1)
    config = recordings.config_of("MARWIL", folders["CartPole-v1"])
    with pytest.raises(InputError, match="can't be read as whole episodes: it holds"):
        RecordedData(config)
    assert MOST_BYTES > 2**20
