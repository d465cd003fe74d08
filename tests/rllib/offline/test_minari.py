"""Datasets of Minari's, made here with its own API and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.offline.offline_prelearner import SCHEMA

from rayprune.errors import InputError
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.experiment.experiment_checks import experiment_parts_faults
from rayprune.rllib.offline.sources import sources_of
from tests.rllib import experiments
from tests.rllib.offline import recordings

minari = pytest.importorskip("minari")
ID = "cartpole/random-v0"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Recorded rows, that are a dataset of Minari's too."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    rows = recordings.steps("CartPole-v1")
    episodes = []
    for number in ("0", "1"):
        own = [row for row in rows if row["eps_id"] == number]
        seen = [row["obs"] for row in own] + [own[-1]["new_obs"]]
        episodes.append(
            EpisodeBuffer(
                id=int(number),
                observations=np.array(seen, np.float32),
                actions=np.array([row["actions"] for row in own]),
                rewards=[row["rewards"] for row in own],
                terminations=[row["terminateds"] for row in own],
                truncations=[False] * len(own),
            )
        )
    minari.create_dataset_from_buffers(
        ID,
        episodes,
        env=gym.make("CartPole-v1"),
        eval_env=gym.make("CartPole-v1"),
        data_format="arrow",
        algorithm_name="random",
        author="tests",
        author_email="tests@localhost",
        code_permalink="none",
        description="random episodes",
    )
    return rows


def test_a_dataset_s_steps_are_the_recorded_ones(rows: list[dict[str, Any]]) -> None:
    (source,) = sources_of([f"minari://{ID}"])
    assert source.size() == 8 * (4 + 4 + 1) * len(rows)
    read = source.read(SCHEMA)
    for name in ("t", "obs", "actions", "rewards", "new_obs", "terminateds"):
        assert np.array_equal(read[name], np.array([row[name] for row in rows])), name
    ends = read["terminateds"] | read["truncateds"]
    assert ends.sum() == 2  # the last of each, whether Minari says so or not
    assert ends[-1]


def test_marwil_learns_from_a_dataset(rows: list[dict[str, Any]]) -> None:
    raw = recordings.raw("MARWIL", Path())
    raw["rllib"]["offline_data"]["input_"] = [f"minari://{ID}"]
    assert not experiment_parts_faults(raw)
    config = build_config(experiments.experiment(raw))
    learner = recordings.learner_of(config)
    iterators = recordings.data_of(config).sample(16, return_iterator=True, num_shards=0)
    recordings.updates(learner, iterators, 4)
    report = learner.pruning_report()["default_policy"]
    assert (report["updates"], report["violations"], report["finite"]) == (20, {}, True)
    assert report["sparsity"] == pytest.approx(0.8, abs=0.02)


def test_a_dataset_that_is_not_there_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    blocks = {"offline_data": {"input_": ["minari://D4RL/door/human-v2"]}}
    (fault,) = family_named("IQL").faults(blocks)
    assert "`minari download D4RL/door/human-v2` fetches" in fault
    with pytest.raises(InputError, match="must be a dataset of Minari's on this machine"):
        sources_of("minari://D4RL/door/human-v2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (fault,) = family_named("IQL").faults(blocks)
    assert "pip install 'rayprune[minari]'" in fault
