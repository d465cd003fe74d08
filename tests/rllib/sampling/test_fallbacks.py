"""What is left to RLlib's own EnvRunner, and why; what users' callbacks and environments see."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
    BatchIndividualItems,
    NumpyToTensor,
    TensorToNumpy,
)
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.connectors.module_to_env import (
    GetActions,
    ListifyDataForVectorEnv,
    NormalizeAndClipActions,
    UnBatchToIndividualItems,
)
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rayprune.errors import EnvError
from rayprune.rllib import prune
from rayprune.rllib.connectors.observations import KeepObservations
from rayprune.rllib.environments.guard import odd_observation_of
from rayprune.rllib.sampling import to_module
from rayprune.rllib.sampling.env_runner import LeanEnvRunner
from tests.doubles.envs import OwnModule
from tests.rllib import configs
from tests.rllib.sampling.runners import same
from tests.rllib.sampling.test_env_runner import Ends, of

SEEN: list[Any] = []


class Watching(RLlibCallback):
    """Notes what it sees of episodes, and writes into them."""

    def on_episode_created(self, *, episode: Any, env_index: int, **_: Any) -> None:
        SEEN.append(("created", env_index, len(episode)))

    def on_episode_start(self, *, episode: Any, env_index: int, **_: Any) -> None:
        episode.custom_data["began"] = len(SEEN)
        SEEN.append(("start", env_index, episode.get_observations(-1).tolist()))

    def on_episode_end(
        self, *, episode: Any, prev_episode_chunks: Any, metrics_logger: Any, **_: Any
    ) -> None:
        assert not episode.is_numpy
        held = [*prev_episode_chunks, episode]
        metrics_logger.log_value("ends", sum(map(len, held)), window=3)
        SEEN.append(("end", episode.get_return(), dict(episode.custom_data), episode.get_infos(-1)))


class Stepping(RLlibCallback):
    def on_episode_step(self, *, episode: Any, **_: Any) -> None:
        SEEN.append(len(episode))


class Breaking(Ends):
    """Its third step of all fails, once."""

    steps_of_all = 0

    def step(self, action: Any) -> Any:
        Breaking.steps_of_all += 1
        if Breaking.steps_of_all == 3:
            raise RuntimeError("broken")
        return super().step(action)


class Odd(Ends):
    """Its second step ends in no number."""

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return (observation * np.nan if self.steps == 2 else observation), *rest


class OddAtTheEnd(Ends):
    """Its episodes end in no number."""

    def step(self, action: Any) -> Any:
        observation, reward, *ends, infos = super().step(action)
        return (observation * np.nan if any(ends) else observation), reward, *ends, infos


def runner_of(config: Any) -> Any:
    return (config.env_runner_cls or SingleAgentEnvRunner)(config=config, worker_index=0)


def test_callbacks_see_episodes_begin_and_end_as_ever() -> None:
    seen = []

    def make() -> Any:
        seen.append(list(SEEN))
        SEEN.clear()
        return of(configs.ppo(Ends).callbacks(Watching), rollout_fragment_length=6)

    runner = same(make)
    assert not runner._acting.reason
    # Of RLlib's, after which ours was made.
    assert seen[1] == SEEN
    assert {kind for kind, *_ in SEEN} == {"created", "start", "end"}


def test_a_callback_that_was_made_by_a_function_may_watch_too() -> None:
    def note(*, episode: Any, **_: Any) -> None:
        SEEN.append(episode.get_return())

    def make() -> Any:
        return of(configs.ppo(Ends).callbacks(on_episode_end=note), rollout_fragment_length=9)

    SEEN.clear()
    assert not same(make)._acting.reason
    assert SEEN[: len(SEEN) // 2] == SEEN[len(SEEN) // 2 :] != []


def test_environments_that_are_made_anew_when_one_fails() -> None:
    def make() -> Any:
        Breaking.steps_of_all = 0
        config = of(configs.ppo(Breaking), rollout_fragment_length=7, num_envs_per_env_runner=1)
        return config.fault_tolerance(restart_failed_sub_environments=True)

    same(make)
    assert Breaking.steps_of_all > 3  # it failed, and went on


def test_an_environment_that_fails_says_so() -> None:
    Breaking.steps_of_all = 0
    with pytest.raises(EnvError, match=r"Breaking.*failed at step 3.*broken"):
        runner_of(of(configs.ppo(Breaking), num_envs_per_env_runner=1)).sample()


def test_an_observation_that_is_no_number_is_told() -> None:
    runner = runner_of(of(configs.ppo(Odd), num_envs_per_env_runner=1))
    runner.sample(num_timesteps=1)
    assert odd_observation_of(runner) is None
    # A module that can't act on it raises in the step after.
    with pytest.raises(EnvError, match="gave nan in an observation, after 2 steps"):
        runner.sample(num_timesteps=3)


def test_an_episode_that_ended_in_no_number_is_told_of_though_it_is_lost() -> None:
    runner = runner_of(of(configs.ppo(OddAtTheEnd), num_envs_per_env_runner=1))
    with pytest.raises(EnvError, match="gave nan in an observation, after 4 steps"):
        runner.sample(num_timesteps=9)


def test_samples_are_known_to_be_finite_unless_they_begin_with_a_reset() -> None:
    runner = runner_of(of(configs.ppo(Ends)))
    runner.sample(num_timesteps=4)
    assert not runner.sampled_finite
    runner.sample(num_timesteps=4)
    assert runner.sampled_finite


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.env_runners(env_runner_cls=OwnRunner), "the config has its own, OwnRunner"),
        (lambda c: c.callbacks(Stepping), "the callback Stepping watches every step"),
        (
            lambda c: c.callbacks(on_episode_step=lambda **_: None),
            "the callback .* watches every step",
        ),
        (
            lambda c: c.multi_agent(policies={"a"}, policy_mapping_fn=lambda *_: "a"),
            "there are several agents",
        ),
        (lambda c: c.offline_data(output="/tmp/there"), "it records what it samples"),
    ],
)
def test_configs_whose_env_runner_stays(
    change: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "rayprune"):
        config = prune(change(configs.ppo()), configs.pruning())
    assert config.env_runner_cls is not LeanEnvRunner
    told = f"RLlib's own EnvRunner is kept: {reason}"
    assert any(re.match(told, line) for line in caplog.messages)


class OwnRunner(SingleAgentEnvRunner):
    """A user's."""


