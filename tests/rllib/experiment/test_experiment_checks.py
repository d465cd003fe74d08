"""Every fault of an experiment is found before it starts, and all of them together."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from rayprune.errors import ConfigError, ResourceError
from rayprune.pruning import config as pruning_config
from rayprune.rllib.cluster import resources
from rayprune.rllib.experiment.algorithm_config import base_config, build_config, build_module
from rayprune.rllib.experiment.experiment_checks import load_checked
from rayprune.rllib.experiment.rllib_checks import env_faults
from rayprune.rllib.settings.keys import CONFIG_KEY
from tests.rllib import configs, experiments


class Mute(gym.Env[Any, Any]):
    """Can't be made, and doesn't say why."""

    def __init__(self, way: str) -> None:
        if way == "exit":
            sys.exit(0)
        raise AssertionError


gym.register("Mute-v0", entry_point=Mute)
MUTE = f"{__name__}:Mute-v0"


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "experiment.yaml"
    # JSON is YAML too, but for NaN.
    path.write_text(json.dumps({**experiments.PPO, **changes}).replace("NaN", ".nan"))
    return path


def faults_of(tmp_path: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_checked(write(tmp_path, **changes))
    return str(caught.value)


def test_an_environment_s_module_may_lie_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registering = "import gymnasium\ngymnasium.register('Here-v0', 'envs_right_here:Here')\n"
    (tmp_path / "envs_right_here.py").write_text(registering)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert env_faults("envs_right_here:Here-v0") == []
    del gym.registry["Here-v0"]


def rllib(**blocks: Any) -> dict[str, Any]:
    return {**experiments.PPO["rllib"], **blocks}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "CartPool-v1"}, "`env` 'CartPool-v1' is unknown"),
        ({"env": "no_such_module:Env-v0"}, "can't be imported"),
        (
            {"env": MUTE, "env_config": {"way": "assert"}},
            "{'way': 'assert'}: AssertionError at test_",
        ),
        (
            {"env": MUTE, "env_config": {"way": "exit"}},
            "{'way': 'exit'}: SystemExit: 0 (test_experiment_checks.py",
        ),
        ({"rllib": rllib(trainning={"lr": 1e-3})}, "Did you mean 'training'"),
        ({"rllib": rllib(training={"learning_rate": 1e-3})}, "`rllib.training.learning_rate`"),
        (
            {"rllib": rllib(training={"lr": "fast"})},
            "`rllib.training.lr` must be a number, or a schedule",
        ),
        ({"rllib": rllib(env_runners={"num_env_runners": 1.5})}, "num_env_runners"),
        ({"rllib": rllib(environment={"env": "CartPole-v1"})}, "contradicts rayprune's own `env`"),
        ({"rllib": rllib(debugging={"seed": 1})}, "contradicts rayprune's own `seed`"),
        ({"rllib": rllib(learners={"learner_class": "x"})}, "contradicts rayprune's own `pruning`"),
        ({"rllib": rllib(evaluation={})}, "contradicts rayprune's own `evaluation`"),
        (
            {"rllib": rllib(rl_module={"model_config": {"fcnet_hidens": [8]}})},
            "Did you mean 'fcnet_hiddens'",
        ),
        (
            {"rllib": rllib(rl_module={"model_config": {"fcnet_hiddens": "big"}})},
            "`rllib.rl_module.model_config.fcnet_hiddens` must be of type",
        ),
        (
            {"rllib": rllib(rl_module={"model_config": {"head_fcnet_hiddens": [8, 0]}})},
            "`rllib.rl_module.model_config.head_fcnet_hiddens` must hold widths of at least 1",
        ),
        (
            {"rllib": rllib(rl_module={"model_config": {"fcnet_hiddens": ["64"]}})},
            "`rllib.rl_module.model_config.fcnet_hiddens` must be of type List[int], but is ['64']",
        ),
        (
            {"rllib": rllib(training={"num_epochs": "3"})},
            "`rllib.training.num_epochs` must be of type Optional[int], but is '3'",
        ),
        (
            {"rllib": rllib(training={"gamma": math.nan})},
            "`rllib.training.gamma` must be a number, but is nan",
        ),
        (
            {"stop": {"env_steps": math.nan}, "pruning": {"recipe": "recommended"}},
            "`stop.env_steps` must be an integer, but is nan",
        ),
        (
            {"pruning": {"recipe": "recommended", "sparsity": 0.5, "schedule": {"kind": ["rigl"]}}},
            "`pruning.schedule.kind` must be one of",
        ),
        ({"rllib": rllib(rl_module={"module_class": "nowhere:Net"})}, "can't be imported"),
        ({"rllib": rllib(training={"lr": -1.0})}, "`rllib.training.lr` must be at least 0"),
        ({"rllib": rllib(learners={"num_learners": -1})}, "must be at least 0, but is -1"),
        (
            {"pruning": {"sparsity": 0.5, "schedule": {"begin": 700, "end": 0.5}}},
            "`pruning.schedule",
        ),
        ({"start_from": "tests"}, "`start_from`: 'tests' is no checkpoint"),
        ({"rllib": rllib(training={"minibatch_size": 10_000})}, "RLlib refuses it"),
        (
            {"pruning": {"sparsity": 0.95, "protect": ["encoder.*"]}},
            "at most",
        ),
        ({"pruning": {"sparsity": 0.5, "protect": ["encodr*"]}}, "`pruning.protect"),
        (
            {"pruning": {"sparsity": 0.5, "distribution": {"pi.net.mlp.9": 0.5}}},
            "`pruning.distribution",
        ),
    ],
)
def test_a_fault_names_the_field_and_the_way_out(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert message in faults_of(tmp_path, **changes)


def test_faults_of_all_parts_come_together(tmp_path: Path) -> None:
    text = faults_of(
        tmp_path,
        env="CartPool-v1",
        pruning={"sparsity": 1.0, "criterion": "fischer"},
        stop={"env_steps": -5},
        rllib=rllib(training={"lr": "fast"}),
    )
    for part in ("`env`", "`pruning.sparsity`", "`pruning.criterion`", "`stop.env_steps`"):
        assert part in text
    assert "`rllib.training.lr`" in text


def test_faults_elsewhere_do_not_hide_what_the_network_cant_take(tmp_path: Path) -> None:
    pruning = {"sparsity": 0.999, "protect": ["*encoder*"]}
    text = faults_of(tmp_path, pruning=pruning, stop={"env_steps": -5}, sede=3)
    assert "`stop.env_steps`" in text
    assert "Did you mean 'seed'" in text
    assert "at most" in text


def test_an_environment_that_the_algorithm_cant_take_is_refused(tmp_path: Path) -> None:
    text = faults_of(tmp_path, **{**experiments.DQN, "env": "Pendulum-v1"})
    assert "`DQN` can't be built for `env` 'Pendulum-v1'" in text
    assert "needs actions in a Discrete space" in text


def test_an_environment_that_is_not_installed_says_which_extra_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [n for n in sys.modules if n.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    text = faults_of(tmp_path, env="LunarLander-v3")
    assert "Box2D is not installed" in text
    assert "rayprune[box2d]" in text
    assert "the image of its nodes" in text


def test_the_largest_feasible_sparsity_is_the_one_that_is_then_accepted(tmp_path: Path) -> None:
    # 16*4 + 16*16 of each encoder are protected, 2*16 and 1*16 of the heads are free.
    text = faults_of(tmp_path, pruning={"sparsity": 0.5, "protect": ["encoder.*"]})
    largest = text.split("at most ")[1].split(" ")[0]
    assert float(largest) == pytest.approx(48 / (2 * (64 + 256) + 48), abs=1e-3)
    assert load_checked(
        write(tmp_path, pruning={"sparsity": float(largest) - 0.01, "protect": ["encoder.*"]})
    )


def test_the_yaml_reaches_rllib_and_the_learner(tmp_path: Path) -> None:
    config = build_config(load_checked(write(tmp_path)))
    assert config.train_batch_size_per_learner == 200
    assert config.seed == 3
    held = config.learner_config_dict[CONFIG_KEY]
    assert (held["sparsity"], held["horizon"]) == (0.8, 1200)


def test_our_own_modules_are_chosen_by_class_path(tmp_path: Path) -> None:
    block = {
        "module_class": "rayprune.rllib.models:PrunableMLP",
        "model_config": {"policy_hiddens": [8], "value_hiddens": [32]},
    }
    module = build_module(base_config(load_checked(write(tmp_path, rllib=rllib(rl_module=block)))))
    widths = {name: p.shape[0] for name, p in module.named_parameters() if p.ndim == 2}
    assert 8 in widths.values()
    assert 32 in widths.values()


@pytest.mark.usefixtures("ray_session")
def test_a_request_that_the_cluster_cant_meet_says_what_is_there() -> None:
    config = configs.ppo().env_runners(num_env_runners=90)
    with pytest.raises(ResourceError, match=r"asks for 9\d CPUs .* cluster has 4"):
        resources.check_resources(config)


def test_a_driver_takes_no_cpu_of_the_cluster_where_learners_are_remote() -> None:
    config = configs.ppo().learners(num_learners=2).env_runners(num_env_runners=2)
    resources.check_resources(config, {"CPU": 4})
    with pytest.raises(ResourceError, match=r"asks for 4 CPUs .* cluster has 3"):
        resources.check_resources(config, {"CPU": 3})


def test_a_resource_of_the_clusters_own_that_no_node_has_is_told() -> None:
    config = configs.ppo().env_runners(custom_resources_per_env_runner={"fast": 0.5})
    config.env_runners(num_env_runners=3)
    resources.check_resources(config, {"CPU": 4, "fast": 1.5})
    told = "asks for 1.5 of the resource 'fast' .* cluster has 1.* `ray start --resources"
    with pytest.raises(ResourceError, match=told):
        resources.check_resources(config, {"CPU": 4, "fast": 1})


@pytest.mark.usefixtures("ray_session")
def test_auto_takes_no_gpu_where_there_is_none() -> None:
    config = resources.resolve_gpus(configs.ppo().learners(num_learners=2), "auto")
    assert config.num_gpus_per_learner == 0
    resources.check_resources(config)


def test_auto_takes_a_gpu_per_learner_where_there_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Stands for a cluster with GPUs: only Ray's answer is replaced.
    monkeypatch.setattr(resources.ray, "cluster_resources", lambda: {"GPU": 2.0, "CPU": 8.0})
    two = resources.resolve_gpus(configs.ppo().learners(num_learners=2), "auto")
    three = resources.resolve_gpus(configs.ppo().learners(num_learners=3), "auto")
    assert two.num_gpus_per_learner == 1
    assert three.num_gpus_per_learner == 0


def test_a_constructor_that_says_nothing_is_told_by_its_line(tmp_path: Path) -> None:
    gym.register("Mute-v0", entry_point=Mute)
    text = faults_of(tmp_path, env=f"{__name__}:Mute-v0")
    assert "AssertionError at test_experiment_checks.py:" in text
    assert "`raise AssertionError" in text


class Mute(gym.Env[Any, Any]):
    """Fails as an `assert` without a text does."""

    def __init__(self) -> None:
        raise AssertionError


def test_a_run_checks_its_pruning_block_once_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Any] = []
    check = pruning_config.faults_of

    def counted(values: object, *rest: Any) -> list[str]:
        checked.append(values)
        return check(values, *rest)

    monkeypatch.setattr(pruning_config, "faults_of", counted)
    build_config(load_checked(write(tmp_path, pruning={"sparsity": 0.5})))
    assert checked == [{"sparsity": 0.5}]
