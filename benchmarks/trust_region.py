"""What `max_kl` does where cuts move a policy far: three tasks, ten seeds, four arms each.

    python benchmarks/trust_region.py [--tasks swimmer] [--seeds 0 1]  # run what is missing, print
    python benchmarks/trust_region.py --tables                         # print what there is

PPO trains a dense policy to 300,000 env steps, by the leaderboard's file of the task. From there
four arms go on (weights, moments, clocks and generators are the checkpoint's) to 450,000:

- dense: nothing is pruned;
- free: a cubic ramp takes the policy to 90 % until 425,000, with masks at every iteration;
- max_kl: the same, and no mask update moves the policy by more than 0.01 nats;
- as sparse: free, to the sparsity that max_kl reached in that seed, since a bound that pays with
  sparsity would look good by that alone.

No arm has a remedy, and the critic stays dense. A row per (task, arm, seed) is appended to
benchmarks/results/trust_region.jsonl; what is there is not run again. Returns are of validations
(greedy, ten episodes, every 50,000 steps); *lowest* and *end* are shares of the one at 300,000
steps, which the arms of a seed have in common, with the 95 % interval of the mean over seeds
(bootstrap), and *p* is of Wilcoxon's signed-rank test of an arm's end against free's, seed by seed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.branching import Arm, Study, largest
from benchmarks.commands import ROOT
from rayprune.rllib.cluster.connect import connect_with

TASKS: Final = ("swimmer", "hopper", "halfcheetah")
BEGIN, END, UNTIL, EVERY = 300_000, 425_000, 450_000, 50_000
TARGET, BOUND = 0.9, 0.01
DENSE, FREE, BOUNDED, AS_SPARSE = "dense", "free", "max_kl", "as sparse"
ARMS: Final = (DENSE, FREE, BOUNDED, AS_SPARSE)
ROWS: Final = ROOT / "benchmarks" / "results" / "trust_region.jsonl"
POLICY: Final = "policy"
COMMON: Final = (
    "pruning={criterion: l1, distribution: erk, groups: {value: {sparsity: 0}}, "
    f"schedule: {{kind: cubic, begin: {BEGIN}, end: {END}, every: 2048}}, sparsity: {TARGET}}}",
    "evaluation.every=null",
)


def study(task: str) -> Study:
    """Return the arms' common part for a task."""
    return Study(
        config=ROOT / "benchmarks" / "leaderboard" / "tasks" / f"{task}.yaml",
        begin=BEGIN,
        prefixes={f"trust-{task}": COMMON},
        rows=ROWS,
        validate_every=EVERY,
    )


def arm_of(name: str, task: str, reached: float | None) -> Arm:
    """Return an arm of a task.

    Args:
        name: of ARMS.
        task: of TASKS.
        reached: the policy's sparsity that BOUNDED ended at; AS_SPARSE alone needs it.
    """
    overrides = {
        DENSE: ["pruning.sparsity=0"],
        FREE: [],
        BOUNDED: [f"pruning.max_kl={BOUND}"],
        AS_SPARSE: [f"pruning.sparsity={reached}"],
    }[name]
    return Arm(prefix=f"trust-{task}", overrides=overrides)


def run(task: str, name: str, seed: int, done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Train an arm; return its row."""
    bounded = [row for row in done if _key(row) == (task, BOUNDED, seed)]
    reached = round(bounded[0]["groups"][POLICY], 4) if bounded else None
    figures = study(task).run(arm_of(name, task, reached), seed, UNTIL)
    return {"task": task, "arm": name, "seed": seed, **figures}


def _key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["task"], row["arm"], row["seed"]


def show(done: Sequence[Mapping[str, Any]]) -> None:
    """Print a table in Markdown, with the runs that there are."""
    print("| task | arm | seeds | lowest after | end | below half | policy's sparsity |", end="")
    print(" median KL of a mask update (largest) | p |")
    print("|" + "---|" * 9)
    for task in TASKS:
        free = {row["seed"]: _end(row) for row in done if _key(row)[:2] == (task, FREE)}
        for name in ARMS:
            own = [row for row in done if _key(row)[:2] == (task, name)]
            if own:
                print(_line(task, name, own, free))


def _line(task: str, name: str, own: Sequence[Mapping[str, Any]], free: Mapping[int, float]) -> str:
    lowest = [min(_validated(row)) for row in own]
    ends = {row["seed"]: _end(row) for row in own}
    cells = [
        task,
        name,
        str(len(own)),
        interval(lowest),
        interval(list(ends.values())),
        f"{sum(value < 0.5 for value in lowest)} of {len(own)}",
        f"{statistics.mean(row['groups'][POLICY] for row in own):.3f}",
        largest([value for row in own for value in row["kl"]]),
        p_value(ends, free) if name != FREE else "",
    ]
    return f"| {' | '.join(cells)} |"


def _validated(row: Mapping[str, Any]) -> list[float]:
    """Return the validations after the checkpoint's, as shares of that one."""
    before, *after = (value for _, value in row["validations"])
    return [value / before for value in after]


def _end(row: Mapping[str, Any]) -> float:
    return _validated(row)[-1]


def interval(values: Sequence[float]) -> str:
    """Return the mean, and its 95 % bootstrap interval where there are several values."""
    mean = f"{statistics.mean(values):.2f}"
    if len(values) == 1:
        return mean
    drawn = stats.bootstrap([values], np.mean, method="percentile", rng=0).confidence_interval
    return f"{mean} [{drawn.low:.2f}, {drawn.high:.2f}]"


def p_value(ends: Mapping[int, float], free: Mapping[int, float]) -> str:
    """Return p of Wilcoxon's test over the seeds that both have; a dash for fewer than six.

    >>> p_value({seed: seed + 1.0 for seed in range(6)}, {seed: 0.0 for seed in range(6)})
    '0.031'
    """
    common = sorted(ends.keys() & free.keys())
    if len(common) < 6:
        return "-"
    found = stats.wilcoxon([ends[seed] for seed in common], [free[seed] for seed in common])
    return f"{found.pvalue:.3f}"


def main() -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="of these only")
    parser.add_argument("--seeds", nargs="+", type=int, default=range(10), help="0 to 9")
    parser.add_argument("--tables", action="store_true", help="print the table, run nothing")
    args = parser.parse_args()
    if not args.tables:
        connect_with("local", lambda: 1)
        wanted = [(task, arm, s) for s in args.seeds for task in args.tasks for arm in ARMS]
        for task, arm, seed in wanted:
            done = study(task).done()
            if (task, arm, seed) not in map(_key, done):
                row = run(task, arm, seed, done)
                study(task).append(row)
                told = ", ".join(f"{value:.0f}" for _, value in row["validations"])
                print(f"{task} {arm} {seed}: {told} at {row['groups']}", file=sys.stderr)
    show(study(TASKS[0]).done())
    return 0


if __name__ == "__main__":
    sys.exit(main())
