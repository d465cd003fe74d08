"""Making: a cell's policy, by `rayprune train`, `prune`, `export` and `bench`, and its row."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.commands import ROOT, json_of
from benchmarks.leaderboard import playing
from benchmarks.leaderboard.cells import RANDOM, Cell, parts
from benchmarks.leaderboard.tasks import TASKS
from rayprune import yaml12
from rayprune.tracking.record import read_rows, step_of, write_atomic

TARGETS: Final = ("host", "cortex-m4")
FILE: Final = "policy.c"
EPISODES: Final = 200
"""Recorded for a task that learns from data."""


def make(cell: Cell, runs: Path, configs: Path) -> dict[str, Any]:
    """Make a cell's policy, or go on with it, and return its row.

    Args:
        cell: which.
        runs: where the runs' folders lie.
        configs: where resolved configs are kept beside the rows.

    Raises:
        CommandError: a command failed; holds the end of what it said.
    """
    began, task = time.perf_counter(), TASKS[cell.task]
    if cell.arm == RANDOM:
        returns = playing.random_returns(task)
        return {**cell.key, "score": playing.summary(returns), "returns": playing.short(returns)}
    run = runs / cell.name
    commands = _policy(cell, run, runs)
    file = run / FILE
    commands.append(["export", str(run), "--format", "c", "--out", str(file), "--overwrite"])
    certificate = json_of(commands[-1])
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return {
        **cell.key,
        **_trained(run, summary),
        "actor": _actor(summary),
        "flops": summary["flops"],
        "file": _file(file, certificate),
        "targets": _targets(file),
        **playing.scores(task, file),
        "commands": [_told(command, runs) for command in commands],
        "config": kept_config(cell, run, configs),
        "versions": certificate["about"]["versions"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def _policy(cell: Cell, run: Path, runs: Path) -> list[list[str]]:
    """Train or prune the policy where that isn't done; return the commands."""
    task, arm = parts(cell)
    settings = [x for each in arm.settings(task, cell.sparsity) for x in ("--set", each)]
    done = (run / "summary.json").is_file()
    if arm.cuts and cell.before:
        command = ["prune", str(runs / cell.before.name), "--out", str(run), *settings]
        if not done:
            shutil.rmtree(run, ignore_errors=True)  # a cut takes seconds: it is done again
            json_of(command)
        return [command]
    recording: list[list[str]] = []
    if (task.data or arm.clones) and cell.before:
        data, told = _recorded(runs / cell.before.name)
        recording.append(told)
        settings += ["--set", f"rllib.offline_data.input_=[{data}]"]
    config = os.path.relpath(task.config, ROOT)
    command = ["train", config, *settings, "--seed", str(cell.seed), "--out", str(run)]
    if not done:
        json_of([*command, *(["--resume"] if (run / "config.yaml").is_file() else [])])
    return [*recording, command]


def _recorded(run: Path) -> tuple[Path, list[str]]:
    """Return the folder of a policy's episodes, recorded if they aren't there, and the command."""
    data = run.with_name(f"{run.name}-episodes")
    episodes = ["--episodes", str(EPISODES), "--explore"]
    if not data.is_dir():
        # Another cell may record them, too, and one that is killed leaves half of them.
        own = data.with_name(f".{data.name}.{os.getpid()}")
        json_of(["record", str(run), "--out", str(own), *episodes])
        with contextlib.suppress(OSError):  # the other one was first
            own.rename(data)
        shutil.rmtree(own, ignore_errors=True)
    return data, ["record", str(run), "--out", str(data), *episodes]


def _trained(run: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's own files say of its training; nothing of a cut, which has none."""
    if not (run / "results.jsonl").is_file():
        return {"env_steps": 0, "train_s": 0.0, "curve": []}
    rows = read_rows(run / "results.jsonl")
    curve = [[step_of(r), round(r["validation"]["mean"], 2)] for r in rows if r.get("validation")]
    last = curve[-math.ceil(len(curve) / 10) :]
    return {
        "env_steps": summary["env_steps"] or 0,
        "updates": summary["updates"],
        "train_s": summary["wall_time_s"],
        "checkpoint": summary["checkpoint"],
        "curve": curve,
        "last_tenth": round(sum(value for _, value in last) / len(last), 2),
        "mask_kl": mask_kl(rows),
    }


def mask_kl(rows: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return how far a run's mask updates moved the policy, in nats; None where none did.

    >>> mask_kl([{"mask_updates": [{"pruned": 3, "kl": 0.2}, {"pruned": 0, "kl": 0.0}]}])
    {'median': 0.2, 'largest': 0.2}
    """
    updates = [update for row in rows for update in row.get("mask_updates", ())]
    moved = [u["kl"] for u in updates if u["pruned"] and u.get("kl") is not None]
    if not moved:
        return None
    return {"median": round(statistics.median(moved), 5), "largest": round(max(moved), 5)}


def _actor(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of the layers that act, and how many of them are left."""
    acts = [layer for layer in summary["sparsity"]["layers"] if layer["group"] != "value"]
    total = sum(layer["total"] for layer in acts)
    nonzero = sum(layer["nonzero"] for layer in acts)
    return {
        "weights": total,
        "nonzero": nonzero,
        "sparsity": round(1 - nonzero / total, 4),
        "unplugged": summary["sensors"]["unplugged"] if summary.get("sensors") else [],
    }


def _file(file: Path, certificate: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bytes": certificate["bytes"],
        "sha256": certificate["sha256"],
        "weights_sha256": certificate["about"]["weights_sha256"],
        "proven": certificate["proven"],
        "parameters": certificate["parameters"]["total"],
        "name": file.name,
    }


def _targets(file: Path) -> dict[str, Any]:
    """Return what the file takes on each target that has its tools here."""
    from rayprune.deploy.targets import target_class

    names = [name for name in TARGETS if not target_class(name)(name).missing()]
    if not names:
        return {}
    options = [x for name in names for x in ("--target", name)]
    measured = json_of(["bench", str(file), *options])["measurements"]
    kept = ("flash_bytes", "ram_bytes", "instructions", "latency_us", "self_test")
    return {each["target"]: {key: each[key] for key in kept} for each in measured}


def kept_config(cell: Cell, run: Path, configs: Path) -> dict[str, str]:
    """Keep the resolved config beside the rows, once for all seeds; return where, and its hash.

    A run whose settings differ in more than its seed, since its task's file was changed, has a
    file of its own.
    """
    text = (run / "config.yaml").read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    plain = configs / f"{cell.name.rpartition('-seed')[0]}.yaml"
    kept = [plain, *sorted(plain.parent.glob(f"{plain.stem}-{'[0-9a-f]' * 8}.yaml"))]
    for place in kept:
        if place.is_file() and _but_seed(place.read_text(encoding="utf-8")) == _but_seed(text):
            break
    else:
        place = plain.with_name(f"{plain.stem}-{digest[:8]}.yaml") if plain.is_file() else plain
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, text)
    return {"file": place.relative_to(configs.parent).as_posix(), "sha256": digest}


def _but_seed(config: str) -> Any:
    """Return what a config says, its seed and that of the episodes that it learns from left out.

    So are versions, which the row has itself.
    """
    held = yaml12.parse(re.sub(r"[^\s,\[\]]*-seed\d+-episodes", "EPISODES", config))
    return {key: value for key, value in held.items() if key not in ("seed", "versions")}


def _told(command: Sequence[str], runs: Path) -> str:
    """Return a command as a person types it in the repository's root."""
    words = [word.replace(str(runs), "runs/leaderboard") for word in command]
    return shlex.join(["rayprune", *words])
