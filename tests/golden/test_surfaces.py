"""What users see: the lists, each --help, errors with their codes, an exported file and its C."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.doubles import policies
from tests.golden import doors
from tests.golden.commands import run_all
from tests.golden.nets import BITS, check, digest, key_paths

LISTS = [
    "criteria",
    "schedules",
    "distributions",
    "granularities",
    "groups",
    "objectives",
    "algorithms",
    "methods",
    "penalties",
    "remedies",
    "recipes",
]
COMMANDS = [
    "train",
    "evaluate",
    "prune",
    "sensitivity",
    "record",
    "bench",
    "certify",
    "export",
    "verify",
    "sweep",
    "fit",
    "submit",
    "report",
    "list",
]
MISTAKES = (
    [],
    ["trian"],
    ["trian", "--json"],
    ["list", "criteri", "--json"],
    ["train", "no.yaml", "--json"],
    ["train", "--no-such-option", "--json"],
    ["train", "--json"],
    ["evaluate", "no/where", "--json"],
    ["export", "no/where", "--format", "onxx", "--json"],
    ["verify", "no.onnx", "--json"],
    ["sweep", "no.yaml", "--json"],
    ["report", "no/where", "--json"],
    ["certify", "no", "where", "--json"],
)

BASE: dict[str, Any] = {"algorithm": "PPO", "env": "CartPole-v1", "pruning": {"sparsity": 0.5}}
# Files whose faults only RLlib, the environment or the network shows.
FILES: dict[str, dict[str, Any]] = {
    "unknown env": {"env": "CartPoel-v1"},
    "unknown method": {"rllib": {"trainning": {"lr": 0.1}}},
    "unknown setting": {"rllib": {"training": {"learning_rate": 0.1}}},
    "a setting that nothing reads": {"rllib": {"training": {"train_batch_size": 100}}},
    "a wrong learning rate": {"rllib": {"training": {"lr": [[5, 0.1], [100, 0.0]]}}},
    "an unknown model key": {"rllib": {"rl_module": {"model_config": {"fcnet_hidens": [8]}}}},
    "protected too much": {"pruning": {"sparsity": 0.9, "protect": ["encoder*"]}},
    "a pattern that matches nothing": {"pruning": {"sparsity": 0.5, "protect": ["conv*"]}},
    "an unknown layer": {"pruning": {"sparsity": 0.5, "distribution": {"pj": 0.5}}},
    "an unknown group": {"pruning": {"sparsity": 0.5, "groups": {"actro": {"sparsity": 0.5}}}},
    "layers without a residual": {
        "pruning": {"sparsity": 0.5, "granularity": "layer"},
        "rllib": {"rl_module": {"model_config": {"fcnet_hiddens": [8]}}},
    },
    "replay for an on-policy algorithm": {"pruning": {"sparsity": 0.5, "remedies": {"n_step": 3}}},
    "offline without data": {"algorithm": "BC", "stop": {"updates": 10}},
    "continuous actions for DQN": {"algorithm": "DQN", "env": "Pendulum-v1"},
    "all at once": {
        "rllib": {"training": {"learning_rate": 0.1}},
        "pruning": {"sparsity": 2, "protect": ["conv*"]},
        "stop": {},
        "zzz": 1,
    },
}


def _file_name(name: str) -> str:
    return f"{name.replace(' ', '_')}.yaml"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("surfaces")
    for name, content in FILES.items():
        (folder / _file_name(name)).write_text(json.dumps({**BASE, **content}), encoding="utf-8")
    lines = {
        "rayprune --help": ["--help"],
        **{f"rayprune {name} --help": [name, "--help"] for name in COMMANDS},
        **{f"list {name}": ["list", name, "--json"] for name in LISTS},
        "list configs": ["list", "configs", "--json"],
        "list criteria for people": ["list", "criteria"],
        **{f"mistake {line}": list(line) for line in MISTAKES},
        **{f"file {name}": ["train", _file_name(name), "--json"] for name in FILES},
    }
    return dict(zip(lines, run_all([*lines.values()], folder), strict=True))


def test_lists_are_those_of_the_golden_file(said: dict[str, dict[str, Any]]) -> None:
    found = {name: json.loads(said[f"list {name}"]["out"]) for name in (*LISTS, "configs")}
    for preset in found["configs"]["configs"]:
        del preset["measured"]  # held against the benchmark's rows by tests/configs
    found["for people"] = said["list criteria for people"]
    check("lists.json", found)


def test_helps_are_those_of_the_golden_file(said: dict[str, dict[str, Any]]) -> None:
    helps = [f"$ {k}\n{v['out']}{v['err']}\n" for k, v in said.items() if k.endswith("--help")]
    check("helps.txt", "\n".join(helps))


def test_mistakes_are_told_as_in_the_golden_file(said: dict[str, dict[str, Any]]) -> None:
    found = {name: answer for name, answer in said.items() if name.startswith("mistake")}
    check("mistakes.json", {name: _parsed(answer) for name, answer in found.items()})


def test_faults_that_rllib_shows_are_those_of_the_golden_file(
    said: dict[str, dict[str, Any]],
) -> None:
    found = {name: answer for name, answer in said.items() if name.startswith("file ")}
    told = {name: json.loads(answer["out"])["error"] for name, answer in found.items()}
    check("faults_of_rllib.json", told)


def _parsed(answer: dict[str, Any]) -> dict[str, Any]:
    out = json.loads(answer["out"]) if answer["out"].startswith("{") else answer["out"]
    return {**answer, "out": out}


def mlp() -> Any:
    """A pruned tanh MLP of one choice among three, whose weights no CPU rounds."""
    net = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3))
    draw = np.random.default_rng(5)
    with torch.no_grad():
        for parameter in net.parameters():
            values = draw.integers(-1024, 1025, parameter.shape)
            kept = draw.random(parameter.shape) < (0.4 if parameter.dim() > 1 else 1.0)
            parameter.copy_(torch.from_numpy(values * kept / 1024.0))
        net[0].weight[5] = 0.0  # a unit that is dead
    return policies.discrete(net)


def recorded() -> list[np.ndarray]:
    draw = np.random.default_rng(6)
    return [draw.integers(-2048, 2049, (64, 4)).astype(np.float32) / 1024.0]


# What the self-test expects; its last digits are the CPU's.
_FLOATS = re.compile(r"-?\d+\.\d+(e[-+]?\d+)?f")
# What changes from day to day and from version to version.
_CHANGES = [
    (re.compile(r'("rayprune": ")[^"]*'), r"\1VERSION"),
    (re.compile(r"[0-9a-f]{40,64}"), "HASH"),
    (re.compile(r"\d{4}-\d\d-\d\d(T[0-9:.+]*)?"), "DATE"),
    (re.compile(r"rayprune \d+\.\d+\.\d+\S*"), "rayprune VERSION"),
]


def _normalised(text: str) -> str:
    for pattern, replacement in _CHANGES:
        text = pattern.sub(replacement, text)
    return text


@pytest.mark.parametrize("lanes", [4, 8])
def test_a_generated_c_file_is_that_of_the_golden_file(lanes: int, tmp_path: Path) -> None:
    path = tmp_path / "policy.c"
    told = doors.export(mlp(), path, "c", recorded=recorded(), about={"env": "x"}, lanes=lanes)
    code, test = _normalised(path.read_text(encoding="utf-8")).split("#ifdef POLICY_SELFTEST", 1)
    assert code.count("static const float") > 3
    check(f"policy_{lanes}_lanes.c.txt", f"{code}#ifdef POLICY_SELFTEST{_FLOATS.sub('x', test)}")
    found = {"certificate": key_paths(told), BITS: {"code": digest(code), "test": digest(test)}}
    check(f"policy_{lanes}_lanes.json", found)


@pytest.mark.parametrize("kind", ["c", "onnx", "torch"])
def test_an_exported_files_keys_are_those_of_the_golden_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"policy.{'pt2' if kind == 'torch' else kind}"
    told = doors.export(mlp(), path, kind, recorded=recorded(), about={"env": "x"})
    metadata = json.loads(doors.metadata_of(path))
    interface = metadata["interface"]
    found = {
        "certificate": key_paths(told),
        "metadata": key_paths(metadata),
        "interface": interface,
        "files": sorted(item.name for item in tmp_path.iterdir()),
    }
    check(f"exported_{kind}.json", found)
