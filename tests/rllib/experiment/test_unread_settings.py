"""A setting that does nothing, or that breaks what a run promises, is refused with the way out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from rayprune import PruningConfig
from rayprune.algorithms import ALGORITHMS
from rayprune.deploy.export.export import ExportRequest
from rayprune.errors import ConfigError, InputError
from rayprune.rllib import prune
from rayprune.rllib.algorithms import families
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.rllib.environments.normalising_wrappers import running_wrappers
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config, build_module
from rayprune.rllib.experiment.experiment_checks import experiment_parts_faults
from rayprune.rllib.experiment.rllib_checks import parameters_of, rllib_faults
from rayprune.rllib.experiment.schedule_values import SCHEDULED, schedule_faults
from rayprune.rllib.experiment.unread_settings import UNREAD_BY_ALL, unread, unread_by
from rayprune.rllib.export.exportable import export_limits
from rayprune.rllib.export.policy import deployable
from tests.rllib import experiments


def block_faults(algorithm: str, **blocks: Any) -> list[str]:
    return rllib_faults({"algorithm": algorithm, "rllib": blocks})


@pytest.mark.parametrize(
    ("algorithm", "method", "key", "value"),
    [
        ("PPO", "training", "model", {"fcnet_hiddens": [8]}),
        ("SAC", "training", "q_model_config", {"fcnet_hiddens": [8]}),
        ("DQN", "training", "noisy", True),
        ("DQN", "training", "minibatch_size", 8),
        ("APPO", "training", "momentum", 0.1),
        ("PPO", "env_runners", "preprocessor_pref", None),
        ("PPO", "env_runners", "compress_observations", True),
        ("PPO", "env_runners", "sample_collector", "x"),
        ("IMPALA", "environment", "clip_rewards", True),
        ("PPO", "offline_data", "input_", "data"),
        ("CQL", "training", "lagrangian", True),
        ("TQC", "training", "twin_q", True),
        ("IQL", "training", "lr", 0.1),
        ("MARWIL", "training", "burnin_len", 3),
    ],
)
def test_a_setting_that_nothing_reads_is_refused_with_the_way_out(
    algorithm: str, method: str, key: str, value: Any
) -> None:
    (fault, *_) = block_faults(algorithm, **{method: {key: value}})
    assert fault.startswith(f"`rllib.{method}.{key}` does nothing with {algorithm}: ")
    assert fault.endswith((".", "out."))


@pytest.mark.parametrize(
    ("algorithm", "method", "key", "value"),
    [
        ("PPO", "training", "minibatch_size", 64),
        ("DQN", "training", "epsilon", [[0, 1.0], [100, 0.1]]),
        ("PPO", "environment", "clip_actions", True),
        ("BC", "offline_data", "dataset_num_iters_per_learner", 3),
        ("APPO", "learners", "num_aggregator_actors_per_learner", 1),
    ],
)
def test_what_one_algorithm_ignores_another_may_read(
    algorithm: str, method: str, key: str, value: Any
) -> None:
    assert not [x for x in block_faults(algorithm, **{method: {key: value}}) if key in x]


def test_each_row_of_the_table_is_a_setting_of_its_algorithms() -> None:
    for family in families():
        for row in (*UNREAD_BY_ALL, *unread_by(family)):
            assert row.instead.endswith(".")
            known = parameters_of(type(family.config()), row.method)
            missing = [key for key in row.keys if key not in known]
            # Some rows name keys that only some of their algorithms have.
            apart = family.name in {"APPO", "IMPALA", "BC"} and row not in UNREAD_BY_ALL
            assert apart or not missing, (row.method, family.name, missing)


def test_what_the_table_lists_is_not_a_schedule_nor_a_resource() -> None:
    read = ["lr", "train_batch_size_per_learner", "grad_clip", "num_learners", "num_env_runners"]
    for name in ALGORITHMS:
        for method in ("training", "env_runners", "learners"):
            # IQL has a learning rate for each of its nets.
            asked = [key for key in read if (key, name) != ("lr", "IQL")]
            assert [key for key in asked if unread(method, key, name)] == []


@pytest.mark.parametrize("key", sorted(SCHEDULED))
def test_whatever_rllib_schedules_may_be_a_schedule(key: str) -> None:
    assert list(schedule_faults(key, key, [[0, 0.1], [100, 0.0]])) == []
    assert list(schedule_faults(key, key, 0.1)) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0, 0.1]], "two or more pairs"),
        ([[0, 0.1], [100]], "two or more pairs"),
        ([[0, "x"], [100, 0.0]], "two or more pairs"),
        ([[0, True], [100, 0.0]], "two or more pairs"),
        ([[5, 0.1], [100, 0.0]], "steps must rise from 0, but they are [5, 100]"),
        ([[0, 0.1], [100, 0.0], [100, 0.2]], "steps must rise from 0"),
        ([[0, 0.1], [100, float("nan")]], "must be at least 0"),
        ([[0, 0.1], [100, -1.0]], "must be at least 0, but is -1.0"),
        ({"0": 0.1}, "must be a number, or a schedule"),
        (True, "must be a number, or a schedule"),
    ],
)
def test_a_schedule_of_the_wrong_form_says_what_is_wrong(value: Any, message: str) -> None:
    assert message in " ".join(schedule_faults("rllib.training.lr", "lr", value))


def test_an_entropy_schedule_reaches_rllib() -> None:
    raw = copy.deepcopy(experiments.PPO)
    raw["rllib"]["training"]["entropy_coeff"] = [[0, 0.1], [100, 0.0]]
    assert experiment_parts_faults(raw) == []
    config = base_config(experiments.experiment(raw))
    assert config.entropy_coeff == [[0, 0.1], [100, 0.0]]


class Normed(gym.Wrapper[Any, Any, Any, Any]):
    """A user's own wrapper with gymnasium's kind of statistics."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.rms = gym.wrappers.utils.RunningMeanStd(shape=(4,))


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (gym.wrappers.NormalizeObservation, "NormalizeObservation"),
        (gym.wrappers.NormalizeReward, "NormalizeReward"),
        (Normed, "Normed"),
        (lambda env: gym.wrappers.TimeAwareObservation(Normed(env)), "Normed"),
        (gym.wrappers.RecordEpisodeStatistics, None),
        (lambda env: gym.wrappers.FrameStackObservation(env, 2), None),
    ],
)
def test_wrappers_with_running_statistics_are_found_wherever_they_are(
    wrap: Any, name: str | None
) -> None:
    env = wrap(gym.make("CartPole-v1"))
    assert [type(layer).__name__ for layer in running_wrappers(env)] == ([name] if name else [])


