"""Policies from elsewhere by their files and their code."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from rayprune.deploy import open_artifact
from rayprune.deploy.export.export import ExportRequest
from rayprune.errors import CheckpointError, EnvError, InputError
from rayprune.policies.export import export_foreign
from rayprune.policies.foreign_policy import ForeignOptions, open_policy

CODE = """
from __future__ import annotations

import dataclasses

from torch import nn

@dataclasses.dataclass
class Sizes:
    \"\"\"Looks its module up by its name.\"\"\"

    hidden: int = 6

def make():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

class Sized(nn.Sequential):
    def __init__(self, observations, actions):
        super().__init__(nn.Linear(observations.shape[0], int(actions.n)))

def spoilt():
    module = nn.Sequential(nn.BatchNorm1d(4), make())
    module[0].running_mean[1] = float("nan")
    return module

def nan():
    module = make()
    nn.init.constant_(module[0].weight, float("nan"))
    return module

def broken():
    return 1 / 0

def other():
    return "no module"
"""

STUCK = """
import gymnasium as gym
import numpy as np

class Failing(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)

    def __init__(self, gives=(0.0,) * 4):
        self.gives = np.array(gives, np.float32)

    def reset(self, *, seed=None, options=None):
        return self.gives, {}

    def step(self, action):
        raise RuntimeError("the motor is stuck")

gym.register("Stuck-v0", "stuck_env:Failing")
"""
CARTPOLE = ForeignOptions(env="CartPole-v1")


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(CODE)
    return tmp_path / "nets.py"


def test_code_with_its_weights_becomes_a_file_that_acts_the_same(nets, tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    torch.save(net.state_dict(), tmp_path / "w.pt")
    out = tmp_path / "policy.pt2"
    told = export_foreign(
        f"{nets}:make@{tmp_path / 'w.pt'}", CARTPOLE, ExportRequest(out, "torch", episodes=2)
    )
    assert told["about"]["recorded"]["returns"] == 2
    seen = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    best = net(torch.from_numpy(seen)).argmax(dim=1).numpy()
    assert np.array_equal(open_artifact(out).act(seen).actions, best)
    assert str(tmp_path) not in json.dumps(told["about"])


def test_spaces_may_be_said_in_place_of_an_environment(nets):
    spaces = ForeignOptions(observation_space="Box(5)", action_space="Discrete(3)")
    opened = open_policy(f"{nets}:Sized", spaces)
    assert opened.policy.interface.observations[0].shape == (5,)
    assert opened.parameters()["total"] == 18


@pytest.mark.parametrize(
    ("place", "options", "told"),
    [
        ("{nets}:make", ForeignOptions(), "the spaces aren't known: give `--env`"),
        ("{nets}:Sized", ForeignOptions(), r"needs \['observations', 'actions'\]"),
        ("{nets}:mak", CARTPOLE, "has no function or class 'mak'"),
        ("{nets}:broken", CARTPOLE, "raises ZeroDivisionError"),
        ("{nets}:other", CARTPOLE, r"must make a torch\.nn\.Module"),
        ("no_such_nets:make", CARTPOLE, "can't be imported"),
        ("{nets}:make@nowhere.pt", CARTPOLE, "no file of weights 'nowhere.pt'"),
        ("{nets}:make@nowhere.zip", CARTPOLE, "no file of weights 'nowhere.zip'"),
        ("{nets}:make@{nets}", CARTPOLE, "holds more than tensors, or is broken"),
        ("{nets}", CARTPOLE, r"doesn't say what of the file makes .* such as `nets\.py:make`"),
        ("{nets}:nan", CARTPOLE, r"weights that are NaN or infinite, in \['module.0.weight'\]"),
        ("{nets}:spoilt", CARTPOLE, r"NaN or infinite, in \['module.0.running_mean'\]"),
        ("{nets}:make", ForeignOptions(env="no_such:A-v0"), r"put its folder on PYTHONPATH\.$"),
        (
            "{nets}:make",
            ForeignOptions(env="CartPole-v1", env_config={"a": 1}),
            r"can't be made with `--env-config` \{'a': 1\}.*Check `--env-config`\.$",
        ),
        ("model.pt", CARTPOLE, r"only loads by running code.*nets\.py:make@weights\.pt"),
        ("nowhere.zip", CARTPOLE, "There is no file 'nowhere.zip'"),
        ("{nets}:make", ForeignOptions(env="CartPol-v1"), "`--env` 'CartPol-v1' is unknown"),
        ("{nets}:make", ForeignOptions(action_space="Discrete(2)"), "Give both"),
        (
            "{nets}:make",
            ForeignOptions(observation_space="Box(x)", action_space="Discrete(2)"),
            r"`--observation-space` must be a space such as Box\(4\)",
        ),
    ],
)
def test_what_cannot_be_opened_says_what_to_do(nets, place, options, told):
    with pytest.raises(InputError, match=told):
        open_policy(place.format(nets=nets), options)


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        ([0, 0, 0, 0], "Environment 'Stuck-v0' failed: RuntimeError: the motor"),
        ([0, 0, 0], "Environment 'Stuck-v0' gave array.*isn't of its own `observation_space` Box"),
        ([0, 0, 0, float("nan")], "Environment 'Stuck-v0' gave an observation with NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*The obs returned by")
def test_an_environment_in_the_working_directory_is_found_and_its_failure_is_its_own(
    nets, tmp_path, monkeypatch, gives, told
):
    (tmp_path / "stuck_env.py").write_text(STUCK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [place for place in sys.path if place])
    source = ForeignOptions(env="stuck_env:Stuck-v0", env_config={"gives": gives})
    with pytest.raises(EnvError, match=told):
        export_foreign("nets.py:make", source, ExportRequest(tmp_path / "policy.pt2", "torch"))
    assert not (tmp_path / "policy.pt2").exists()


def test_an_environment_that_cannot_be_closed_has_failed(nets, tmp_path, monkeypatch):
    closing = "    def close(self):\n        raise OSError('the window is gone')\n\ngym.register"
    (tmp_path / "shut_env.py").write_text(
        STUCK.replace("gym.register", closing)
        .replace("Stuck-v0", "Shut-v0")
        .replace("stuck_", "shut_")
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvError, match="Environment 'Shut-v0' failed: OSError: the window is gone"):
        open_policy("nets.py:make", ForeignOptions(env="shut_env:Shut-v0"))


def test_weights_that_do_not_fit_are_refused(nets, tmp_path):
    torch.save({"0.weight": torch.zeros(2, 2)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"holds no weights that fit: Error.*: Missing key"):
        open_policy(f"{nets}:make@{tmp_path / 'w.pt'}", CARTPOLE)
