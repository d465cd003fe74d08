"""Each algorithm by its YAML: clocks, faults, recorded data, interruption."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rayprune.errors import InputError
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.commands.evaluate import evaluate_checkpoint
from rayprune.rllib.commands.record import DATA_FILE, record_episodes
from rayprune.rllib.experiment.experiment_checks import experiment_parts_faults
from rayprune.rllib.learner.clock import clock_of
from rayprune.tracking.record import read_rows
from tests.rllib import experiments, matrix
from tests.rllib.training.test_resume import CrashAt, CrashError

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

APPO: dict[str, Any] = {
    **experiments.PPO,
    "algorithm": "APPO",
    "rllib": {
        "training": {"train_batch_size_per_learner": 100},
        "env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 2},
        "learners": {"num_learners": 0},
        "reporting": {"min_sample_timesteps_per_iteration": 200},
        "rl_module": {"model_config": {"fcnet_hiddens": [16, 16]}},
    },
}


def offline(algorithm: str, data: Path, **training: Any) -> dict[str, Any]:
    return {
        **experiments.PPO,
        "algorithm": algorithm,
        "env": "CartPole-v1" if algorithm == "BC" else "Pendulum-v1",
        "rllib": {
            "training": {"train_batch_size_per_learner": 32, **training},
            "offline_data": {
                "input_": [str(data)],
                "dataset_num_iters_per_learner": 20,
                "map_batches_kwargs": {"concurrency": 1, "num_cpus": 0},
            },
            "rl_module": {"model_config": {"fcnet_hiddens": [16, 16]}},
        },
        "pruning": {"sparsity": 0.8, "schedule": {"begin": 0.1, "end": 0.5, "every": 20}},
        "stop": {"updates": 120},
        "evaluation": {"every": 60, "episodes": 2},
    }


@pytest.fixture(scope="module")
def cartpole(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cartpole") / "run"
    experiments.train(experiments.experiment(experiments.PPO), out)
    return out


def test_an_asynchronous_run_prunes_checkpoints_and_goes_on_after_a_crash(tmp_path: Path) -> None:
    what = experiments.experiment(APPO)
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path, reporter=CrashAt(610))
    summary = experiments.train(what, tmp_path, resume=True)
    assert summary["env_steps"] >= 1200
    assert summary["sparsity"]["prunable"] == pytest.approx(0.8, abs=0.02)
    steps = [row["env_steps"] for row in read_rows(tmp_path / "results.jsonl")]
    assert steps == sorted(set(steps))
    again = evaluate_checkpoint(
        tmp_path / summary["checkpoint"], episodes=None, seed=None, address=None
    )
    assert again["returns"]["test"] == summary["returns"]["test"]


def test_behaviour_cloning_counts_updates_and_goes_on_after_a_crash(
    cartpole: Path, tmp_path: Path
) -> None:
    recorded = record_episodes(cartpole, tmp_path / "data", episodes=20, seed=0, explore=True)
    assert recorded["returns"]["episodes"] == 20
    what = experiments.experiment(offline("BC", tmp_path / "data", lr=0.001))
    out = tmp_path / "run"
    with pytest.raises(CrashError):
        experiments.train(what, out, reporter=CrashAtUpdate(90))
    summary = experiments.train(what, out, resume=True)
    assert (summary["env_steps"], summary["updates"]) == (0, 120)
    assert summary["sparsity"]["prunable"] == pytest.approx(0.8, abs=0.02)
    rows = read_rows(out / "results.jsonl")
    assert [row["updates"] for row in rows] == [20, 40, 60, 80, 100, 120]
    assert [row["updates"] for row in rows if "validation" in row] == [60, 120]
    assert rows[0]["sparsity"] < rows[2]["sparsity"] == pytest.approx(0.8, abs=0.02)


@pytest.mark.slow  # Ray Data starts twice; test_matrix.py writes and reads a checkpoint of CQL
def test_cql_writes_checkpoints_and_goes_on_after_a_crash(
    ray_session: None, tmp_path: Path
) -> None:
    raw = offline("CQL", matrix.record("Pendulum-v1", tmp_path / "data"), lr=None)
    raw["rllib"]["offline_data"]["input_read_episodes"] = True
    what, out = experiments.experiment(raw), tmp_path / "run"
    with pytest.raises(CrashError):
        experiments.train(what, out, reporter=CrashAtUpdate(90))
    summary = experiments.train(what, out, resume=True)
    assert summary["updates"] == 120
    assert summary["sparsity"]["prunable"] == pytest.approx(0.8, abs=0.02)
    assert [row["updates"] for row in read_rows(out / "results.jsonl")] == [*range(20, 121, 20)]


class CrashAtUpdate(CrashAt):
    def iteration(self, row: Any) -> None:
        super().iteration({"env_steps": row["updates"]})


def test_recorded_rows_are_the_episodes_that_were_played(cartpole: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    recorded = record_episodes(cartpole, tmp_path / "a", episodes=3, seed=7, explore=False)
    record_episodes(cartpole, tmp_path / "b", episodes=3, seed=7, explore=False)
    rows = pyarrow.read_table(tmp_path / "a" / DATA_FILE).to_pylist()
    assert rows == pyarrow.read_table(tmp_path / "b" / DATA_FILE).to_pylist()
    assert len(rows) == recorded["env_steps"]
    for row, following in itertools.pairwise(rows):
        ends = row["terminateds"] or row["truncateds"]
        assert ends is (row["eps_id"] != following["eps_id"])
        if not ends:
            assert np.array_equal(row["new_obs"], following["obs"])
    total = sum(row["rewards"] for row in rows)
    assert total == pytest.approx(3 * recorded["returns"]["mean"])


def test_pictures_are_not_recorded_and_the_way_out_is_told(tmp_path: Path) -> None:
    from rayprune.rllib.commands.record import _check_observations
    from tests.doubles.envs import Images

    spaces = {"__env_single__": (Images.observation_space, Images.action_space)}
    with pytest.raises(InputError, match="output_write_episodes"):
        _check_observations(SimpleNamespace(spaces=spaces))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rllib": {}}, "`rllib.offline_data.input_` is missing: BC learns from recorded data"),
        (
            {"rllib": {"offline_data": {"input_": ["nowhere"]}}},
            "there is no 'nowhere'. `rayprune record CHECKPOINT --out nowhere` writes some",
        ),
        ({"stop": {"env_steps": 5}}, "`stop.updates` is missing: BC learns offline"),
        ({"stop": {"env_steps": 5, "updates": 9}}, "`stop.env_steps` must be left out with BC"),
        (
            {"rllib": {"rl_module": {"model_config": {"use_lstm": True}}}},
            "`rllib.rl_module.model_config.use_lstm` can't be true: RLlib reads offline data",
        ),
    ],
)
def test_faults_of_offline_runs_come_with_the_way_out(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    raw = {**offline("BC", tmp_path), **changes}
    assert any(told in fault for fault in experiment_parts_faults(raw))


def test_what_an_algorithm_lacks_is_told() -> None:
    lstm = {"rl_module": {"model_config": {"use_lstm": True}}}
    uniform = {"training": {"replay_buffer_config": {"type": "EpisodeReplayBuffer"}}}
    assert not [*family_named("DQN").faults({**lstm, **uniform})]
    (fault,) = family_named("DQN").faults(lstm)
    assert "{type: EpisodeReplayBuffer}" in fault
    atoms = {"training": {**uniform["training"], "num_atoms": 51}}
    (fault,) = family_named("DQN").faults({**lstm, **atoms})
    assert "`rllib.training.num_atoms` must be 1" in fault
    (fault,) = family_named("SAC").faults(lstm)
    assert "choose PPO, APPO or IMPALA" in fault
    assert not [*family_named("APPO").faults(lstm)]
    frozen = {"training": {"target_network_update_freq": 100}}
    faults = [*family_named("CQL").faults(frozen)]
    assert any("would never be updated" in fault for fault in faults)


def test_recorded_data_may_lie_in_one_folder_or_in_several(tmp_path: Path) -> None:
    raw = offline("BC", tmp_path)
    assert not experiment_parts_faults(raw)
    raw["rllib"]["offline_data"]["input_"] = str(tmp_path)
    assert not experiment_parts_faults(raw)
    raw["rllib"]["offline_data"]["input_"] = 5
    (fault,) = experiment_parts_faults(raw)
    assert fault == "`rllib.offline_data.input_` must be of type str | list[str], but is 5."


def test_cql_needs_continuous_actions(tmp_path: Path) -> None:
    raw = {**offline("CQL", tmp_path), "env": "CartPole-v1"}
    (fault,) = experiment_parts_faults(raw)
    assert "`CQL` can't be built for `env` 'CartPole-v1': it needs actions in a Box space" in fault


def test_several_policies_in_a_yaml_are_refused_with_the_way_out() -> None:
    raw = {**experiments.PPO, "rllib": {"multi_agent": {"policies": ["a", "b"]}}}
    assert any("modules=[...]" in fault for fault in experiment_parts_faults(raw))


def test_the_clock_is_env_steps_and_updates_where_data_is_read() -> None:
    from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME as STEPS

    online = SimpleNamespace(config=SimpleNamespace(is_offline=False), device=torch.device("cpu"))
    offline = SimpleNamespace(config=SimpleNamespace(is_offline=True), device=torch.device("cpu"))
    assert clock_of(online, {STEPS: 400}, 7) == 400  # type: ignore[arg-type]
    assert clock_of(online, {}, 7) == 7  # type: ignore[arg-type]
    # BC tells how many rows it has read so far.
    assert clock_of(offline, {STEPS: 6400}, 7) == 7  # type: ignore[arg-type]
