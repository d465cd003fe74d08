"""Search methods at equal env steps on PPO and CartPole, with real Ray.

    python benchmarks/search_cartpole.py [--seeds 2] [--steps 60000] [--out runs/search_cartpole]
    pip install 'rayprune[bench]'    # for Optuna's NSGA-II; without it those rows are left out

The experiment is tune_configs/pbt_cartpole.yaml's with `--steps` env steps per trial and without
its `reference`. Each (method, seed) is a sweep of eight trials, appends one row to rows.jsonl, and
is skipped when its row is there. Ends with a table of the hypervolume over (return, sparsity) of
everything that the trials were measured at, as a share of 500 x 1, validation returns.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

# A clone needn't be installed to be measured; actors find it as well.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])

import ray
from ray import tune

from rayprune.search import pareto
from rayprune.search.reporter import NullSweepReporter
from rayprune.search.sweep import run_sweep
from rayprune.search.sweep_spec import Sweep, load_sweep
from rayprune.search.trials.trial import RAW, PruningTrial
from rayprune.tracking.record import Record, read_rows, to_json

CONFIG = Path(__file__).resolve().parents[1] / "tune_configs" / "pbt_cartpole.yaml"
METHODS = ("mo_pbt", "pbt", "random", "nsga2")
MOST_RETURN = 500.0
Points = list[tuple[float, float]]


def experiment(method: str, seed: int, steps: int) -> dict[str, Any]:
    """Return the sweep's mapping for a method."""
    known = "random" if method == "nsga2" else method
    objectives = "{return: max}" if method == "pbt" else "{return: max, sparsity: max}"
    return load_sweep(
        CONFIG,
        [
            f"search.method={known}",
            f"search.objectives={objectives}",
            "search.reference=null",
            f"search.interval={steps // 5}",
            f"stop.env_steps={steps}",
            "tracking={wandb: off, tensorboard: false}",
        ],
        seed,
    )


def by_sweep(raw: dict[str, Any], out: Path) -> Points:
    """Run a sweep; return everything that its trials were measured at."""
    resume = (out / "sweep.yaml").is_file()
    run_sweep(raw, out, resume=resume, address=None, reporter=NullSweepReporter())
    return list(_measured(out))


def _measured(out: Path) -> Iterator[tuple[float, float]]:
    for path in out.glob("trials/*/results.jsonl"):
        for row in read_rows(path):
            if row.get("validation"):
                yield row["validation"]["iqm"], row["sparsity"]


class Collect(tune.Callback):
    """Appends what each trial was measured at to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """A trial was measured."""
        del result["rows"]
        with self.path.open("a") as file:
            file.write(to_json([result["return"], result["sparsity"]]) + "\n")


def by_nsga2(raw: dict[str, Any], out: Path, seed: int) -> Points:
    """Let Optuna's NSGA-II propose eight trials, four a generation, by what they end with."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    out.mkdir(parents=True, exist_ok=True)
    (out / "points.jsonl").unlink(missing_ok=True)
    sweep = Sweep.of(raw, out)
    searcher = OptunaSearch(
        metric=["return", "sparsity"],
        mode=["max", "max"],
        sampler=optuna.samplers.NSGAIISampler(population_size=4, seed=seed),
    )
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    tune.Tuner(
        tune.with_resources(PruningTrial, {"cpu": 1}),
        param_space={RAW: to_json(sweep.raw), **sweep.space.apply({}, sweep.space.to_tune())},
        tune_config=tune.TuneConfig(
            search_alg=searcher, num_samples=sweep.trials, max_concurrent_trials=2
        ),
        run_config=tune.RunConfig(
            name=f"nsga2-{time.time_ns()}",
            storage_path=str(out.absolute()),
            stop={"env_steps": sweep.experiment.stop.env_steps},
            callbacks=[Collect(out.absolute() / "points.jsonl")],
            verbose=0,
        ),
    ).fit()
    ray.shutdown()
    lines = (out / "points.jsonl").read_text().splitlines()
    return [tuple(json.loads(line)) for line in lines]  # type: ignore[misc]


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
            raw, out = experiment(method, seed, args.steps), args.out / f"{method}-{seed}"
            try:
                points = by_nsga2(raw, out, seed) if method == "nsga2" else by_sweep(raw, out)
            except ImportError as error:
                print(f"{method}: left out, {error}")
                continue
            with Record.open(path) as record:
                record.append({**key, "hypervolume": share(points), "points": points})
    print(f"{'method':8s}  " + "  ".join(f"seed {seed}" for seed in range(args.seeds)))
    rows = read_rows(path)
    for method in METHODS:
        own = {row["seed"]: row["hypervolume"] for row in rows if row["method"] == method}
        cells = "  ".join(f"{own[s]:6.3f}" if s in own else "     -" for s in range(args.seeds))
        print(f"{method:8s}  {cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
