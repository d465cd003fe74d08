"""Observations and actions of every kind of space: read right and done right, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tree
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import unsquash_action

from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.runs import module_run
from rayprune.errors import ConfigError
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.algorithms.family import has_own_module
from rayprune.rllib.commands.record import DATA_FILE, record_episodes
from rayprune.rllib.connectors.encoding import Encoding, measured, reads_as_it_is
from rayprune.rllib.connectors.observations import (
    EncodeEpisodes,
    connect,
    fitting,
    is_encoded,
    renumber,
)
from rayprune.rllib.environments.action_spaces import action_space_faults
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import build_module
from rayprune.rllib.experiment.network_checks import way_out
from rayprune.rllib.export.exportable import export_limits
from rayprune.rllib.export.policy import deployable
from rayprune.rllib.models import PrunableNatureCNN
from rayprune.rllib.modules.sensors import sensor_names
from tests.doubles.envs import OwnModule
from tests.doubles.exported import scramble
from tests.rllib import configs, experiments

INF = np.inf
VECTOR = Box(-1, 1, (3,), np.float32)
HALF = Box(np.float32([0, -1, -INF]), np.float32([INF, 1, 2]))
SHIFTED = Discrete(3, start=-1)
SHIFTED_SEVERAL = MultiDiscrete([3, 2], start=[5, -1])
CHW = Box(0, 255, (3, 10, 10), np.uint8)
NESTED = Tuple((Discrete(3, start=2), Dict(p=Box(0, 255, (2,), np.uint8), q=MultiBinary(2))))


def spaces(observation: gym.Space, action: gym.Space, config: Any = None) -> Any:
    """A config over random observations, whose environment takes no action but its own."""
    config = config or configs.ppo(fcnet_hiddens=[16, 16])
    kinds = {"observation_space": observation, "action_space": action}
    config.environment("rayprune-random", env_config=kinds)
    connect(config, raw=has_own_module(config))
    return config


@pytest.mark.parametrize(
    ("space", "observation", "expected"),
    [
        (Discrete(3), 1, [0, 1, 0]),
        (Discrete(3, start=-1), np.int64(1), [0, 0, 1]),
        (MultiDiscrete([2, 3], start=[1, -2]), np.array([2, -2]), [0, 1, 1, 0, 0]),
        (MultiDiscrete([[2, 2], [1, 2]]), np.array([[1, 0], [0, 1]]), [0, 1, 1, 0, 1, 0, 1]),
        (MultiBinary((2, 2)), np.array([[1, 0], [0, 1]], np.int8), [1, 0, 0, 1]),
        (Box(-5, 5, (2,), np.int32), np.array([-5, 3]), [-5, 3]),
        (Box(0, 255, (2,), np.uint8), np.array([255, 51], np.uint8), [1, 0.2]),
        (Box(0, 9, (2,), np.uint8), np.array([9, 0], np.uint8), [9, 0]),
        (Box(-1, 1, ()), np.float32(0.5), [0.5]),
        (Box(-1, 1, (2, 2)), np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
        (Box(-1e3, 1e3, (1,), np.float64), np.array([0.5]), [0.5]),
        (
            NESTED,
            (4, {"q": np.array([0, 1]), "p": np.array([0, 255], np.uint8)}),
            [0, 0, 1, 0, 1, 0, 1],
        ),
    ],
)
def test_an_observation_is_encoded_as_worked_by_hand(space, observation, expected):
    encoded = Encoding(space)(observation)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == np.float32(expected).tolist()
    assert Encoding(space).space.contains(encoded)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((42, 42, 3), (42, 42, 3)),
        ((10, 10, 10), (10, 10, 10)),
        ((3, 10, 10), (10, 10, 3)),
        ((16, 84, 84), (84, 84, 16)),
        ((3, 210, 160), (210, 160, 3)),
        ((4, 20, 3), (4, 20, 3)),
        ((4, 84, 84, 3), (84, 84, 12)),
        ((2, 3, 8, 9), (8, 9, 6)),
    ],
)
def test_an_images_channels_come_last_and_a_stack_of_images_is_one(shape, expected):
    space = Box(0, 1, shape, np.float32)
    assert Encoding(space).space.shape == expected
    assert reads_as_it_is(space) == (shape == expected)
    pixel = np.zeros(shape, np.float32)
    pixel[(1,) * len(shape)] = 1
    where = np.argwhere(Encoding(space)(pixel))[0].tolist()
    # Of a stack, the second frame's second channel.
    channels = expected[-1] // shape[0] if len(shape) == 4 else 0
    assert where == [1, 1, channels + 1]


def test_a_matrix_of_bytes_is_a_grey_image_unless_it_is_too_narrow_for_one():
    shapes = {(84, 84): (84, 84, 1), (10, 30): (10, 30, 1), (4, 128): (512,)}
    for given, expected in shapes.items():
        assert Encoding(Box(0, 255, given, np.uint8)).space.shape == expected
    assert Encoding(Box(0, 1, (84, 84), np.float32)).space.shape == (84 * 84,)


def test_what_has_no_fixed_size_is_refused_by_its_part():
    for leaf in (
        gym.spaces.Text(5),
        gym.spaces.Sequence(Discrete(3)),
        gym.spaces.Graph(VECTOR, None),
    ):
        with pytest.raises(ConfigError, match=r"`obs\.a\.1`.*TransformObservation"):
            Encoding(Dict(a=Tuple((VECTOR, leaf))))
    with pytest.raises(ConfigError, match="no vector, matrix, image"):
        Encoding(Box(0, 1, (2, 2, 2, 2, 2)))


def test_a_filter_can_tell_measurements_from_choices():
    assert measured(NESTED).tolist() == [False] * 3 + [True] * 2 + [False] * 2
    assert measured(CHW).shape == (10, 10, 3)


ACTIONS = {
    "discrete": SHIFTED,
    "several": SHIFTED_SEVERAL,
    "half-bounded": HALF,
    "bounded": Box(-2, 3, (2,), np.float32),
    "float64": Box(-0.1, 0.1, (2,), np.float64),
    "float16": Box(-0.1, 0.1, (2,), np.float16),
    "degenerate": Box(np.float32([-1, 2]), np.float32([1, 2])),
    "huge": Box(-3e38, 3e38, (2,), np.float32),
    "without axes": Box(-1, 1, (), np.float32),
    "nested": Dict(u=SHIFTED, v=Tuple((HALF, SHIFTED_SEVERAL))),
}


def module_action(space: gym.Space, draw: np.random.Generator) -> Any:
    """What a distribution over a space gives: choices from 0, any float."""
    if isinstance(space, Dict):
        return {key: module_action(inner, draw) for key, inner in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(module_action(inner, draw) for inner in space.spaces)
    if isinstance(space, Box):
        scale = 10.0 ** draw.integers(-2, 12)
        return (scale * draw.standard_normal(max(1, *space.shape, 1))).astype(np.float32)
    return renumber(space.sample(), space, by=-1)


@pytest.mark.parametrize("name", ACTIONS)
def test_whatever_a_module_gives_the_environment_gets_an_action_of_its_space(name):
    space, draw = ACTIONS[name], np.random.default_rng(0)
    fit = fitting(space, normalize=True, clip=False)
    for _ in range(200):
        given = module_action(space, draw)
        assert space.contains(fit(given)), (given, fit(given))


@pytest.mark.parametrize("space", [Box(-2, 3, (2,)), Box(-0.3, 0.1, (2,), np.float64)])
def test_what_has_two_bounds_is_mapped_to_them_as_rllib_does(space):
    fit, draw = fitting(space, normalize=True, clip=False), np.random.default_rng(0)
    for action in draw.normal(size=(50, 2)).astype(np.float32):
        assert np.array_equal(fit(action), unsquash_action(action, space))


def test_a_bound_on_one_side_clips_and_leaves_the_rest_alone():
    action = np.float32([-3, 0.5, -7])
    assert fitting(HALF, normalize=True, clip=False)(action).tolist() == [0, 0.5, -7]
    assert fitting(HALF, normalize=False, clip=True)(action).tolist() == [0, 0.5, -7]
    assert fitting(HALF, normalize=False, clip=False)(action).tolist() == action.tolist()


@pytest.mark.parametrize(
    ("space", "algorithm", "way_out"),
    [
        (MultiBinary(3), "PPO", "np.reshape(a, (3,)), MultiDiscrete([2] * 3)"),
        (
            Box(-3, 3, (2,), np.int32),
            "PPO",
            "np.reshape(a, (2,)).astype(np.int32), MultiDiscrete([7, 7], start=[-3, -3])",
        ),
        (Box(-1, 1, (1, 2)), "PPO", "np.reshape(a, (1, 2)), Box(np.array([-1.0, -1.0])"),
        (MultiDiscrete([[2, 3]]), "APPO", "np.reshape(a, (1, 2)), MultiDiscrete([2, 3]"),
        (Dict(a=VECTOR, b=gym.spaces.Text(3)), "PPO", "(part `b`)"),
        (HALF, "SAC", "with finite bounds"),
        (Box(-1, 1, ()), "CQL", "a Box of shape (1,)"),
    ],
)
def test_actions_that_cant_be_learned_are_refused_with_the_wrapper(space, algorithm, way_out):
    squashes = family_named(algorithm).squashes
    (fault,) = action_space_faults(space, algorithm, squashes=squashes)
    assert fault.startswith(f"`{algorithm}` can't learn actions of ")
    assert way_out in fault
    assert "\n" not in fault


@pytest.mark.parametrize("space", [MultiBinary(3), Box(-3, 3, (2,), np.int32), Box(-1, 1, (2, 2))])
def test_the_wrapper_that_is_named_makes_actions_that_the_environment_takes(space):
    (fault,) = action_space_faults(space, "PPO")
    call = fault.split("TransformAction(env, ")[1].removesuffix(")`.")
    names = {"np": np, "Box": Box, "MultiDiscrete": MultiDiscrete}
    change, instead = eval(f"({call})", names)  # what a user would paste
    assert not list(action_space_faults(instead, "PPO"))
    assert all(space.contains(change(instead.sample())) for _ in range(20))


def test_an_image_that_rllib_has_no_filters_for_is_refused_with_the_way_out():
    space = {"observation_space": Box(0, 255, (7, 9, 3), np.uint8), "action_space": SHIFTED}
    config = configs.ppo("rayprune-random").environment(env_config=space)
    connect(config, raw=False)
    with pytest.raises(ValueError, match="conv_filters") as caught:
        build_module(config)
    assert "model_config.conv_filters`, a [filters, kernel, stride]" in way_out(caught.value)


KINDS = {
    "discrete": (Discrete(5, start=3), SHIFTED),
    "several": (MultiDiscrete([[2, 3], [3, 2]]), SHIFTED_SEVERAL),
    "binary": (MultiBinary(4), HALF),
    "integers": (Box(-5, 5, (3,), np.int32), Box(-0.3, 0.1, (2,), np.float64)),
    "scalar": (Box(-1, 1, ()), Box(-1, 1, ())),
    "matrix": (Box(-1, 1, (2, 3)), Box(np.float32([-1, 2]), np.float32([1, 2]))),
    "channels first": (CHW, Box(-INF, INF, (2,), np.float32)),
    "stacked images": (Box(0, 255, (2, 10, 10, 3), np.uint8), Discrete(1)),
    "nested": (NESTED, MultiDiscrete([3])),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_exported_policy_takes_the_raw_observation_and_acts_as_in_rllib(name):
    space, actions = KINDS[name]
    evaluator = Evaluator(spaces(space, actions))
    scramble(evaluator.module, density=0.5)
    policy = deployable(evaluator)
    run, steps = module_run(plain_copy(policy)), list[Any]()
    evaluator.returns(100, 1, steps.append)  # its environment refuses what isn't an action
    evaluator.close()
    for acted in steps:
        observed = tree.map_structure(lambda *leaves: np.stack(leaves), *acted.observations)
        got = run(policy.interface.leaves(observed))[0]
        np.testing.assert_allclose(got, np.stack(acted.for_env), atol=2e-6, rtol=2e-6)
        kind = getattr(actions, "dtype", got.dtype)
        assert all(actions.contains(action.astype(kind)) for action in got)


def test_sensors_carry_the_numbers_of_their_space():
    assert sensor_names(Discrete(2, start=4), Box(0, 1, (2,)), [2]) == ["obs=4", "obs=5"]
    names = sensor_names(MultiDiscrete([[2], [1]], start=[[3], [-1]]), Box(0, 1, (3,)), [3])
    assert names == ["obs[0,0]=3", "obs[0,0]=4", "obs[1,0]=-1"]


def test_a_users_own_module_reads_observations_as_they_are():
    own = configs.ppo().rl_module(rl_module_spec=RLModuleSpec(module_class=OwnModule))
    ours = configs.ppo().rl_module(rl_module_spec=RLModuleSpec(module_class=PrunableNatureCNN))
    assert (has_own_module(own), has_own_module(ours), has_own_module(configs.ppo())) == (1, 0, 0)
    assert not is_encoded(CHW, raw=True)
    assert is_encoded(NESTED, raw=True)


def test_recorded_episodes_are_encoded_once_and_their_choices_counted_from_0():
    space = Discrete(3, start=5)
    raw, encoded = ([5, 7], np.eye(3, dtype=np.float32)[[0, 2]])
    connector = EncodeEpisodes(space, SHIFTED)
    for observations, numpyfied in ((raw, False), (list(encoded), False), (raw, True)):
        episode = SingleAgentEpisode(
            observations=list(observations), actions=[1], rewards=[0.0], len_lookback_buffer=0
        )
        connector(episodes=[episode.to_numpy() if numpyfied else episode], batch={})
        assert np.array_equal(episode.get_observations(), encoded)
        assert [int(action) for action in episode.get_actions()] == [2]
    module = EncodeEpisodes(space, SHIFTED, numbered=False)
    episode = SingleAgentEpisode(
        observations=list(raw), actions=[1], rewards=[0.0], len_lookback_buffer=0
    )
    module(episodes=[episode], batch={})
    assert episode.get_actions() == [1]


def test_the_space_of_recorded_data_is_the_environments_whatever_rllib_says():
    connector = EncodeEpisodes(Box(-5, 5, (3,), np.int32), VECTOR)
    # CQL tells its connectors of the vector environment's spaces.
    connector.input_observation_space = Box(-5, 5, (1, 3), np.int32)
    connector.input_action_space = Box(-1, 1, (1, 3))
    assert connector.observation_space.shape == (3,)
    episode = SingleAgentEpisode(
        observations=[[1, 2, 3]] * 2, actions=[np.zeros(3)], rewards=[0.0], len_lookback_buffer=0
    )
    connector(episodes=[episode], batch={})
    assert np.array_equal(episode.get_observations(), np.float32([[1, 2, 3]] * 2))


def test_what_trains_but_cant_be_exported_is_told_in_one_sentence():
    both = Tuple((Discrete(2), Discrete(3)))
    (limit,) = export_limits(spaces(VECTOR, both))
    assert limit.startswith("This policy can be trained, but not exported: Actions of Tuple(")
    assert export_limits(spaces(*KINDS["several"])) == []


class Strict(gym.Env):
    """Walks on a line; takes no action but its own, and earns what it moves."""

    observation_space, action_space = Discrete(5, start=2), SHIFTED

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self._place = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._place, self._steps = 4, 0
        return np.int64(self._place), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        before, self._place = self._place, int(np.clip(self._place + action, 2, 6))
        self._steps += 1
        return np.int64(self._place), float(self._place - before), self._steps == 10, False, {}


gym.register("RaypruneStrict-v0", entry_point=Strict)


@pytest.fixture(scope="module")
def walked(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run in an environment of choices, both of them numbered from elsewhere than 0."""
    base = {
        **experiments.PPO,
        "env": "tests.rllib.connectors.test_spaces:RaypruneStrict-v0",
        "pruning": {"sparsity": 0.4, "granularity": "input", "schedule": {"kind": "one_shot"}},
        "stop": {"env_steps": 600},
    }
    out = tmp_path_factory.mktemp("walked") / "run"
    return out, experiments.train(experiments.experiment(base), out)


