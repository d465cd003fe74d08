"""benchmarks/training_speed.py: what it compares is alike, and what it judges is judged right."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

import rayprune.envs  # noqa: F401 - registers them

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_speed.py"
NEEDS = {"Hopper": "mujoco", "MinBreakout": "minatar"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("training_speed")


def parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "name", ["ppo_cartpole", "ppo_minatar", "sac_pendulum", "sac_pendulum_wide"]
)
def test_stable_baselines_nets_have_as_many_parameters_as_rllibs(script: Any, name: str) -> None:
    pytest.importorskip("stable_baselines3")
    sb3 = importlib.import_module("speed_parts.sb3")
    work = script.WORKS[name]
    for env, package in NEEDS.items():
        if env in work.env:
            pytest.importorskip(package)
    config = script.rllib_config(work)
    spaces = SingleAgentEnvRunner(config=config, worker_index=0).get_spaces()
    module = config.get_rl_module_spec(spaces=spaces, inference_only=False).build()
    policy = sb3.model_of(work).policy
    parts = [policy.actor, policy.critic] if work.replays else [policy]
    assert sum(map(parameters, parts)) == parameters(module)


def test_a_work_is_judged_by_the_targets_of_what_was_pruned(script: Any) -> None:
    work = replace(script.WORKS["dqn_cartpole"], steps=10)
    times = {
        "rllib": [1.0, 1.0, 1.0],
        "rllib again": [1.0, 1.1, 0.9],
        "sparse": [0.2, 0.3, 0.1],
        "small": [0.2, 0.3, 0.1],
        "unlean": [0.9, 0.9, 0.9],
        "sb3": [0.2, 0.2, 0.2],
    }
    found = {one.name: script.verdict(one) for one in script.ratios(times, work)}
    assert found == {
        "rllib again / rllib": "A/A control",
        "sparse / rllib": "target 0.20: met",
        "sparse / sb3": "target 1.20: met",
        "small / rllib": "target 0.15: MISSED",
        "small / sb3": "target 0.80: MISSED",
        "unlean / rllib": "",
        "unlean / sb3": "",
    }


def test_an_arm_that_is_not_pruned_as_it_says_is_not_measured(script: Any) -> None:
    held = {"total": 100, "held": 90}
    script.check_pruned("sparse", {"sparsity": 0.899, "parameters": held})
    with pytest.raises(SystemExit, match=r"sparse is 0\.500 sparse"):
        script.check_pruned("sparse", {"sparsity": 0.5, "parameters": held})
    with pytest.raises(SystemExit, match="did not shrink"):
        script.check_pruned("small", {"sparsity": 0.75, "parameters": held})