@pytest.mark.parametrize(
    "wrap", [gym.wrappers.vector.NormalizeObservation, gym.wrappers.vector.NormalizeReward]
)
def test_vector_wrappers_and_what_lies_under_a_vector_are_found(wrap: Any) -> None:
    inside = gym.vector.SyncVectorEnv(
        [lambda: gym.wrappers.NormalizeReward(gym.make("CartPole-v1"))]
    )
    found = [type(layer) for layer in running_wrappers(wrap(inside))]
    assert found == [wrap, gym.wrappers.NormalizeReward]


def test_environments_of_any_make_are_looked_through() -> None:
    class Slotted:
        __slots__ = ("env",)

    class Own:
        pass

    own: Any = Own()
    own.env = own
    several: Any = Own()
    several.envs = {"a": own}
    assert [list(running_wrappers(env)) for env in (Slotted(), own, several, None)] == [[]] * 4


def test_a_wrapper_whose_statistics_stand_still_does_no_harm() -> None:
    env = gym.wrappers.NormalizeObservation(gym.make("CartPole-v1"))
    env.update_running_mean = False
    assert list(running_wrappers(env)) == []


def test_an_environment_that_normalises_for_itself_is_refused_before_a_run() -> None:
    gym.register(
        "Normed-CartPole-v0", lambda: gym.wrappers.NormalizeObservation(gym.make("CartPole-v1"))
    )
    try:
        (fault,) = experiment_parts_faults({**experiments.PPO, "env": "Normed-CartPole-v0"})
    finally:
        del gym.registry["Normed-CartPole-v0"]
    assert "has NormalizeObservation around it" in fault
    assert "observation_filter: MeanStdFilter" in fault


