"""Presets trained to their end, dense and pruned: what they earn, and how long they take.

    python benchmarks/presets.py tqc_pendulum [--arms dense] [--seeds 0 1]  # run what is missing
    python benchmarks/presets.py --tables                                   # print what there is

A row per (preset, arm, seed) is appended to benchmarks/results/presets.jsonl; one that is there is
not run again. What learns from data is given the episodes of another preset's policy, as the head
of its file says, recorded once under runs/presets/. benchmarks/preset_headers.py writes the rows
into the presets.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.commands import ROOT, json_of
from rayprune.tracking.record import Record, read_rows

HOME = ROOT / "runs" / "presets"
ROWS = ROOT / "benchmarks" / "results" / "presets.jsonl"

ARMS: Final[Mapping[str, tuple[str, ...]]] = {"dense": ("pruning.sparsity=0",), "pruned": ()}
"""Name -> overrides, as ``--set`` takes them."""

SOURCES: Final[Mapping[str, str]] = {
    "marwil_cartpole": "ppo_cartpole",
    "iql_pendulum": "sac_pendulum",
    "cql_pendulum": "sac_pendulum",
    "bc_cartpole": "ppo_cartpole",
}
"""Preset -> the one whose policy it learns from; all others sample for themselves."""

SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    # It holds the pole from some 40,000 steps on.
    "ppo_cartpole": (*("--set", "pruning.sparsity=0"), *("--set", "stop.env_steps=60000")),
    "sac_pendulum": ("--set", "pruning.sparsity=0"),
}
"""Of those policies' own training."""


def run(preset: str, arm: str, seed: int) -> dict[str, Any]:
    """Train a preset; return its row."""
    source, place = SOURCES.get(preset), HOME / f"{preset}-{arm}-{seed}"
    overrides = [*ARMS[arm], "tracking={wandb: off, tensorboard: false}"]
    if source:
        overrides.append(f"rllib.offline_data.input_=[{recorded(source)}]")
    command = ["train", preset]
    for override in overrides:
        command += ["--set", override]
    resume = ["--resume"] if (place / "config.yaml").is_file() else []
    began = time.perf_counter()
    answer = json_of([*command, "--seed", str(seed), "--out", str(place), *resume])
    test = answer["returns"]["test"]
    return {
        "preset": preset,
        "arm": arm,
        "seed": seed,
        "env_steps": answer["env_steps"],
        "updates": answer["updates"],
        "sparsity": answer["sparsity"]["prunable"],
        "groups": answer["sparsity"]["groups"],
        "nonzero": answer["parameters"]["nonzero"],
        "onnx_bytes": exported(place),
        "test": {key: test[key] for key in ("iqm", "ci95", "mean", "episodes")},
        "wall_time_s": round(time.perf_counter() - began, 1),
        "train_time_s": answer["wall_time_s"],
    }


def exported(place: Path) -> int:
    """Return what the run's policy takes as a file."""
    file = place / "policy.onnx"
    json_of(["export", str(place), "--format", "onnx", "--out", str(file)])
    return file.stat().st_size


def recorded(source: str) -> Path:
    """Return the folder of a preset's episodes, trained and recorded if they aren't there."""
    place, data = HOME / source, HOME / f"data-{source}"
    if not data.is_dir():
        if not (place / "summary.json").is_file():
            json_of(["train", source, "--out", str(place), *SETTINGS[source]])
        json_of(["record", str(place), "--out", str(data), "--episodes", "50", "--explore"])
    return data


def show(preset: str) -> None:
    """Print a preset's rows in Markdown."""
    rows = [row for row in read_rows(ROWS) if row["preset"] == preset]
    for row in sorted(rows, key=lambda row: (row["arm"], row["seed"])):
        low, high = row["test"]["ci95"]
        print(
            f"| {preset} | {row['arm']} | {row['seed']} | {row['sparsity']:.3f} | "
            f"{row['test']['iqm']:.1f} [{low:.1f}, {high:.1f}] | {row['wall_time_s']:.0f} s |"
        )


def main() -> int:
    """Run what is missing of the presets named, then print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="presets to complete")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--tables", action="store_true", help="print all, run nothing")
    args = parser.parse_args()
    for preset in () if args.tables else args.names:
        for seed in args.seeds:
            for arm in args.arms:
                key = {"preset": preset, "arm": arm, "seed": seed}
                done = read_rows(ROWS) if ROWS.is_file() else []
                if not any(key.items() <= row.items() for row in done):
                    with Record.open(ROWS) as record:
                        record.append(run(preset, arm, seed))
    print("| preset | arm | seed | sparsity | test return, IQM [95 %] | whole command |")
    print("|---|---|---|---|---|---|")
    for preset in args.names or dict.fromkeys(row["preset"] for row in read_rows(ROWS)):
        show(preset)
    return 0


if __name__ == "__main__":
    sys.exit(main())