def test_choices_are_learned_pruned_and_named_from_a_yaml(walked):
    _, summary = walked
    sensors = summary["sensors"]
    assert len(sensors["unplugged"]) == 2
    assert {*sensors["kept"], *sensors["unplugged"]} == {f"obs={n}" for n in range(2, 7)}


def test_recorded_choices_are_the_environments_and_are_cloned_from(walked, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out, _ = walked
    record_episodes(out, tmp_path / "data", episodes=12, seed=0, explore=True)
    rows = parquet.read_table(tmp_path / "data" / DATA_FILE).to_pylist()
    assert {row["obs"] for row in rows} <= set(range(2, 7))
    assert {row["actions"] for row in rows} == {-1, 0, 1}
    for row in rows:
        assert row["new_obs"] == np.clip(row["obs"] + row["actions"], 2, 6)
    base = {
        **experiments.PPO,
        "algorithm": "BC",
        "env": "tests.rllib.connectors.test_spaces:RaypruneStrict-v0",
        "rllib": {
            "training": {"train_batch_size_per_learner": 64, "minibatch_size": 64},
            "offline_data": {
                "input_": [str(tmp_path / "data")],
                "dataset_num_iters_per_learner": 5,
                "map_batches_kwargs": {"concurrency": 1, "num_cpus": 0},
            },
            "rl_module": {"model_config": {"fcnet_hiddens": [16, 16]}},
        },
        "pruning": {"sparsity": 0.5, "schedule": {"kind": "one_shot", "begin": 0.5}},
        "stop": {"updates": 5},
        "evaluation": {"every": None, "episodes": 2},
    }
    summary = experiments.train(experiments.experiment(base), tmp_path / "cloned")
    assert summary["updates"] >= 5


def test_a_replay_buffer_holds_what_the_network_reads():
    algo = configs.build(spaces(Discrete(5, start=3), SHIFTED, configs.dqn()))
    try:
        algo.train()
        (episode, *_) = algo.local_replay_buffer.episodes
        observations = episode.get_observations()
        assert observations.shape[1:] == (5,)
        assert np.array_equal(observations.sum(axis=1), np.ones(len(observations)))
        assert set(np.asarray(episode.get_actions()).tolist()) <= {0, 1, 2}
    finally:
        algo.stop()