@pytest.mark.usefixtures("ray_session")
def test_python_users_are_told_at_build_with_what_to_call_instead() -> None:
    def both(_: Any) -> gym.Env[Any, Any]:
        return gym.wrappers.NormalizeReward(
            gym.wrappers.NormalizeObservation(gym.make("CartPole-v1"))
        )

    register_env("rayprune-both", both)
    config = PPOConfig().environment("rayprune-both").env_runners(num_env_runners=0)
    with pytest.raises(ConfigError) as caught:
        prune(config, PruningConfig(sparsity=0.5, horizon=1000)).build_algo()
    rewards, observations = caught.value.faults
    assert "has NormalizeReward around it" in rewards
    assert rewards.endswith("normalise(config, observations=False, rewards=True)` first.")
    assert "`env` 'rayprune-both' has NormalizeObservation around it" in observations
    assert observations.endswith("observation_filter='MeanStdFilter')` first.")


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
@pytest.mark.parametrize("heads", [[], [8]])
def test_a_policy_without_hidden_layers_is_built_as_it_says(
    algorithm: str, heads: list[int]
) -> None:
    base = experiments.PPO if algorithm == "PPO" else experiments.DQN
    raw = copy.deepcopy(base)
    raw["rllib"]["rl_module"]["model_config"] = {
        "fcnet_hiddens": [],
        "head_fcnet_hiddens": heads,
    }
    assert experiment_parts_faults(raw) == []
    module = build_module(base_config(experiments.experiment(raw)))
    shapes = [tuple(p.shape) for name, p in module.named_parameters() if p.dim() == 2]
    assert all(shape[1] in (4, *heads) for shape in shapes)
    assert len([shape for shape in shapes if shape[1] == 4]) == 2


def test_units_of_a_policy_without_hidden_layers_cant_be_pruned() -> None:
    raw = copy.deepcopy(experiments.PPO)
    raw["rllib"]["rl_module"]["model_config"] = {"fcnet_hiddens": [], "head_fcnet_hiddens": []}
    (fault,) = experiment_parts_faults(
        {**raw, "pruning": {"sparsity": 0.5, "granularity": "neuron"}}
    )
    assert "add a hidden layer" in fault


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "block",
    [
        {"model_config": {"fcnet_hiddens": [], "head_fcnet_hiddens": []}},
        {
            "module_class": "rayprune.rllib.models:PrunableMLP",
            "model_config": {"policy_hiddens": [], "value_hiddens": []},
        },
    ],
    ids=["rllib", "prunable_mlp"],
)
def test_a_linear_policy_trains_to_its_sparsity_and_is_exported(
    block: dict[str, Any], tmp_path: Path
) -> None:
    raw = copy.deepcopy(experiments.PPO)
    raw["rllib"]["rl_module"] = block
    what = experiments.experiment(
        {**raw, "pruning": {"sparsity": 0.5, "schedule": {"kind": "one_shot", "begin": 0.4}}},
        stop={"env_steps": 400},
        evaluation={"every": None, "episodes": 2},
    )
    summary = experiments.train(what, tmp_path / "run")
    assert summary["sparsity"]["prunable"] == pytest.approx(0.5)
    certificate = export_checkpoint(
        tmp_path / "run", ExportRequest(tmp_path / "linear.onnx", "onnx")
    )
    assert certificate["parameters"]["total"] == 10


def test_a_connector_of_the_users_own_stands_before_ours_and_exports_name_it() -> None:
    raw = copy.deepcopy(experiments.PPO)
    raw["rllib"]["env_runners"].update(
        env_to_module_connector="tests.doubles.my_connectors:make",
        observation_filter="MeanStdFilter",
    )
    assert experiment_parts_faults(raw) == []
    evaluator = Evaluator(base_config(experiments.experiment(raw)))
    try:
        names = [type(piece).__name__ for piece in evaluator.connectors[0]]
        assert names[:2] == ["Half", "ObservationFilter"]
        assert len(evaluator.returns(0, 2)) == 2
        with pytest.raises(InputError, match="can't be exported: Half"):
            deployable(evaluator)
    finally:
        evaluator.close()
    # What `train` and `sweep` say when they start.
    (limit,) = export_limits(evaluator.config)
    assert limit.startswith("This policy can be trained, but not exported: Connectors that can't")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere:make", "can't be imported: ModuleNotFoundError"),
        ("tests.doubles.my_connectors:nothing", "can't be imported: AttributeError"),
        ("tests.doubles.my_connectors:np", "must be a function"),
        (3, "must name a function"),
        ("make", "must name a function"),
    ],
)
def test_a_connector_that_cant_be_made_is_named(value: Any, message: str) -> None:
    (fault,) = block_faults("PPO", env_runners={"env_to_module_connector": value})
    assert message in fault
