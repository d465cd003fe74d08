"""Three tiny trainings: masks, sparsities, and the keys of all that a run writes."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import doors
from tests.golden.nets import BITS, check, described, digest, key_paths
from tests.rllib import experiments

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(200)]

_CHANCE = "/dead_units/"
"""Which layers have dead units is learnt, so that another CPU may see others."""
MODULE = "default_policy/module_state.pkl"
STOP: dict[str, Any] = {"stop": {"env_steps": 800}, "evaluation": {"every": 400, "episodes": 2}}
TIMES = {"begin": 100, "end": 500, "every": 200}
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ppo l1 distilled": (
        experiments.PPO,
        {
            **STOP,
            "pruning": {
                "sparsity": 0.8,
                "schedule": {"kind": "cubic", **TIMES},
                "distillation": {"weight": 0.5},
                "plasticity": {"every": 20},
            },
        },
    ),
    "ppo neuron compacted": (
        experiments.PPO,
        {
            **STOP,
            "pruning": {
                "sparsity": 0.5,
                "granularity": "neuron",
                "compact_every": 200,
                "schedule": {"kind": "linear", **TIMES},
            },
        },
    ),
    "dqn rigl": (
        experiments.DQN,
        {
            "stop": {"env_steps": 400},
            "evaluation": {"every": 200, "episodes": 2},
            "pruning": {
                "sparsity": 0.7,
                "schedule": {"kind": "rigl", "begin": 0, "end": 400, "every": 100},
            },
        },
    ),
}


def _run(name: str, out: Path) -> dict[str, Any]:
    base, changes = RUNS[name]
    experiments.train(experiments.experiment(copy.deepcopy(base), **changes), out)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    summary = json.loads((out / "summary.json").read_text())
    held = out / summary["checkpoint"] / "learner_group" / "learner"
    learner = _unpickled(held / "state.pkl")
    pruning = _pruning(learner)
    return {
        "files": sorted(_plain(p.relative_to(out)) for p in out.rglob("*") if p.is_file()),
        "env steps": [round(row["env_steps"], -1) for row in rows],
        "sparsities": _all(rows, "sparsity"),
        "rows": sorted({line for row in rows for line in key_paths(row) if _CHANCE not in line}),
        "summary": key_paths(summary),
        "sparsity": summary["sparsity"],
        "parameters": summary["parameters"],
        "learner's keys": list(learner),
        "pruning's keys": key_paths(pruning),
        BITS: {
            "masks": digest(*_masks(pruning)),
            "pruning": described(pruning),
            "env steps": [row["env_steps"] for row in rows],
            "returns": summary["returns"],
            "weights": described(_unpickled(held / "rl_module" / MODULE)),
        },
    }


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)


def _plain(path: Path) -> str:
    """Return a path, with one name for what is called by a step, a time or a process."""
    parts = ["<events>" if part.startswith("events.out") else part for part in path.parts]
    return re.sub(r"\d{9}", "<step>", "/".join(parts))


def _pruning(state: dict[str, Any]) -> dict[str, Any]:
    """Return what rayprune holds in a Learner's state."""
    (held,) = [v for v in state.values() if isinstance(v, dict) and "unsaved" in v]
    return held


def _masks(state: Any, inside: bool = False) -> list[Any]:
    if isinstance(state, dict):
        return [a for k, v in state.items() for a in _masks(v, inside or k == "masks")]
    return [state] if inside and isinstance(state, np.ndarray) else []


def _all(rows: Any, key: str) -> list[Any]:
    """Return what lies under a key, at any depth, in order."""
    if isinstance(rows, dict):
        own = [rows[key]] if key in rows else []
        return own + [x for k, v in rows.items() if k != key for x in _all(v, key)]
    return [x for row in rows for x in _all(row, key)] if isinstance(rows, list) else []


@pytest.fixture(scope="module")
def runs(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_trainings_write_what_the_golden_file_holds(runs: Path) -> None:
    found = {name: _run(name, runs / name.replace(" ", "_")) for name in RUNS}
    check("training.json", found)


def test_a_certificates_keys_are_those_of_the_golden_file(runs: Path, tmp_path: Path) -> None:
    pruned, dense = (runs / name.replace(" ", "_") for name in [*RUNS][:2])
    found = doors.certify(dense, pruned, tmp_path / "certificate")
    files = sorted(path.name for path in (tmp_path / "certificate").iterdir())
    pairs = (tmp_path / "certificate" / "pairs.jsonl").read_text().splitlines()
    keys = {"certificate": key_paths(found), "pair": key_paths(json.loads(pairs[0]))}
    check("certificate.json", {**keys, "files": files, "verdict": found["verdict"]})
