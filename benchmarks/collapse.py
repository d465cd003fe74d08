"""Why returns collapse when pruning begins: PPO on Hopper-v5 from one trained policy, arm by arm.

    python benchmarks/collapse.py [--arms dense l1] [--seeds 0 1]  # run what is missing
    python benchmarks/collapse.py --until 300000                   # to the end, past the ramp's
    python benchmarks/collapse.py --tables                         # print what there is

Every arm of a seed goes on from the same checkpoint at 60,000 env steps (weights, moments, clocks
and generators; see ADR 0005), where the cubic ramp to 90 % begins, and trains on to 110,000, where
the ramp stands at 56 %, or to `--until`; the ramp ends at 240,000. So arms of a seed differ by what
their masks do and by nothing else, and the dense arm says what would have come without. Arms with
normalised observations or wider nets have a checkpoint of their own. A row per (arm, seed, until)
is appended to benchmarks/results/collapse.jsonl; what is there is not run again.

Returns are RLlib's training returns (mean of the last 20 episodes). A run has *fallen* when its
return was below half of the return at 60,000 steps. *KL* is of a mask update, KL(before || after)
in nats on the last four minibatches; beside it stands what PPO's own updates moved.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayprune.config import ExperimentConfig, load_experiment
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.learner.optimizers import forget_state
from rayprune.rllib.training import rows
from rayprune.rllib.training.failures import build
from rayprune.tracking.record import Record, read_rows

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "benchmarks" / "results" / "collapse.jsonl"
CONFIG = ROOT / "benchmarks" / "ppo_hopper.yaml"
BEGIN, UNTIL = 60_000, 110_000
MODULE = "default_policy"
PLAIN: tuple[str, ...] = ()
NORMALISED = ("normalise.observations=true",)
WIDE = ("rllib.rl_module.model_config.fcnet_hiddens=[256, 256]",)


@dataclass(frozen=True)
class Arm:
    """How a run goes on from the checkpoint."""

    prefix: str = "64"
    overrides: Sequence[str] = ()
    """As ``--set`` takes them."""
    forgets_moments: bool = False
    """Whether Adam's moments of all weights are zeroed after each mask update."""


PREFIXES: Mapping[str, Sequence[str]] = {"64": PLAIN, "normalised": NORMALISED, "256": WIDE}
KL, VALUE = "pruning.max_kl=0.01", "pruning.max_value_change=0.1"
SPARSER = "pruning.sparsity=0.97"
DENSE_VALUE = "pruning.groups={value: {sparsity: 0.0}}"
DENSE_POLICY = "pruning.groups={policy: {sparsity: 0.0}}"
ARMS: Mapping[str, Arm] = {
    "dense": Arm(overrides=["pruning.sparsity=0"]),
    "l1": Arm(),
    "l1, max_kl 0.01": Arm(overrides=[KL]),
    "wanda": Arm(overrides=["pruning.criterion=wanda"]),
    "l1, value net dense": Arm(overrides=[DENSE_VALUE]),
    "l1, policy dense": Arm(overrides=[DENSE_POLICY]),
    "l1, max_kl and max_value_change 0.1": Arm(overrides=[KL, VALUE]),
    "l1, moments forgotten": Arm(forgets_moments=True),
    "dense, normalised": Arm("normalised", ["pruning.sparsity=0"]),
    "l1, normalised": Arm("normalised"),
    "l1, a third of the learning rate": Arm(overrides=["rllib.training.lr=0.0001"]),
    "dense, 256x256": Arm("256", ["pruning.sparsity=0"]),
    "l1, 256x256": Arm("256"),
    "l1, 256x256, max_kl 0.01": Arm("256", [KL]),
    "97 %": Arm(overrides=[SPARSER]),
    "97 %, max_kl 0.01": Arm(overrides=[SPARSER, KL]),
    "97 %, value net dense": Arm(overrides=[SPARSER, DENSE_VALUE]),
    "97 %, policy dense": Arm(overrides=[SPARSER, DENSE_POLICY]),
    "97 %, normalised": Arm("normalised", [SPARSER]),
}


def experiment_of(overrides: Sequence[str], seed: int) -> ExperimentConfig:
    """Return the config of a run."""
    sets = [*overrides, f"seed={seed}"]
    return load_experiment(CONFIG, sets)


def prefix_of(name: str, seed: int) -> Path:
    """Train to the moment when pruning begins, unless that is done; return the checkpoint."""
    home = ROOT / "runs" / "collapse" / f"{name}-{seed}"
    if not (home / checkpoints.META_FILE).is_file():
        experiment = experiment_of(PREFIXES[name], seed)
        algorithm = build(build_config(experiment))
        steps, told = 0, []
        while steps < BEGIN - 2048:
            row = rows.row_of(algorithm.train(), len(told) + 1, 0.0, experiment)
            steps = row["env_steps"]
            told.append(row["return_mean"])
        meta = {"env_steps": steps, "pruning": rows.pruning_meta(algorithm), "return": told[-1]}
        checkpoints.save(algorithm, home, None, meta)
        algorithm.stop()
    return home


