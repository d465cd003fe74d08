"""Environments that raise, or give what is no number: named with step and reason, or survived."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from rayprune.errors import EnvError, NonFiniteError, RunError
from rayprune.rllib.actors import lost_env_runners
from rayprune.rllib.actors.lost_env_runners import LostEnvRunners, wait_for_env_runners
from rayprune.rllib.callback import LOST_KEY
from rayprune.rllib.checkpoints.files import latest
from rayprune.rllib.environments.guard import Guarded, _sample, check_rewards, odd_observation
from rayprune.rllib.environments.observation_form import misfit
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.training.failures import check_loss
from rayprune.rllib.training.interruption import Interrupted
from rayprune.tracking.record import read_rows
from rayprune.tracking.reporter import NullReporter
from tests.rllib import experiments
from tests.rllib.training.test_resume import check_same_run

pytestmark = pytest.mark.timeout(300)


class Faulty(gym.Env[np.ndarray, int]):
    """Ten steps an episode; something is wrong with one step, or with the reset."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, fault: str = "", at: int = 0, flag: str = "") -> None:
        self._fault, self._at, self._flag = fault, at, flag
        self._steps = 0
        self._validates = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if self._fault == "reset":
            raise OSError("no simulator answers")
        if self._fault == "old reset":
            return self.observation_space.sample()
        self._left = 10
        self._validates = seed is not None and 10_000 <= seed < 10_100
        return self._see(), {}

    def step(self, action: int) -> Any:
        self._steps += 1
        self._left -= 1
        now = self._steps == self._at
        if self._validates and self._flag and Path(self._flag).exists():
            if self._fault == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(280)  # as one that hangs
            raise RuntimeError("only in validations")
        if now and self._fault == "raise":
            raise KeyError("joint_7")
        if now and self._fault == "exit":
            sys.exit(0)
        if now and self._fault == "assert":
            raise AssertionError  # as `assert` without a text
        reward: Any = 1.0
        if now:
            given = {
                "nan": math.nan,
                "inf": np.float32("inf"),
                "array": np.ones(1),
                "huge": -1e20,
                "none": None,
            }
            reward = given.get(self._fault, reward)
        seen: Any = self._see()
        if now and self._fault == "old step":
            return seen, 1.0, False, {}
        if now:
            odd = {"shape": np.zeros(4), "nothing": None, "objects": seen.astype(object)}
            seen = odd.get(self._fault, seen)
        if now and self._fault == "observation":
            seen[1] = math.nan
        return (
            seen,
            reward,
            self._left == 0 and self._fault != "never",
            False,
            (None if now and self._fault == "no info" else {}),
        )

    def _see(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


gym.register("Faulty-v0", entry_point=Faulty)
ENV = f"{__name__}:Faulty-v0"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raise", r"'E' failed at step 4 of an episode that was reset with seed 7: KeyError: 'jo"),
        ("assert", r"AssertionError at test_env_faults.py:\d+, `raise AssertionError"),
        ("exit", r"'E' failed at step 4 .*: SystemExit: 0 \(test_env_faults.py"),
        ("nan", r"'E' gave nan as reward at step 4 .*division by zero"),
        ("inf", r"'E' gave inf as reward at step 4"),
        ("huge", r"'E' gave -1e\+20 as reward at step 4 .* its square is too large for"),
        ("array", r"an array of shape \(1,\) as reward at step 4 .*`float\(reward\)`"),
        ("none", r"gave None \(NoneType\) as reward"),
        ("reset", r"'E' failed in reset: OSError: no simulator answers"),
        ("old reset", r"failed in reset: ValueError.* `reset` must return observation and info"),
        ("old step", r"at step 4 .*ValueError.* `step` must return observation, reward, term"),
        ("no info", r"'E' gave None \(NoneType\) as info at step 4 .*a dict"),
        ("shape", r"gave an array of shape \(4,\) as observation at step 4 .*Box\(-1"),
        ("nothing", r"'E' gave None \(NoneType\) as observation at step 4 .*Mend one of the two"),
        ("objects", r"gave an array of shape \(3,\) and dtype object as observation at step 4"),
    ],
)
def test_what_an_environment_does_wrong_is_told_with_its_name_step_and_reason(
    fault: str, told: str
) -> None:
    with pytest.raises(EnvError, match=told):
        play(Guarded(Faulty(fault, at=4), "E"))


