"""`rayprune sweep --plan`: on a real Ray, on clusters that aren't there, and what it refuses."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from rayprune.errors import ResourceError
from rayprune.rllib.cluster import connect
from rayprune.rllib.cluster.resources import learner_gpus, resolve_gpus
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.search.planning import calibration
from rayprune.search.planning.nodes import parse_nodes
from rayprune.search.planning.placement import place, total
from rayprune.search.planning.sweep_plan import plan_sweep
from rayprune.search.sweep_spec import Sweep
from tests.command_line import rayprune, rayprune_here
from tests.rllib import experiments

pytestmark = pytest.mark.timeout(300)

SEARCH = {
    "population": 8,
    "space": {"pruning.sparsity": {"uniform": [0.3, 0.95]}},
    "interval": 400,
}


def raw(search: dict[str, Any] | None = None, **rllib: Any) -> dict[str, Any]:
    return {
        **experiments.PPO,
        "rllib": {**experiments.PPO["rllib"], **rllib},
        "search": {**SEARCH, **(search or {})},
    }


def counted(nodes: str, search: dict[str, Any] | None = None, **rllib: Any) -> tuple[int, dict]:
    """Return how many trials run at once on nodes that aren't there, and what each needs."""
    sweep = Sweep.of(raw(search, **rllib), Path())
    there = parse_nodes(nodes.split())
    config = resolve_gpus(
        build_config(sweep.experiment), learner_gpus(sweep.experiment.rllib), total(there)
    )
    found = place(config, sweep.search, sweep.trials, there)
    return found.at_once, total(found.bundles)


def test_learners_env_runners_and_fractions_of_gpus_all_count() -> None:
    no_gpu = {"num_gpus_per_learner": 0}
    # The trial's own process takes a CPU; with remote Learners, each of them as well.
    assert counted("1x4", learners=no_gpu) == (4, {"CPU": 1})
    runners = {"num_env_runners": 2, "num_cpus_per_env_runner": 1}
    assert counted("2x4", learners=no_gpu, env_runners=runners) == (2, {"CPU": 3})
    two = {"num_learners": 2, "num_gpus_per_learner": 0.25}
    assert counted("1x8+1", learners=two) == (2, {"CPU": 1, "GPU": 0.5})
    # `auto` is a GPU a Learner where the planned cluster has them, whatever this machine has.
    assert counted("1x8+2") == (2, {"CPU": 1, "GPU": 1})
    assert counted("1x8") == (8, {"CPU": 1})
    assert counted("100x16+1", {"population": 1000}) == (100, {"CPU": 1, "GPU": 1})
    assert counted("1x8", {"resources": {"cpu": 3}}, learners=no_gpu) == (2, {"CPU": 3})


def test_what_the_planned_cluster_cannot_hold_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"asks for 1 GPUs .* has 0"):
        counted("4x8", learners={"num_gpus_per_learner": 1})
    with pytest.raises(ResourceError, match=r"8 CPU on 2 node\(s\), so that none fits"):
        counted("2x4", {"resources": {"cpu": 6}}, learners={"num_gpus_per_learner": 0})


@pytest.mark.usefixtures("ray_session")
def test_a_plan_times_a_real_trial_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibration, "LEAST_S", 0.5)
    plan = plan_sweep(raw(), address=None, nodes=None)
    assert (plan["trial"], plan["at_once"], plan["rounds"]) == ({"CPU": 1}, 4, 2)
    measured = plan["calibration"]
    assert measured["env_steps"] >= 400
    assert all(
        measured[name] > 0 for name in ("start_s", "step_s", "evaluation_s", "save_s", "restore_s")
    )
    # CartPole's episodes end at 500 steps, and an untrained policy's long before.
    assert measured["longest_evaluation_s"] > 2 * measured["evaluation_s"]
    least, most = plan["estimate_s"]["sweep"]
    assert 2 * plan["estimate_s"]["trial"][0] == pytest.approx(least)
    assert 1200 * measured["step_s"] < least < most
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 120
    while ray.available_resources().get("CPU") != 4:
        assert time.monotonic() < deadline, "the calibration keeps its resources"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_cluster_that_is_not_there_is_counted_and_the_time_measured_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "LEAST_S", 0.2)
    big = plan_sweep(raw(), address=None, nodes=parse_nodes(["100x16"]))
    assert (big["at_once"], big["nodes"], big["cluster"]) == (8, 100, {"CPU": 1600})
    assert big["calibration"] is not None
    gpus = raw(learners={"num_gpus_per_learner": 1})
    unknown = plan_sweep(gpus, address=None, nodes=parse_nodes(["2x8+4"]))
    assert (unknown["at_once"], unknown["estimate_s"]) == (8, None)
    assert "asks for 1 GPUs" in unknown["uncalibrated"]


def test_wrong_plans_are_refused_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(json.dumps(raw()))
    monkeypatch.setattr(connect, "ray", None)  # which it asks first of all
    assert "100x16" in rayprune_here("sweep", config, "--plan", "--nodes", "many", code=2)[1]
    assert "with --plan" in rayprune_here("sweep", config, "--nodes", "2x4", code=2)[1]
    assert "drop either" in rayprune_here("sweep", config, "--plan", "--resume", code=2)[1]


@pytest.mark.slow  # three processes that import Ray
def test_the_command_prints_one_object_and_writes_nothing(tmp_path: Path) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(json.dumps(raw()))
    out, err = rayprune("sweep", config, "--plan", "--json", "--address", "local")
    plan = json.loads(out)
    assert plan["at_once"] >= 1
    assert plan["estimate_s"]["sweep"][0] > 0
    assert err == ""
    assert list(tmp_path.iterdir()) == [config]
    impossible = ["--set", "rllib.learners.num_gpus_per_learner=9", "--address", "local"]
    _, err = rayprune("sweep", config, "--plan", *impossible, code=2)
    assert "asks for 9 GPUs" in err
