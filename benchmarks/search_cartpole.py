"""Search methods at equal env steps on PPO and CartPole, with real Ray.

    python benchmarks/search_cartpole.py [--seeds 2] [--steps 60000] [--out runs/search_cartpole]
    pip install 'rayprune[optuna]'    # for `nsga2` and `tpe`; without it those rows are left out

The experiment is the preset pbt_cartpole's with `--steps` env steps per trial and without
its `reference`. Each (method, seed) is a sweep of eight trials, appends one row to rows.jsonl, and
is skipped when its row is there. Ends with a table of the hypervolume over (return, sparsity) of
everything that the trials were measured at, as a share of 500 x 1, validation returns. `mo_asha`
stops trials early, and so takes fewer env steps than the others: the rows tell how many.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

# A clone needn't be installed to be measured; actors find it as well.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])

from rayprune.errors import ConfigError
from rayprune.search import pareto
from rayprune.search.reporter import NullSweepReporter
from rayprune.search.sweep import run_sweep
from rayprune.search.sweep_spec import load_sweep
from rayprune.tracking.record import Record, read_rows

CONFIG = Path(__file__).resolve().parents[1] / "tune_configs" / "search" / "pbt_cartpole.yaml"
METHODS = ("mo_pbt", "pbt", "mo_asha", "nsga2", "tpe", "random")
MOST_RETURN = 500.0
Points = list[tuple[float, float]]


def experiment(method: str, seed: int, steps: int) -> dict[str, Any]:
    """Return the sweep's mapping for a method."""
    objectives = "{return: max}" if method == "pbt" else "{return: max, sparsity: max}"
    return load_sweep(
        CONFIG,
        [
            f"search.method={method}",
            f"search.objectives={objectives}",
            "search.reference=null",
            # Two generations of four.
            f"search.generation={4 if method == 'nsga2' else 'null'}",
            f"search.interval={steps // 5}",
            f"stop.env_steps={steps}",
            "tracking={wandb: off, tensorboard: false}",
        ],
        seed,
    )


def by_sweep(raw: dict[str, Any], out: Path) -> tuple[Points, int]:
    """Run a sweep; return everything that its trials were measured at, and their env steps."""
    resume = (out / "sweep.yaml").is_file()
    outcome = run_sweep(raw, out, resume=resume, address=None, reporter=NullSweepReporter())
    return list(_measured(out)), outcome["env_steps"]


def _measured(out: Path) -> Iterator[tuple[float, float]]:
    for path in out.glob("trials/*/results.jsonl"):
        for row in read_rows(path):
            if row.get("validation"):
                yield row["validation"]["iqm"], row["sparsity"]


def share(points: Points) -> float:
    """Return the hypervolume of points over (0, 0), as a share of 500 x 1."""
    scaled = [[max(0.0, value) / MOST_RETURN, sparsity] for value, sparsity in points]
    return pareto.hypervolume(scaled, [0.0, 0.0])


def main() -> int:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--out", type=Path, default=Path("runs/search_cartpole"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "rows.jsonl"
    for seed in range(args.seeds):
        for method in METHODS:
            done = read_rows(path) if path.is_file() else []
            key = {"method": method, "seed": seed, "steps": args.steps}
            if any(key.items() <= row.items() for row in done):
                continue
            try:
                raw = experiment(method, seed, args.steps)
            except ConfigError as error:
                print(f"{method}: left out, {error}")
                continue
            points, env_steps = by_sweep(raw, args.out / f"{method}-{seed}")
            row = {**key, "env_steps": env_steps, "hypervolume": share(points), "points": points}
            with Record.open(path) as record:
                record.append(row)
    print(f"{'method':8s}  " + "  ".join(f"seed {seed}" for seed in range(args.seeds)))
    rows = read_rows(path)
    for method in METHODS:
        own = {row["seed"]: row["hypervolume"] for row in rows if row["method"] == method}
        cells = "  ".join(f"{own[s]:6.3f}" if s in own else "     -" for s in range(args.seeds))
        print(f"{method:8s}  {cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