def play(env: gym.Env[Any, Any]) -> None:
    env.reset(seed=7)
    for _ in range(4):
        env.step(1)


SPACES = gym.spaces
PARTS = SPACES.Dict(a=SPACES.Discrete(3, start=-1), b=SPACES.Tuple([SPACES.MultiBinary(2)]))


@pytest.mark.parametrize(
    ("space", "observation", "path"),
    [
        (SPACES.Discrete(3, start=5), 4, ()),
        (SPACES.MultiDiscrete([2, 3]), [0, 3], ()),
        (SPACES.Box(0, 255, (2, 2), np.uint8), [[1, 2], [3]], ()),
        (PARTS, {"a": 2, "b": ([0, 1],)}, ("a",)),
        (PARTS, {"a": 0, "b": ([0, 2],)}, ("b", 0)),
        (PARTS, {"a": 0}, ()),
        (PARTS, {"a": 0, "b": ()}, ("b",)),
    ],
)
def test_the_part_of_an_observation_that_its_space_lacks_is_found(
    space: Any, observation: Any, path: tuple[Any, ...]
) -> None:
    found = misfit(space, observation)
    assert found is not None
    assert found.path == path


@pytest.mark.parametrize(
    "space", [SPACES.Discrete(3, start=5), PARTS, SPACES.MultiDiscrete([[2, 3]]), SPACES.Text(3)]
)
def test_what_a_space_holds_fits_it(space: Any) -> None:
    assert misfit(space, space.sample()) is None


def test_numbers_of_another_kind_and_beyond_a_boxs_bounds_fit_it() -> None:
    assert misfit(SPACES.Box(-1, 1, (2,)), [3, -7.5]) is None


def test_rewards_of_any_kind_of_number_pass() -> None:
    env = Guarded(Faulty(), "E")
    for reward in (1.0, 2, True, np.float32(3), np.int8(1), np.array(0.5)):
        env._check(reward)


def episode_of(rewards: list[float], observations: list[float]) -> SingleAgentEpisode:
    return SingleAgentEpisode(
        observations=[np.array([o], np.float32) for o in observations],
        rewards=rewards,
        actions=[0] * len(rewards),
        infos=[{}] * len(observations),
        len_lookback_buffer=0,
    )


@pytest.mark.parametrize("whole", [False, True])
def test_samples_are_looked_through_whoever_stepped_the_environment(whole: bool) -> None:
    fine, bad = episode_of([1.0, 2.0], [0.0] * 3), episode_of([1.0, math.inf], [0.0, 0, math.nan])
    episodes = [one.to_numpy() for one in (fine, bad)] if whole else [fine, bad]
    check_rewards("E", episodes[:1])
    assert odd_observation("E", episodes[:1]) is None
    with pytest.raises(EnvError, match="'E' gave inf as reward at step 2 of an episode"):
        check_rewards("E", episodes)
    told = odd_observation("E", episodes)
    assert told is not None
    assert "gave nan in an observation, after 2 steps" in told


def test_large_sums_of_numbers_are_numbers() -> None:
    huge = float(np.finfo(np.float32).max)
    assert odd_observation("E", [episode_of([0.0, 0.0], [huge] * 3).to_numpy()]) is None


NOBODY = SimpleNamespace(env_runner_group=None)


@pytest.mark.parametrize(
    ("loss", "updates", "seq_no", "fails"),
    [
        (math.nan, 10, 3.0, True),
        (math.inf, 10, math.nan, True),
        (math.nan, 7, math.nan, False),  # no updates: the mean of nothing
        (math.nan, 10, math.nan, False),  # not logged anew
        (0.5, 10, 3.0, False),
        (None, 10, 3.0, False),
    ],
)
def test_a_loss_is_judged_only_where_updates_have_given_one(
    loss: float | None, updates: int, seq_no: float, fails: bool
) -> None:
    figures = {"total_loss": loss, WEIGHTS_SEQ_NO: seq_no}
    row = {"updates": updates, "learner": {k: v for k, v in figures.items() if v is not None}}

    def check() -> None:
        check_loss(row, 7, NOBODY, "env step 400", "No checkpoint.")  # type: ignore[arg-type]

    if not fails:
        check()
        return
    with pytest.raises(NonFiniteError, match=r"The loss became \w+ at env step 400. No check.*lr"):
        check()