def run(name: str, seed: int, until: int) -> dict[str, Any]:
    """Go on from a checkpoint with one arm to so many env steps; return its row."""
    arm = ARMS[name]
    start = prefix_of(arm.prefix, seed)
    experiment = experiment_of([*PREFIXES[arm.prefix], *arm.overrides], seed)
    algorithm = build(build_config(experiment))
    before = float(checkpoints.restore(algorithm, start)["return"])
    curve: list[list[float]] = []
    updates: list[dict[str, Any]] = []
    moved: list[float] = []
    while not curve or curve[-1][0] < until:
        row = rows.row_of(algorithm.train(), len(curve) + 1, 0.0, experiment)
        curve.append([row["env_steps"], row["return_mean"], row["sparsity"]])
        updates += row.get("mask_updates", [])
        moved.append(row["learner"]["mean_kl_loss"])
        if arm.forgets_moments and row["mask_churn"] > 0:
            foreach_learner(algorithm, lambda learner: forget_state(learner, MODULE))
    algorithm.stop()
    return {"arm": name, "seed": seed, "until": until, **figures(before, curve, updates, moved)}


def figures(
    before: float,
    curve: Sequence[Sequence[float]],
    updates: Sequence[Mapping[str, Any]],
    moved: Sequence[float],
) -> dict[str, Any]:
    """Return what a run came to.

    Args:
        before: the return at the checkpoint.
        curve: env steps, return and sparsity of each iteration.
        updates: the mask updates.
        moved: KL of PPO's updates, one an iteration.
    """
    # The mean of the last 20 episodes is the old policy's for an iteration or two.
    lowest = min(curve[2:], key=lambda point: point[1])
    told = [update for update in updates if update["pruned"]]
    return {
        "before": before,
        "lowest": lowest[1],
        "lowest_at": lowest[0],
        "sparsity_at_lowest": lowest[2],
        "last": statistics.mean(point[1] for point in curve[-5:]),
        "sparsity": curve[-1][2],
        "kl": [update["kl"] for update in told],
        "value_change": [update["value_change"] for update in told],
        "taken": [update["taken"] for update in told if "taken" in update],
        "ppo_kl": statistics.median(moved),
        "curve": curve,
    }


def rows_to(until: int) -> list[dict[str, Any]]:
    """Return the rows of runs to so many env steps."""
    done = read_rows(ROWS) if ROWS.is_file() else []
    return [row for row in done if row.get("until", UNTIL) == until]


def show(until: int) -> None:
    """Print a table in Markdown, with the runs that there are."""
    done = rows_to(until)
    print("| arm | seeds | return at 60,000 | lowest after | last 10,000 steps | fallen |", end="")
    print(" sparsity | median KL (largest) | PPO's KL | median change of V (largest) |")
    print("|" + "---|" * 10)
    for arm in ARMS:
        own = [row for row in done if row["arm"] == arm]
        if own:
            fallen = sum(row["lowest"] < row["before"] / 2 for row in own)
            cells = [spread([row[key] for row in own]) for key in ("before", "lowest", "last")]
            sparsity = statistics.mean(row["sparsity"] for row in own)
            kl = largest([value for row in own for value in row["kl"]])
            value = largest([value for row in own for value in row["value_change"]])
            ppo = statistics.median(row["ppo_kl"] for row in own)
            print(
                f"| {arm} | {len(own)} | {' | '.join(cells)} | {fallen} of {len(own)} | "
                f"{sparsity:.2f} | {kl} | {ppo:.4f} | {value} |"
            )


def spread(values: Sequence[float]) -> str:
    """Return the median, and all of them where they are several.

    >>> spread([3.0, 1.0, 2.0]), spread([5.0])
    ('2 (1, 2, 3)', '5')
    """
    middle = f"{statistics.median(values):.0f}"
    every = ", ".join(f"{value:.0f}" for value in sorted(values))
    return middle if len(values) == 1 else f"{middle} ({every})"


def largest(values: Sequence[float]) -> str:
    """Return median and largest; a dash for none."""
    return f"{statistics.median(values):.4f} ({max(values):.3f})" if values else "-"


def main() -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="of these arms only")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="0 alone by default")
    parser.add_argument("--until", type=int, default=UNTIL, help="env steps; 110,000 by default")
    parser.add_argument("--tables", action="store_true", help="print the table, run nothing")
    args = parser.parse_args()
    for seed in args.seeds if not args.tables else ():
        for arm in args.arms or ARMS:
            if not any((row["arm"], row["seed"]) == (arm, seed) for row in rows_to(args.until)):
                row = run(arm, seed, args.until)
                with Record.open(ROWS) as record:
                    record.append(row)
                told = f"{arm} {seed}: {row['before']:.0f}, {row['lowest']:.0f}, {row['last']:.0f}"
                print(told, file=sys.stderr)
    show(args.until)
    return 0


if __name__ == "__main__":
    sys.exit(main())
