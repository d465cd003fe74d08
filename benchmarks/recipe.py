"""What `pruning: {recipe: recommended}` does to the demo's curve: CartPole, with it and without.

    python benchmarks/recipe.py [--seeds 0 1]   # run what is missing, then print
    python benchmarks/recipe.py --tables        # print what there is

A row per (arm, seed) is appended to benchmarks/results/recipe.jsonl; a run that was interrupted
goes on. A *dip* is the lowest validation (20 episodes, every 4,000 env steps) from the first at 475
or more on; *in training* the lowest mean return of an iteration from the first at 475 after that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.commands import ROOT, json_of
from rayprune.tracking.record import Record, read_rows

ROWS: Final = ROOT / "benchmarks" / "results" / "recipe.jsonl"
RUNS: Final = ROOT / "runs" / "recipe"
SOLVED: Final = 475.0
PRESET: Final = "tune_configs/classic/ppo_cartpole.yaml"

_BEFORE: Final = "{kind: cubic, begin: 0.2, end: 0.7, every: 2000}"
ARMS: Final[Mapping[str, tuple[str, ...]]] = {
    "recipe, uniform (the demo)": (),
    "recipe": ("pruning.distribution=erk",),
    "without": ("pruning.recipe=null", f"pruning.schedule={_BEFORE}"),
    "recipe, uniform, critic as sparse": ("pruning.groups={}",),
}
"""Name -> overrides of the preset."""


def run(arm: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train an arm, or go on with it; return its row."""
    place = runs / f"{list(ARMS).index(arm)}-{seed}"
    settings = ["evaluation.dense=null", "evaluation.every=4000", *ARMS[arm]]
    settings.append("tracking={wandb: off, tensorboard: false}")
    command = ["train", PRESET, *(x for each in settings for x in ("--set", each))]
    if not (place / "summary.json").is_file():
        resume = ["--resume"] if (place / "config.yaml").is_file() else []
        json_of([*command, "--seed", str(seed), "--out", str(place), *resume])
    summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
    rows = read_rows(place / "results.jsonl")
    return {
        "arm": arm,
        "seed": seed,
        "sparsity": summary["sparsity"]["groups"],
        "test": summary["returns"]["test"],
        **dips(rows),
        "curve": [[r["env_steps"], r["validation"]["mean"]] for r in rows if r.get("validation")],
    }


def dips(rows: list[dict[str, Any]]) -> dict[str, float | int]:
    """Return when a run was good first, and its lowest validation and training return after that.

    >>> dips([{"env_steps": 1, "return_mean": 9.0, "validation": {"mean": 480.0}},
    ...       {"env_steps": 2, "return_mean": 300.0, "validation": {"mean": 275.0}},
    ...       {"env_steps": 3, "return_mean": None}])
    {'solved_at': 1, 'dip': 275.0, 'dip_in_training': 300.0}
    """
    good = next(i for i, r in enumerate(rows) if _validation(r) >= SOLVED)
    later = [r for r in rows[good + 1 :] if r["return_mean"] is not None]
    started = [i for i, r in enumerate(later) if r["return_mean"] >= SOLVED]
    trained = later[started[0] :] if started else later
    return {
        "solved_at": rows[good]["env_steps"],
        "dip": min(_validation(r) for r in rows[good:] if r.get("validation")),
        "dip_in_training": min(r["return_mean"] for r in trained),
    }


def _validation(row: Mapping[str, Any]) -> float:
    return float((row.get("validation") or {"mean": float("-inf")})["mean"])


def show() -> None:
    """Print the rows in Markdown."""
    print("| arm | seed | 475 first at step | lowest validation after | in training | test |")
    print("|---|---|---|---|---|---|")
    for row in sorted(read_rows(ROWS), key=lambda r: (list(ARMS).index(r["arm"]), r["seed"])):
        print(
            f"| {row['arm']} | {row['seed']} | {row['solved_at']:,} | {row['dip']:.0f} "
            f"| {row['dip_in_training']:.0f} | {row['test']['iqm']:.0f} |"
        )


def main() -> int:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--runs", type=Path, default=RUNS, help="the runs' folder")
    parser.add_argument("--tables", action="store_true", help="print, run nothing")
    args = parser.parse_args()
    for seed in () if args.tables else args.seeds:
        for arm in args.arms:
            done = read_rows(ROWS) if ROWS.is_file() else []
            if not any((row["arm"], row["seed"]) == (arm, seed) for row in done):
                with Record.open(ROWS) as record:
                    record.append(run(arm, seed, args.runs.resolve()))
    show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