class Group:
    """Stands for an EnvRunnerGroup with two remote EnvRunners."""

    def __init__(self) -> None:
        self.healthy, self.restarts = 2, 0

    def num_remote_env_runners(self) -> int:
        return 2

    def num_healthy_remote_workers(self) -> int:
        return self.healthy

    def num_remote_worker_restarts(self) -> int:
        return self.restarts


class Driver:
    """An algorithm whose EnvRunners have sampled, or been restarted with a reason."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.env_runner_group, self.metrics = Group(), self
        self.steps = 0
        self._waiting: list[str] = []
        monkeypatch.setattr(lost_env_runners, "_reasons", lambda _: self._take())

    def peek(self, _: Any, default: int) -> int:
        return self.steps

    def fail(self, *reasons: str) -> None:
        self.env_runner_group.restarts += 1
        self._waiting += reasons

    def _take(self) -> list[str]:
        told, self._waiting = self._waiting, []
        return told


def test_a_run_is_ended_by_failures_in_a_row_and_not_by_those_between_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, lost = Driver(monkeypatch), LostEnvRunners()
    for _ in range(5):
        driver.fail("EnvRunner 1: it broke.")
        lost.look(driver)  # type: ignore[arg-type]
        driver.steps += 10
    assert lost.take() == ["EnvRunner 1: it broke."] * 5
    driver.fail("EnvRunner 1: it broke.", "EnvRunner 2: it broke.")
    lost.look(driver)  # type: ignore[arg-type]
    driver.fail("EnvRunner 2: it broke.")
    with pytest.raises(EnvError, match=r"EnvRunner 2: it broke. This was failure 3 in a row"):
        lost.look(driver)  # type: ignore[arg-type]


def test_env_runners_that_die_without_a_word_are_told_of_and_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, lost = Driver(monkeypatch), LostEnvRunners()
    lost.look(driver)  # type: ignore[arg-type]
    driver.env_runner_group.healthy = 1
    for _ in range(3):
        lost.look(driver)  # type: ignore[arg-type]
    assert lost.take() == [
        "EnvRunners died, 1 of 2 are left; RLlib restarts what died, and the run goes on."
    ]
    monkeypatch.setattr(lost_env_runners, "PATIENCE_S", -1.0)
    with pytest.raises(RunError, match="1 of 2 EnvRunners are alive"):
        lost.look(driver)  # type: ignore[arg-type]


def test_asynchronous_algorithms_wait_where_every_env_runner_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, lost = Driver(monkeypatch), LostEnvRunners()
    driver._sample_and_get_connector_states = lambda: "sampled"  # type: ignore[attr-defined]
    wait_for_env_runners(driver, lost)
    sample = driver._sample_and_get_connector_states  # type: ignore[attr-defined]
    assert sample() == "sampled"
    driver.env_runner_group.healthy = 0
    assert sample() == ([], [], [], set())
    assert "0 of 2 are left" in lost.take()[0]


def faulty(fault: str, at: int, **changes: Any) -> Mapping[str, Any]:
    return {**experiments.PPO, "env": ENV, "env_config": {"fault": fault, "at": at}, **changes}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("fault", "at", "told"),
    [
        ("raise", 150, r"KeyError: 'joint_7' \(test_env_faults.py:\d+\) \(at env step 200\)"),
        ("observation", 153, r"gave nan in an observation, after 3 steps"),
        ("observation", 150, r"gave nan in an observation, after 10 steps"),
    ],
)
def test_training_ends_with_the_environments_own_reason(
    tmp_path: Path, fault: str, at: int, told: str
) -> None:
    what = experiments.experiment(faulty(fault, at), evaluation={"every": None, "episodes": 2})
    with pytest.raises(RunError, match=told) as caught:
        experiments.train(what, tmp_path / "run")
    assert "lr" not in str(caught.value)
    # What was learnt before is kept.
    kept = latest(tmp_path / "run")
    assert kept is not None
    assert kept.name == "000000200"


class Breaks(NullReporter):
    """Lets the environment fail from the second validation on."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag
        self.told: list[str] = []

    def evaluation(self, row: Mapping[str, Any]) -> None:
        self._flag.touch()

    def message(self, text: str) -> None:
        self.told.append(text)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        (
            "raise",
            EnvError,
            r"with seed 1000\d: RuntimeError: only in val.*\(at env step 800\).*0800",
        ),
        pytest.param(
            "interrupt",
            Interrupted,
            r"Interrupted at env step 800; checkpoint 000000800 is written",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_ends_in_a_validation_loses_nothing_and_validates_when_it_is_resumed(
    tmp_path: Path, fault: str, error: type[BaseException], told: str
) -> None:
    flag = tmp_path / "flag"
    config = {"fault": fault, "flag": str(flag)}
    what = experiments.experiment(experiments.PPO, env=ENV, env_config=config)
    whole = experiments.train(what, tmp_path / "whole")
    began = time.monotonic()
    with pytest.raises(error, match=told):
        experiments.train(what, tmp_path / "cut", reporter=Breaks(flag))
    assert time.monotonic() - began < 200
    flag.unlink()
    resumed = experiments.train(what, tmp_path / "cut", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "cut")
    assert resumed["returns"] == whole["returns"]


@pytest.mark.usefixtures("ray_session")
def test_an_episode_that_never_ends_is_cut_off_and_told(tmp_path: Path) -> None:
    limits = {"every": None, "episodes": 2, "max_steps": 30}
    what = experiments.experiment(faulty("never", at=0), evaluation=limits, stop={"env_steps": 200})
    listener = Breaks(tmp_path / "flag")
    summary = experiments.train(what, tmp_path / "run", reporter=listener)
    assert summary["returns"]["test"]["mean"] == 30.0
    assert read_rows(tmp_path / "run" / "results.jsonl")[-1]["validation"]["cut"] == 2
    assert any(
        "2 episode(s)" in text and "`evaluation.max_steps`" in text for text in listener.told
    )


@pytest.mark.usefixtures("ray_session")
def test_a_run_goes_on_when_its_env_runners_fail_or_are_killed(tmp_path: Path) -> None:
    settings = {**experiments.PPO["rllib"], "env_runners": {"num_env_runners": 1}}
    what = experiments.experiment(faulty("raise", at=250, rllib=settings))
    algorithm = build_config(what).build_algo()
    try:
        results = [algorithm.train() for _ in range(2)]
        (actor,) = algorithm.env_runner_group._worker_manager.actors().values()
        while results[-1]["num_env_steps_sampled_lifetime"] < 400:
            results.append(algorithm.train())
        ray.kill(actor, no_restart=False)
        # The kill may come after an iteration or two: it isn't waited for.
        while not any("EnvRunners died" in reason for reason in results[-1][LOST_KEY]):
            results.append(algorithm.train())
        kept = results[-1]["num_env_steps_sampled_lifetime"]
        while results[-1]["num_env_steps_sampled_lifetime"] < kept + 200:
            results.append(algorithm.train())
    finally:
        algorithm.stop()
    told = [reason for result in results for reason in result[LOST_KEY]]
    assert any("EnvRunner 1: Environment" in reason and "joint_7" in reason for reason in told)
    assert any("EnvRunners died, 0 of 1 are left" in reason for reason in told)
    assert any(math.isnan(result["learners"]["default_policy"]["total_loss"]) for result in results)


def test_a_faults_causes_end_when_rllib_has_raised_from_it() -> None:
    # Ray copies an exception with its causes, one after another.
    fault = EnvError("nan as reward")

    def sample() -> list[Any]:
        raise RuntimeError("EnvRunner failed") from fault

    runner = SimpleNamespace(worker_index=0, config=SimpleNamespace(env="E"))
    with pytest.raises(EnvError) as raised:
        _sample(runner, sample)
    assert raised.value is fault
    assert raised.value.__cause__ is None
