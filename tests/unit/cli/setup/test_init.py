"""``rayprune init``: a first YAML that a run takes."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import gymnasium as gym
import pytest

from rayprune.cli.setup.first_config import BUDGETS, FirstConfig, default_algorithm
from rayprune.config import load_experiment
from rayprune.rllib.experiment.experiment_checks import load_checked

CASES = [
    ("CartPole-v1", "PPO"),
    ("CartPole-v1", "DQN"),
    ("CartPole-v1", "SAC"),
    ("Pendulum-v1", "SAC"),
    ("Pendulum-v1", "PPO"),
    ("FrozenLake-v1", "PPO"),
]


@pytest.mark.parametrize(("env", "algorithm"), CASES)
def test_what_it_writes_is_what_a_run_takes(tmp_path, env, algorithm):
    made = gym.make(env)
    config = FirstConfig(
        env=env,
        algorithm=algorithm,
        budget=BUDGETS[algorithm],
        spaces=(made.observation_space, made.action_space),
        env_config={},
    )
    file = tmp_path / "config.yaml"
    file.write_text(config.text())
    experiment = load_checked(file)
    assert (experiment.algorithm, experiment.length) == (algorithm, BUDGETS[algorithm])
    assert default_algorithm(made.action_space) in ("PPO", "SAC")


@pytest.mark.parametrize(("there", "said"), [(True, "offline"), (False, "off")])
def test_wandb_is_asked_for_where_it_is_installed(monkeypatch, there, said):
    monkeypatch.setattr("rayprune.cli.setup.first_config.installed", lambda _name: there)
    spaces = gym.spaces.Box(0, 1, (4,)), gym.spaces.Discrete(2)
    config = FirstConfig(env="Own-v0", algorithm="PPO", budget=9000, spaces=spaces, env_config={})
    assert f"tracking: {{wandb: {said}, tensorboard: true}}" in config.text()


@pytest.mark.parametrize(
    ("space", "normalised"),
    [
        (gym.spaces.Dict(lidar=gym.spaces.Box(0, 30, (8,)), gear=gym.spaces.Discrete(3)), "true"),
        (gym.spaces.Dict(gear=gym.spaces.Discrete(3)), "false"),
        (gym.spaces.Box(0, 255, (84, 84), "uint8"), "false"),
        (gym.spaces.Box(0, 9, (4,), "int64"), "true"),
    ],
)
def test_what_it_says_of_observations_is_what_there_is(space, normalised):
    spaces = space, gym.spaces.Discrete(2)
    config = FirstConfig(env="Own-v0", algorithm="PPO", budget=9000, spaces=spaces, env_config={})
    assert f"normalise: {{observations: {normalised}}}" in config.text()


@pytest.mark.slow
def test_images_of_any_size_get_convolutions(tmp_path, monkeypatch):
    class Camera(gym.Env):
        observation_space = gym.spaces.Box(0, 255, (50, 70, 3), "uint8")
        action_space = gym.spaces.Discrete(2)

    gym.register("Camera50x70-v0", Camera)
    try:
        spaces = Camera.observation_space, Camera.action_space
        kinds = {"env": "Camera50x70-v0", "budget": 9000, "spaces": spaces, "env_config": {}}
        file = tmp_path / "config.yaml"
        for algorithm in ("PPO", "DQN"):
            file.write_text(FirstConfig(algorithm=algorithm, **kinds).text())
            assert load_checked(file).algorithm == algorithm
    finally:
        del gym.registry["Camera50x70-v0"]


def test_flags_alone_write_the_file_once(rayprune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("init", "--env", "CartPole-v1", "--budget", 8000, "--sparsity", 0.5)
    answer = rayprune(*given, "--json")
    assert answer.code == 0, answer.stderr
    assert json.loads(answer.stdout)["out"] == "ppo_cartpole.yaml"
    experiment = load_experiment(tmp_path / "ppo_cartpole.yaml")
    assert (experiment.stop.env_steps, experiment.pruning.sparsity) == (8000, 0.5)
    again = rayprune(*given)
    assert again.code == 2
    assert "'ppo_cartpole.yaml' exists" in again.stderr
    assert rayprune(*given, "--force").code == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), "`--env` is missing"),
        (("--env", "CartPol-v1"), "'CartPol-v1' is unknown"),
        (("--env", "ALE/Pong-v5"), "Write `ale_py:ALE/Pong-v5`"),
        (("--env", "CartPole-v1", "--algorithm", "PPPO"), "Did you mean 'PPO'?"),
        (("--env", "Pendulum-v1", "--algorithm", "dqn"), "DQN takes actions of Discrete alone"),
        (("--env", "CartPole-v1", "--budget", "10"), "`--budget` must be at least 4000"),
        (
            ("--env", "CartPole-v1", "--algorithm", "SAC", "--out", "no/such.yaml"),
            "can't be a file",
        ),
    ],
)
def test_off_a_terminal_nothing_is_asked_and_faults_are_told(
    rayprune, tmp_path, monkeypatch, given, told
):
    monkeypatch.chdir(tmp_path)
    answer = rayprune("init", *given)
    assert answer.code == 2
    assert told in answer.stderr
    assert [*tmp_path.iterdir()] == []


def test_its_commands_name_the_file_that_was_asked_for(rayprune, tmp_path):
    file = tmp_path / "mine.yaml"
    answer = rayprune("init", "--env", "CartPole-v1", "--out", file, "--json")
    assert answer.code == 0, answer.stderr
    assert f"rayprune train {file} --plan" in file.read_text()


QUESTIONS = ("module:Id):", "[PPO]:", "[50000]:")


def at_a_terminal(folder, answers):
    """Run ``rayprune init`` at a terminal, answering each question; return exit code and screen."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's jobs in the background ignore it
        path = os.pathsep.join([str(Path(__file__).parents[4]), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-W", "ignore", "-m", "rayprune", "init"]
        os.execve(command[0], command, {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"})
    screen, seen, left, until = "", 0, list(answers), time.monotonic() + 280
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            screen += os.read(terminal, 4096).decode()
        except OSError:  # it has ended
            break
        asked = any(question in screen[seen:] for question in QUESTIONS)
        if left and asked:
            seen = len(screen)
            time.sleep(0.3)  # it waits for the answer only after it has written the question
            os.write(terminal, left.pop(0).encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), screen


def test_at_a_terminal_a_wrong_answer_is_told_and_asked_for_again(tmp_path):
    answers = ["CartPol-v1", "CartPole-v1", "PPPO", "dqn", "many", "5", "8_000"]
    lines = [f"{answer}\n" for answer in answers]
    code, screen = at_a_terminal(tmp_path, lines)
    assert code == 0, screen
    assert "'CartPol-v1' is unknown" in screen
    assert "Did you mean 'PPO'?" in screen
    assert "`--budget` must be a whole number of env steps, but is 'many'." in screen
    assert "`--budget` must be at least 4000" in screen
    experiment = load_experiment(tmp_path / "dqn_cartpole.yaml")
    assert (experiment.algorithm, experiment.stop.env_steps) == ("DQN", 8000)


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_ctrl_c_and_the_end_of_input_leave_nothing(tmp_path, key):
    code, screen = at_a_terminal(tmp_path, [key])
    assert code == 130, screen
    assert "Interrupted; nothing was written." in screen
    assert "--debug" not in screen
    assert [*tmp_path.iterdir()] == []
