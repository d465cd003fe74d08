"""A checkpoint's policy is read once, however much is asked of it."""

from __future__ import annotations

import collections
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.utils.checkpoints import Checkpointable

from rayprune.config import to_yaml
from rayprune.deploy.export.export import ExportRequest
from rayprune.rllib.checkpoints.files import CONFIG_FILE, META_FILE
from rayprune.rllib.checkpoints.saved_policy import MODULE
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.rllib.connectors.filters import ObservationFilter
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.training.summary import SummarySubject, summarise_run
from tests.doubles.exported import scramble
from tests.rllib import experiments

FILTERED = experiments.experiment(
    {
        **experiments.PPO,
        "rllib": {
            **experiments.PPO["rllib"],
            "env_runners": {"num_env_runners": 0, "observation_filter": "MeanStdFilter"},
        },
    },
    evaluation={"episodes": 2, "shifts": [{"sutton_barto_reward": True}]},
)
REPORT = {
    "sparsity": 0.5,
    "groups": {},
    "layers": [],
    "parameters": {"total": 2, "nonzero": 1},
    "finished": True,
}


def checkpoint(directory: Path, density: float) -> Path:
    """Write a whole policy as a Learner and an EnvRunner leave it, without training one."""
    evaluator = Evaluator(base_config(FILTERED), whole=True)
    scramble(evaluator.module, density)
    (scaling,) = (c for c in evaluator.connectors[0] if isinstance(c, ObservationFilter))
    scaling.shares.add(np.random.default_rng(0).normal(3.0, 2.0, size=(50, 4)))
    evaluator.module.save_to_path(str((directory / MODULE).absolute()))
    evaluator._runner.save_to_path(str((directory / "env_runner").absolute()))
    evaluator.close()
    (directory / "learner_group" / "learner" / "state.pkl").write_bytes(pickle.dumps({}))
    (directory / CONFIG_FILE).write_text(to_yaml(FILTERED, {}))
    (directory / META_FILE).write_text(json.dumps({"env_steps": 0, "pruning": REPORT}))
    return directory


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[collections.Counter[str]]:
    """How often each pickle, and each connector's state, has been read since."""
    counts: collections.Counter[str] = collections.Counter()
    load, restore = pickle.load, Checkpointable.restore_from_path

    def counting_load(file: Any, *args: Any, **kwargs: Any) -> Any:
        counts[str(getattr(file, "name", "?"))] += 1
        return load(file, *args, **kwargs)

    def counting_restore(self: Any, path: Any, **kwargs: Any) -> Any:
        counts[str(path)] += 1
        return restore(self, path, **kwargs)

    monkeypatch.setattr(pickle, "load", counting_load)
    monkeypatch.setattr(Checkpointable, "restore_from_path", counting_restore)
    return counts


def test_a_summary_reads_each_file_of_both_policies_once(
    tmp_path: Path, read: collections.Counter[str]
) -> None:
    pruned, dense = checkpoint(tmp_path / "pruned", 0.5), checkpoint(tmp_path / "dense", 1.0)
    read.clear()
    progress = {"env_steps": 0, "updates": 0, "wall_time_s": 0.0, "best": "pruned"}
    summary = summarise_run(
        SummarySubject.of(FILTERED), pruned, progress, {"checkpoint": str(dense)}
    )
    assert summary["closeness"]["states"] > 0
    assert len(summary["returns"]["shifts"]) == 1
    for policy in (pruned, dense):
        found = {k: n for k, n in read.items() if k.startswith(str(policy))}
        assert any(name.endswith("module_state.pkl") for name in found)
        assert any(name.endswith("env_to_module_connector") for name in found)
        assert set(found.values()) == {1}, found


def test_an_export_reads_each_file_once(tmp_path: Path, read: collections.Counter[str]) -> None:
    policy = checkpoint(tmp_path / "policy", 0.5)
    read.clear()
    export_checkpoint(policy, ExportRequest(tmp_path / "policy.pt2", "torch", episodes=1))
    found = {k: n for k, n in read.items() if k.startswith(str(policy))}
    assert any(name.endswith("module_state.pkl") for name in found)
    assert set(found.values()) == {1}, found


def test_the_whole_policy_has_the_filters_of_the_one_that_acts(tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "policy", 0.5)
    alone = Evaluator(base_config(FILTERED), whole=True)
    alone.load_checkpoint(place)
    with OpenPolicy(base_config(FILTERED), place) as policy:
        acting, whole = policy.evaluator, policy.whole
        given = [one.first_batch(3)["obs"].numpy() for one in (alone, acting, whole)]
    alone.close()
    assert np.array_equal(given[0], given[1])
    assert np.array_equal(given[0], given[2])
    assert not np.allclose(given[0], Evaluator(base_config(FILTERED)).first_batch(3)["obs"])
