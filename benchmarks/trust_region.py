"""What `max_kl` does where cuts move a policy far: three tasks, ten seeds, five arms each.

    python benchmarks/trust_region.py [--tasks swimmer] [--seeds 0 1]  # run what is missing, print
    python benchmarks/trust_region.py --tables                         # print what there is

PPO trains a dense policy to 300,000 env steps, by the leaderboard's file of the task. From there
five arms go on (weights, moments, clocks and generators are the checkpoint's) to 450,000:

- dense: nothing is pruned;
- free: a cubic ramp takes the policy to 90 % until 425,000, with masks at every iteration;
- max_kl: the same, and no mask update moves the policy by more than 0.01 nats;
- as sparse: free, to the sparsity that max_kl reached in that seed, since a bound that pays with
  sparsity would look good by that alone;
- made up for: free, with what is left making up for each cut (`remedies: {reconstruct: true}`).

No arm holds the deviation, and the critic stays dense. A row per (task, arm, seed) is appended to
benchmarks/results/trust_region.jsonl; what is there is not run again. Returns are of validations
(greedy, ten episodes, every 50,000 steps); *lowest* and *end* are shares of the one at 300,000
steps, which the arms of a seed have in common, with the 95 % interval of the mean over seeds
(bootstrap), and *p* is of Wilcoxon's signed-rank test against free's, seed by seed; *below half*
are runs with a validation below half of that at 300,000.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
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
MADE_UP_FOR: Final = "made up for"
ARMS: Final = (DENSE, FREE, BOUNDED, AS_SPARSE, MADE_UP_FOR)
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
        MADE_UP_FOR: ["pruning.remedies={reconstruct: true}"],
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
    print(
        "| task | arm | seeds | lowest after | p | end | p | below half | policy's sparsity |",
        end="",
    )
    print(" median KL of a mask update (largest) |")
    print("|" + "---|" * 10)
    for task in TASKS:
        of_task = {name: [r for r in done if _key(r)[:2] == (task, name)] for name in ARMS}
        for name, own in of_task.items():
            if own:
                print(_line(task, name, own, of_task[FREE]))


def _line(
    task: str, name: str, own: Sequence[Mapping[str, Any]], free: Sequence[Mapping[str, Any]]
) -> str:
    lowest, ends = _by_seed(own, min), _by_seed(own, _last)
    cells = [
        task,
        name,
        str(len(own)),
        interval([*lowest.values()]),
        p_value(lowest, _by_seed(free, min)) if name != FREE else "",
        interval([*ends.values()]),
        p_value(ends, _by_seed(free, _last)) if name != FREE else "",
        f"{sum(value < 0.5 for value in lowest.values())} of {len(own)}",
        f"{statistics.mean(row['groups'][POLICY] for row in own):.3f}",
        largest([value for row in own for value in row["kl"]]),
    ]
    return f"| {' | '.join(cells)} |"


def _by_seed(
    own: Sequence[Mapping[str, Any]], of: Callable[[list[float]], float]
) -> dict[int, float]:
    """Return a figure of each run's validations, by its seed."""
    return {row["seed"]: of(_validated(row)) for row in own}


def _last(values: list[float]) -> float:
    return values[-1]


def _validated(row: Mapping[str, Any]) -> list[float]:
    """Return the validations after the checkpoint's, as shares of that one."""
    before, *after = (value for _, value in row["validations"])
    return [value / before for value in after]


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
