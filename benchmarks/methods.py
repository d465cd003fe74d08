"""Pruning methods against dense, small dense and one another, on whole training runs.

    python benchmarks/methods.py cartpole [--arms dense cubic] [--seeds 0 1]  # run what is missing
    python benchmarks/methods.py --tables                                     # print what there is

A row per (table, arm, seed) is appended to benchmarks/results/methods.jsonl, and one that is there
is not run again; a run that was interrupted goes on. All arms of a table train for the same env
steps. *Small dense* is a dense network with as many parameters as the pruned ones keep.

Two scores per run: the test return of the checkpoint that the run hands over, chosen by validation
(mean of 100 episodes on seeds that nothing else used), and the mean of the last tenth of its
validations (Agarwal et al. 2021 and Obando-Ceron et al. 2024 score so), which no choice flatters.
Tables hold the IQM over runs with its 95 % bootstrap interval over runs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.commands import ROOT, json_of
from rayprune.statistics.intervals import summarise
from rayprune.tracking.record import Record, read_rows

ROWS = ROOT / "benchmarks" / "results" / "methods.jsonl"
TEST_EPISODES = 100


@dataclass(frozen=True)
class Table:
    """Arms that are compared on one task."""

    config: str
    """Path in the repository."""
    seeds: int
    arms: Mapping[str, Sequence[str]]
    """Name -> overrides of the config, as ``--set`` takes them."""


ERK, UNIFORM = "pruning.distribution=erk", "pruning.distribution=uniform"
RIGL = "{kind: rigl, begin: 0.0, end: 0.75, every: 4000, minibatches: 100}"
DENSE = ("pruning.sparsity=0",)
HALF = ("pruning.granularity=neuron", "pruning.sparsity=0.5", UNIFORM)
ACTOR_AND_CRITIC = (
    "pruning.groups={policy: {schedule: {kind: static}}, "
    "value: {schedule: {kind: rigl, begin: 0.0, end: 0.75, every: 4096, minibatches: 64}}}"
)
NEURONS = ("pruning.granularity=neuron", "pruning.sparsity=0.75")


# The first layers' six inputs are no multiple of eight.
N_OF_M = (
    "pruning.granularity='1:8'",
    "pruning.sparsity=null",
    "pruning.distribution=uniform",
    "pruning.protect=['encoder.*.mlp.0']",
)


# Of 64 units a value head of 1:8 reads 8, and the others learn nothing.
N_OF_M_INSIDE = (*N_OF_M[:-1], "pruning.protect=['encoder.*.mlp.0', 'pi*', 'vf*']")
RARELY = "{kind: rigl, begin: 0.0, end: 0.75, every: 8192, minibatches: 64}"


def small(hidden: int) -> tuple[str, ...]:
    """Return the overrides of a dense net with two hidden layers of another width."""
    return (*DENSE, f"rllib.rl_module.model_config.fcnet_hiddens=[{hidden}, {hidden}]")


def schedule(text: str) -> str:
    """Return the override of the schedule."""
    return f"pruning.schedule={text}"


TABLES = {
    # 79 x 79 has 6,875 parameters in the policy; 256 x 256 at 90.5 % keeps 6,886, biases included.
    "cartpole": Table(
        "tune_configs/classic/ppo_cartpole.yaml",
        5,
        {
            "dense": DENSE,
            "small dense": small(79),
            "cubic": (),
            "static": (ERK, schedule("{kind: static}")),
            "SET": (ERK, schedule("{kind: set, begin: 0.0, end: 0.75, every: 4000}")),
            "RigL": (ERK, schedule(RIGL)),
            "lottery": (
                schedule("{kind: lottery, rounds: 3, rewind_to: 4000, round_steps: 26000}"),
            ),
            "neurons": NEURONS,
            "neurons live": (*NEURONS, "pruning.compact_every=10000"),
        },
    ),
    "lunarlander": Table(
        "tune_configs/classic/ppo_lunarlander.yaml",
        3,
        {
            "dense": DENSE,
            "small dense": small(77),
            "cubic": (UNIFORM,),
            "cubic ERK": (ERK,),
            "RigL": (ERK, schedule(RIGL.replace("4000", "16384"))),
            "neurons": (*NEURONS, UNIFORM),
            "neurons live": (*NEURONS, UNIFORM, "pruning.compact_every=20000"),
        },
    ),
    # No ceiling that a net of this size reaches: what a method costs is seen.
    "acrobot": Table(
        "benchmarks/ppo_acrobot.yaml",
        3,
        {
            "dense": DENSE,
            "cubic": (),
            "static": (schedule("{kind: static}"),),
            "revive": (schedule("{kind: revive, begin: 0.2, reserve: 0.1}"),),
            "static actor, RigL critic": (ACTOR_AND_CRITIC,),
            "neurons": HALF,
            "dormant neurons": (*HALF, "pruning.criterion=dormant"),
            "1:8 cubic": N_OF_M,
            "1:8 from the start": (*N_OF_M, schedule(RARELY)),
            "1:8 from the start, dense heads": (*N_OF_M_INSIDE, schedule(RARELY)),
            "SNIP at init": (
                "pruning.criterion=snip",
                "pruning.evidence={objective: loss}",
                schedule("{kind: at_init, minibatches: 32}"),
            ),
            "gates": (
                "pruning.granularity=neuron",
                "pruning.sparsity=null",
                "pruning.threshold={absolute: 0.0}",
                UNIFORM,
                "pruning.penalty={kind: gates, strength: 0.3}",
                schedule("{kind: linear, begin: 0.1, end: 0.8, every: 2048}"),
            ),
        },
    ),
    # EauDeQN needs Q-values: three networks cost three gradient steps each.
    "acrobot_dqn": Table(
        "benchmarks/dqn_acrobot.yaml",
        3,
        {
            "dense": DENSE,
            "cubic": (),
            "adaptive": (
                schedule(
                    "{kind: adaptive, begin: 0.2, end: 0.8, every: 250, networks: 3, step: 0.02}"
                ),
            ),
        },
    ),
}


def run(table: str, arm: str, seed: int) -> dict[str, Any]:
    """Train one arm with one seed, or go on with it; return its row."""
    spec, home = (
        TABLES[table],
        ROOT / "runs" / "methods" / table / f"{arm.replace(' ', '_')}-{seed}",
    )
    overrides = ["evaluation.dense=null", "tracking={wandb: off, tensorboard: false}"]
    command = ["train", str(ROOT / spec.config)]
    for override in [*overrides, *spec.arms[arm]]:
        command += ["--set", override]
    resume = ["--resume"] if (home / "config.yaml").is_file() else []
    answer = json_of([*command, "--seed", str(seed), "--out", str(home), *resume])
    evaluate = ["evaluate", str(home), "--episodes", str(TEST_EPISODES)]
    test = json_of(evaluate)["returns"]["test"]
    rows = [row for row in read_rows(home / "results.jsonl") if row.get("validation")]
    last = rows[-math.ceil(len(rows) / 10) :]
    return {
        "table": table,
        "arm": arm,
        "seed": seed,
        "env_steps": answer["env_steps"],
        "sparsity": answer["sparsity"]["prunable"],
        "parameters": answer["parameters"]["nonzero"],
        "test": test["mean"],
        "test_episodes": TEST_EPISODES,
        "last_tenth": sum(row["validation"]["mean"] for row in last) / len(last),
        "wall_time_s": answer["wall_time_s"],
    }


def show(table: str) -> None:
    """Print a table in Markdown, with the runs that there are."""
    rows = [row for row in read_rows(ROWS) if row["table"] == table]
    if not rows:
        return
    print(f"\n### {table}, {rows[0]['env_steps']:,} env steps\n")
    print("| arm | runs | sparsity | parameters | test return | last tenth of validations |")
    print("|---|---|---|---|---|---|")
    for arm in TABLES[table].arms:
        own = [row for row in rows if row["arm"] == arm]
        if own:
            sparsity = sum(row["sparsity"] for row in own) / len(own)
            parameters = round(sum(row["parameters"] for row in own) / len(own))
            scores = [cell([row[key] for row in own]) for key in ("test", "last_tenth")]
            print(
                f"| {arm} | {len(own)} | {sparsity:.3f} | {parameters:,} | {' | '.join(scores)} |"
            )


def cell(values: Sequence[float]) -> str:
    """Return the IQM over runs with its interval."""
    found = summarise(values, over="runs")
    low, high = found["ci95"]
    return f"{found['iqm']:.1f} [{low:.1f}, {high:.1f}]"


def main() -> int:
    """Run what is missing of the tables named, then print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *TABLES], help="tables to complete")
    parser.add_argument("--arms", nargs="+", help="of these arms only")
    parser.add_argument("--seeds", nargs="+", type=int, help="of these seeds only")
    parser.add_argument("--tables", action="store_true", help="print all tables, run nothing")
    args = parser.parse_args()
    for name in args.names if not args.tables else ():
        for seed in args.seeds or range(TABLES[name].seeds):
            for arm in args.arms or TABLES[name].arms:
                key = {"table": name, "arm": arm, "seed": seed}
                done = read_rows(ROWS) if ROWS.is_file() else []
                if not any(key.items() <= row.items() for row in done):
                    row = run(name, arm, seed)
                    with Record.open(ROWS) as record:
                        record.append(row)
                    print(f"{name} {arm} {seed}: {row['test']:.1f}", file=sys.stderr)
    for name in args.names or TABLES:
        show(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
