"""Every fault of wrong pruning blocks and of wrong experiment files: the text, and the order."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from rayprune import PruningConfig, RaypruneError
from rayprune.config import load_experiment
from tests.golden.nets import check

NAN, INF = float("nan"), float("inf")

# Field -> values that are wrong by themselves, or nearly.
WRONG: dict[str, list[Any]] = {
    "sparsity": [1.0, -0.1, NAN, "0.5", True, [0.5], {"pi": 0.5}],
    "threshold": [
        0.1,
        {},
        {"absolute": -1},
        {"absolute": INF},
        {"absolute": 1, "percentile": 5},
        {"percentile": 100},
        {"percentile": "5"},
        {"mean_fraction": 0.5, "of_lowest": 0},
        {"absolute": 0.5, "of_lowest": 5},
        {"percentle": 5},
    ],
    "criterion": ["fischer", "L1", None, 3, ["l1"]],
    "granularity": ["neurons", "4:2", "2:2", "0:4", None, 7, "2:4:8", "unit"],
    "hybrid": [
        0.5,
        {},
        {"neuron": 0.5},
        {"neuron": 0.9, "weight": 0.5},
        {"neuron": 2, "weight": "x"},
    ],
    "pooling": ["max", None],
    "distribution": ["uniforme", None, {"pi": 1.5}, {3: 0.5}, {"pi": "x", "vf": -1}],
    "operation": [
        "scale",
        None,
        {"scale": 0.5},
        {"scale": 1, "steps": 0},
        {"scale": "x", "steps": 2.5},
        {"scale": 0.5, "steps": 256},
    ],
    "schedule": [
        None,
        "cubic",
        {"kind": "cubik"},
        {"kind": 3},
        {"begn": 0.1},
        {"begin": -1, "end": "x", "every": 0},
        {"begin": 0.8, "end": 0.2},
        {"begin": 500, "end": 100},
        {"begin": {"retrun": 5}},
        {"begin": {"return": "x"}},
        {"every": 1.5, "share": 0.2},
        {"kind": "iterative", "share": 1},
        {"kind": "iterative", "shares": 0.2},
        {"kind": "one_shot", "drop_fraction": 0.3},
        {"kind": "lottery"},
        {"kind": "lottery", "rewind_to": -1, "rounds": 0, "round_steps": 0},
        {"kind": "lottery", "rewind_to": 0, "rounds": 2.5, "every": 100},
        {"kind": "lottery", "rewind_to": {"return": 3}, "rounds": 2, "begin": 5},
        {"kind": "gated", "every": 100, "end": 5},
        {"kind": "gated", "begin": -1, "step": 1, "least_step": 0, "floor": 2, "patience": 0},
        {"kind": "gated", "reference": "best", "criteria": []},
        {"kind": "gated", "criteria": ["l1", "fischer", 3]},
        {"kind": "gated", "criteria": "l1"},
        {"kind": "gated", "criteria": ["shapley", "return"]},
        {"kind": "static", "begin": {"return": 5}},
        {"kind": "static", "drop_fraction": 0.3},
        {"kind": "set", "drop_fraction": 0, "minibatches": 5},
        {"kind": "rigl", "drop_fraction": 2, "minibatches": 0},
        {"kind": "rigl", "minibatches": 1.5, "start": 0.9},
        {"kind": "grow", "start": 1, "regrow": "gradients"},
        {"kind": "grow", "start": "x", "minibatches": True},
    ],
    "protect": ["pi*", 3, [3, None], {"pi": 1}],
    "frozen": ["kept", True, None],
    "groups": [
        3,
        {"pi": 0.5},
        {"pi": {"sparsty": 0.5}},
        {3: {"sparsity": 0.5}},
        {"pi": {"sparsity": 1}},
    ],
    "on_clone": ["grow", None],
    "penalty": [
        "l1",
        {"kind": "l1"},
        {"kind": "l2", "strength": -1},
        {"kind": 3, "strength": NAN},
        {"kind": "lasso", "strength": "x"},
        {"kind": "l1", "strength": True},
    ],
    "distillation": [
        True,
        {"wieght": 1},
        {"weight": 0, "temperature": -1},
        {"weight": INF, "from": 3},
        {"from": ""},
        {"temperature": "x", "teacher": 1},
    ],
    "remedies": [
        None,
        ["rescale"],
        {"rescael": True},
        {"n_step": 1, "replay_limit": 5, "replay_reset": 99.5},
        {"n_step_from": 0.5},
        {"n_step": 3, "n_step_from": -1, "rescale": 1},
        {"n_step": True, "n_step_from": INF},
    ],
    "compact_every": [0, -5, 1.5, "100", True],
    "evidence": [
        None,
        {"objectiv": "kl"},
        {"objective": "los", "estimator": "gauss"},
        {"observations": 0, "minibatches": 1.5, "permutations": 3},
        {"permutations": -1, "samples": 3},
    ],
    "plasticity": [
        1000,
        {},
        {"every": 1},
        {"every": "x"},
        {"each": 100},
        {"every": 100, "window": 3},
    ],
    "fused_optimizer": [1, "yes", None],
    "horizon": [0, 1.5, "1000", True, -3],
}

LOTTERY = {"kind": "lottery", "rewind_to": 0, "rounds": 3}
# Choices that are right by themselves; each is paired with each other.
RIGHT: dict[str, dict[str, Any]] = {
    **{f"schedule {kind}": {"schedule": {"kind": kind}} for kind in ("one_shot", "iterative")},
    "schedule lottery": {"schedule": LOTTERY},
    **{
        f"schedule {kind}": {"schedule": {"kind": kind}}
        for kind in ("gated", "static", "set", "rigl", "grow")
    },
    "gated by shapley": {"schedule": {"kind": "gated", "criteria": ["l1", "shapley"]}},
    "begin at a return": {"schedule": {"begin": {"return": 100}}},
    **{
        f"granularity {name}": {"granularity": name}
        for name in ("neuron", "filter", "block", "input", "layer")
    },
    "granularity 2:4": {"granularity": "2:4", "sparsity": None},
    "granularity hybrid": {
        "granularity": "hybrid",
        "hybrid": {"neuron": 0.4, "weight": 0.7},
        "sparsity": None,
    },
    "a hybrid's targets": {"hybrid": {"neuron": 0.4, "weight": 0.7}},
    "criterion taylor": {"criterion": "taylor"},
    "criterion fisher": {"criterion": "fisher"},
    "criterion shapley": {"criterion": "shapley", "granularity": "neuron"},
    "criterion information_gain": {"criterion": "information_gain"},
    "criterion return": {"criterion": "return", "granularity": "layer"},
    "return of weights": {"criterion": "return"},
    "penalty l1": {"penalty": {"kind": "l1", "strength": 0.1}},
    "penalty group_lasso": {"penalty": {"kind": "group_lasso", "strength": 0.1}},
    "remedies": {"remedies": {"rescale": True, "n_step": 3}},
    "distillation": {"distillation": {"weight": 1.0}},
    "distillation from": {"distillation": {"from": "start"}},
    "compact_every": {"compact_every": 1000},
    **{
        f"threshold {kind}": {"threshold": {kind: 0.5}, "sparsity": None}
        for kind in ("absolute", "percentile", "mean_fraction")
    },
    "threshold and sparsity": {"threshold": {"absolute": 0.5}, "sparsity": 0.5},
    "objective kl": {"evidence": {"objective": "kl"}},
    "objective loss": {"evidence": {"objective": "loss"}},
    "frozen prune": {"frozen": "prune"},
    "protect": {"protect": ["pi*"]},
    "operation": {"operation": {"scale": 0.5, "steps": 3}},
    "on_clone regrow": {"on_clone": "regrow"},
    "distribution erk": {"distribution": "erk"},
    "distribution by layer": {"distribution": {"pi": 0.985}},
    "groups": {"groups": {"critic": {"sparsity": 0.985}}},
    "groups of a hybrid": {"groups": {"critic": {"neuron": 0.2, "weight": 0.5}}},
    "sparsity 0": {"sparsity": 0},
    "sparsity 0.99": {"sparsity": 0.99},
    "no target": {"sparsity": None},
    "plasticity off": {"plasticity": None},
}

SEVERAL: dict[str, Any] = {
    "no mapping": [1],
    "a text": "sparsity",
    "None": None,
    "empty": {},
    "unknown": {"sparsity": 0.5, "granulrity": "weight", "zzz": 1, 3: 4},
    "one fault in each field": {name: values[0] for name, values in WRONG.items()},
    "another in each field": {name: values[1] for name, values in WRONG.items()},
    "the last of each field, backwards": {n: v[-1] for n, v in reversed(WRONG.items())},
    "compaction of all that can't be": {
        "sparsity": None,
        "compact_every": 100,
        "granularity": "2:4",
        "schedule": {"kind": "rigl"},
        "on_clone": "regrow",
        "threshold": {"percentile": 5},
        "operation": {"scale": 0.5, "steps": 2},
    },
    "hybrid with all that can't be": {
        "sparsity": 0.3,
        "granularity": "hybrid",
        "hybrid": {"neuron": 0.2, "weight": 0.5},
        "threshold": {"absolute": 0.5},
        "schedule": {"kind": "gated"},
        "distribution": {"pi": 0.5},
        "groups": {"critic": {"sparsity": 0.5}},
        "penalty": {"kind": "group_lasso", "strength": 1},
    },
}


def test_wrong_pruning_blocks_have_the_faults_of_the_golden_file() -> None:
    found: dict[str, Any] = {}
    for field, values in WRONG.items():
        for value in values:
            block = {"sparsity": 0.5, field: value}
            found[f"{field}: {value!r}"] = PruningConfig.faults_of(block)
    for name, block in SEVERAL.items():
        found[name] = PruningConfig.faults_of(block)
    check("faults.json", found)


def test_choices_go_together_or_not_as_in_the_golden_file() -> None:
    found: dict[str, Any] = {}
    right: list[str] = []
    pairs = [(name, name) for name in RIGHT] + list(itertools.combinations(RIGHT, 2))
    for one, other in pairs:
        name = one if one == other else f"{one} + {other}"
        faults = PruningConfig.faults_of({"sparsity": 0.5, **RIGHT[one], **RIGHT[other]})
        if faults:
            found[name] = faults
        else:
            right.append(name)
    check("faults_of_pairs.json", {"faults": found, "no fault": right})


def test_the_constructor_raises_all_faults_without_the_prefix() -> None:
    found = {}
    for name in ("unknown", "one fault in each field", "hybrid with all that can't be"):
        for make in (PruningConfig.from_dict, PruningConfig):
            block = {str(key): value for key, value in SEVERAL[name].items()}
            with pytest.raises(RaypruneError) as raised:
                make(block) if make is not PruningConfig else make(**block)
            found[f"{name}, {make.__name__}"] = list(raised.value.faults)
    with pytest.raises(RaypruneError) as raised:
        PruningConfig(sparsity=0.5).replace(granularity="2:4", pooling="max")
    found["replace"] = list(raised.value.faults)
    check("faults_raised.json", found)


BASE = {"algorithm": "PPO", "env": "CartPole-v1", "pruning": {"sparsity": 0.5}}
OFFLINE = {**BASE, "algorithm": "BC", "stop": {"updates": 100}}
WAITING = {"sparsity": 0.5, "schedule": {"begin": {"return": 100}}}
GATED = {"schedule": {"kind": "gated", "reference": "dense"}}
# What replaces or adds to a file that is right; a text is a whole file.
FILES: dict[str, dict[str, Any] | str] = {
    "nothing": "",
    "a list": "[1, 2]\n",
    "not YAML": "algorithm: [PPO\nenv: x\n",
    "a key twice": "algorithm: PPO\nalgorithm: DQN\nenv: x\npruning: {sparsity: 0.5}\n",
    "a tab": "algorithm: PPO\n\tenv: x\n",
    "empty mapping": "{}\n",
    "yaml 1.2": (
        "algorithm: PPO\nenv: off\nseed: 1e3\npruning: {granularity: 2:4, sparsity: 3e-1}\n"
    ),
    "no algorithm": {"algorithm": None},
    "lower case": {"algorithm": "ppo"},
    "unknown algorithm": {"algorithm": "A2C"},
    "algorithm is a number": {"algorithm": 3},
    "no env": {"env": None},
    "empty env": {"env": ""},
    "env is a number": {"env": 3},
    "name with a slash": {"name": "a/b"},
    "unknown keys": {"prunning": {}, "zzz": 1, "Seed": 3},
    "seed": {"seed": -1},
    "seed is a text": {"seed": "5"},
    "seed is 1.5": {"seed": 1.5},
    "seed is too large": {"seed": 2**32},
    "no pruning": {"pruning": None},
    "pruning is a number": {"pruning": 0.5},
    "pruning's faults": {
        "pruning": {"sparsity": 2, "granulrity": "weight", "criterion": "fischer"}
    },
    "stop": {"stop": {"env_steps": 0, "return": "x", "updates": 1.5, "episodes": 3}},
    "empty stop": {"stop": {}},
    "stop is a number": {"stop": 1000},
    "stop at infinity": {"stop": {"return": INF}},
    "a return alone": {"stop": {"return": 100}},
    "updates alone": {"stop": {"updates": 100}},
    "offline without updates": {**OFFLINE, "stop": {"env_steps": 100}},
    "offline with steps": {**OFFLINE, "stop": {"env_steps": 100, "updates": 100}},
    "offline without a stop": {"algorithm": "CQL"},
    "evaluation": {
        "evaluation": {"every": 0, "episodes": "x", "max_steps": -1, "shifts": 3, "dense": ""}
    },
    "evaluation's unknown key": {"evaluation": {"episods": 3, "shifts": [3]}},
    "seeds that meet": {"seed": 10_005, "evaluation": {"test_seed": 10_010}},
    "seed among the tests": {"seed": 20_019},
    "waiting without validations": {"pruning": WAITING, "evaluation": {"every": None}},
    "gated without validations": {"pruning": GATED, "evaluation": {"every": None}},
    "gated by a dense policy that isn't": {"pruning": GATED},
    "missing checkpoints": {
        "start_from": "no/where",
        "evaluation": {"dense": "not/here"},
        "pruning": {"sparsity": 0.5, "distillation": {"from": "nor/here"}},
    },
    "taught by the start": {"pruning": {"sparsity": 0.5, "distillation": {"from": "start"}}},
    "transfer without a policy": {"transfer": {"fresh": True}},
    "transfer": {"transfer": {"target": "x", "fresh": 1, "from": 3}},
    "normalise": {"normalise": {"observations": 1, "reward": True}},
    "tracking": {"tracking": {"wandb": "yes", "project": "", "tensorbord": True}},
    "tracking is false": {"tracking": False},
    "rllib is a list": {"rllib": ["training"]},
    "a block is a number": {"rllib": {"training": 3}},
    "imports": {"imports": ["no_such_module_anywhere", ""]},
    "imports is a text": {"imports": "os"},
    "search is a list": {"search": [1]},
    "env_config is a list": {"env_config": [1]},
    "all at once": {
        "algorithm": "PPOO",
        "env": None,
        "seed": -1,
        "zzz": 1,
        "stop": {},
        "pruning": {"sparsity": 2},
        "evaluation": {"every": -1},
        "start_from": "no/where",
    },
}
OVERRIDES = {
    "no sign": ["pruning.sparsity"],
    "no key": ["=3"],
    "into a number": ["seed.x=3"],
    "not YAML": ["pruning.groups={a"],
    "wrong value": ["pruning.sparsity=2", "pruning.criterion=fischer"],
    "unknown": ["pruning.sparsty=0.5", "stpo.env_steps=3"],
    "the later wins": ["pruning.sparsity=2", "pruning.sparsity=0.5"],
}


def _faults(path: Path, overrides: list[str], **more: Any) -> list[str]:
    try:
        load_experiment(path, overrides, **more)
    except RaypruneError as error:
        faults = list(getattr(error, "faults", ())) or [f"{type(error).__name__}: {error}"]
        return [fault.replace(str(path.parent), "<folder>") for fault in faults]
    return []


def _text(content: dict[str, Any] | str) -> str:
    if isinstance(content, str):
        return content
    merged = {**BASE, **content}
    return json.dumps({k: v for k, v in merged.items() if v is not None}).replace(
        "Infinity", ".inf"
    )


def test_wrong_files_have_the_faults_of_the_golden_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, found = tmp_path / "wrong.yaml", {}
    found["no file"] = _faults(path, [])
    for name, content in FILES.items():
        path.write_text(_text(content), encoding="utf-8")
        found[name] = _faults(path, [])
    path.write_text(_text(FILES["all at once"]), encoding="utf-8")
    found["all at once, paths unchecked"] = _faults(path, [], check_paths=False)
    path.write_text(_text({}), encoding="utf-8")
    for name, overrides in OVERRIDES.items():
        found[f"--set, {name}"] = _faults(path, overrides)
    check("faults_of_files.json", found)
