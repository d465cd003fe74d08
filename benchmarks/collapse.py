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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.branching import Arm, Study, largest, spread
from benchmarks.commands import ROOT

UNTIL = 110_000
STUDY = Study(
    config=ROOT / "benchmarks" / "ppo_hopper.yaml",
    begin=60_000,
    prefixes={
        "64": (),
        "normalised": ("normalise.observations=true",),
        "256": ("rllib.rl_module.model_config.fcnet_hiddens=[256, 256]",),
    },
    rows=ROOT / "benchmarks" / "results" / "collapse.jsonl",
)
KL, VALUE = "pruning.max_kl=0.01", "pruning.max_value_change=0.1"
SPARSER = "pruning.sparsity=0.97"
DENSE_VALUE = "pruning.groups={value: {sparsity: 0.0}}"
DENSE_POLICY = "pruning.groups={policy: {sparsity: 0.0}}"
ARMS: Mapping[str, Arm] = {
    "dense": Arm(prefix="64", overrides=["pruning.sparsity=0"]),
    "l1": Arm(prefix="64"),
    "l1, max_kl 0.01": Arm(prefix="64", overrides=[KL]),
    "wanda": Arm(prefix="64", overrides=["pruning.criterion=wanda"]),
    "l1, value net dense": Arm(prefix="64", overrides=[DENSE_VALUE]),
    "l1, policy dense": Arm(prefix="64", overrides=[DENSE_POLICY]),
    "l1, max_kl and max_value_change 0.1": Arm(prefix="64", overrides=[KL, VALUE]),
    "l1, moments forgotten": Arm(prefix="64", forgets_moments=True),
    "dense, normalised": Arm(prefix="normalised", overrides=["pruning.sparsity=0"]),
    "l1, normalised": Arm(prefix="normalised"),
    "l1, a third of the learning rate": Arm(prefix="64", overrides=["rllib.training.lr=0.0001"]),
    "dense, 256x256": Arm(prefix="256", overrides=["pruning.sparsity=0"]),
    "l1, 256x256": Arm(prefix="256"),
    "l1, 256x256, max_kl 0.01": Arm(prefix="256", overrides=[KL]),
    "97 %": Arm(prefix="64", overrides=[SPARSER]),
    "97 %, max_kl 0.01": Arm(prefix="64", overrides=[SPARSER, KL]),
    "97 %, value net dense": Arm(prefix="64", overrides=[SPARSER, DENSE_VALUE]),
    "97 %, policy dense": Arm(prefix="64", overrides=[SPARSER, DENSE_POLICY]),
    "97 %, normalised": Arm(prefix="normalised", overrides=[SPARSER]),
}


def rows_to(until: int) -> list[dict[str, Any]]:
    """Return the rows of runs to so many env steps."""
    return [row for row in STUDY.done() if row.get("until", UNTIL) == until]


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
                figures = STUDY.run(ARMS[arm], seed, args.until)
                row = {"arm": arm, "seed": seed, "until": args.until, **figures}
                STUDY.append(row)
                told = f"{arm} {seed}: {row['before']:.0f}, {row['lowest']:.0f}, {row['last']:.0f}"
                print(told, file=sys.stderr)
    show(args.until)
    return 0


if __name__ == "__main__":
    sys.exit(main())