def flattened(config: Any) -> Any:
    kinds = {"observation_space": Dict(a=Discrete(3)), "action_space": Discrete(2)}
    config.environment("rayprune-random", env_config=kinds)
    return config.env_runners(env_to_module_connector=lambda *_: FlattenObservations())


def nested(config: Any) -> Any:
    space = Dict(a=Discrete(2), b=Box(-1, 1, (2,)))
    kinds = {"observation_space": Box(-1, 1, (3,)), "action_space": space}
    return config.environment("rayprune-random", env_config=kinds)


def acted(config: Any) -> Any:
    class Doubling(GetActions):
        pass

    return config.env_runners(module_to_env_connector=lambda *_: Doubling())


def reordered(config: Any) -> Any:
    """RLlib's defaults, put there by a user in another order."""
    pieces = [BatchIndividualItems, NumpyToTensor]
    return config.env_runners(
        add_default_connectors_to_env_to_module_pipeline=False,
        env_to_module_connector=lambda *_: [
            AddObservationsFromEpisodesToBatch(),
            *(piece() for piece in pieces),
        ],
    )


def without_time(config: Any) -> Any:
    """RLlib's defaults but one, which only recurrent modules need."""

    def pieces(*_: Any) -> list[Any]:
        clip = NormalizeAndClipActions(normalize_actions=True, clip_actions=False)
        first = [GetActions(), TensorToNumpy(), UnBatchToIndividualItems()]
        return [*first, clip, ListifyDataForVectorEnv()]

    return config.env_runners(
        add_default_connectors_to_module_to_env_pipeline=False, module_to_env_connector=pieces
    )


def test_nested_observations_are_left_to_rllib() -> None:
    runner = runner_of(of(configs.ppo(Ends)))
    pipeline, nested_space = runner._env_to_module, Dict(a=Discrete(3))
    plain = to_module.reason_against(pipeline, runner.env.single_observation_space)
    held = pipeline.connectors
    pipeline.connectors = held[-5:]  # without what encodes
    assert plain == ""
    assert (
        to_module.reason_against(pipeline, nested_space) == "the module reads nested observations"
    )
    pipeline.connectors = [*held[:-5], *held[-5:][::-1]]
    assert "not all there" in to_module.reason_against(pipeline, nested_space)


def test_a_module_that_is_not_torchs_is_left_to_rllib() -> None:
    runner = runner_of(of(configs.ppo(Ends)))
    runner.module = object()
    assert not runner._acts_on_arrays()
    assert runner._acting.reason == "there is no torch module that acts"
    runner.module = None
    assert not runner._acts_on_arrays()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (reordered, "RLlib's default connectors to the module are not all there"),
        (without_time, "RLlib's default connectors to the environment are not all there"),
        (flattened, "the connector FlattenObservations looks at episodes"),
        (acted, "the connector .*Doubling looks at episodes"),
        (nested, "actions are nested"),
        (
            lambda c: c.env_runners(env_to_module_connector=lambda *_: [KeepObservations()]),
            "the connector KeepObservations looks at episodes",
        ),
    ],
)
def test_env_runners_that_take_rllibs_loop(
    change: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "rayprune"):
        runner = same(lambda: prune(change(configs.ppo(Ends)), configs.pruning()), [{}, {}])
    assert re.match(reason, runner._acting.reason)
    told = [line for line in caplog.messages if "loop of EnvRunners is kept" in line]
    assert len(told) == 1, "once is enough"


def test_modules_of_users_are_called_as_they_are() -> None:
    def make() -> Any:
        config = configs.ppo(Ends)
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=OwnModule))
        return of(config, rollout_fragment_length=9)

    runner = same(make)
    assert runner.module.training, "as RLlib leaves it"
    assert not runner._acting.reason
