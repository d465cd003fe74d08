"""One arm of scaling.py: a population on Tune, with rayprune's driver or without.

    PYTHONPATH=.:benchmarks python -m scaling_parts.arm rayprune --population 64 --results 8

In a process of its own, so that its memory is its own. Prints one line of JSON at the end. Seconds
are CPU time of the driver's process, without what trials take that run inside it (``--actorless``).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"

import ray
from ray import tune
from ray.tune import Callback, CheckpointConfig, RunConfig, TuneConfig
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager
from ray.tune.schedulers import PopulationBasedTraining

from rayprune.search import sweep as sweeps
from rayprune.search.planning.placement import Placement
from rayprune.search.reporter import NullSweepReporter
from rayprune.search.schedulers.mo_pbt import MultiObjectivePBT
from rayprune.search.sweep_spec import Sweep
from rayprune.search.trials.journal import LINEAGE_FILE, Journal
from rayprune.search.tune.observer import observing
from rayprune.search.tune.tune_state import StateKeeper
from rayprune.search.tune.tune_storage import TUNE_DIRECTORY
from scaling_parts import actorless
from scaling_parts.stand_in import INTERVAL, PlainStandIn, StandIn

ARMS: Final = ("rayprune", "tune", "tune, no loggers")
TRACKING: Final[dict[str, dict[str, Any]]] = {
    "off": {"wandb": "off", "tensorboard": False},
    "tensorboard": {"wandb": "off", "tensorboard": True},
    "all": {"wandb": "offline", "tensorboard": True},
}
PARTS: Final[Sequence[tuple[str, type, str]]] = (
    ("rows, state and config on disk", Journal, "result"),
    ("archive", Journal, "checkpoint"),
    ("ranking", MultiObjectivePBT, "_quantiles"),
    ("exploit", MultiObjectivePBT, "_exploit"),
    ("Tune's state written", _ExperimentCheckpointManager, "sync_up_experiment_state"),
    ("Tune's state kept whole", StateKeeper, "keep"),
)
"""What is timed inside the driver; an exploit's config is written with the clone's first rows."""


def main() -> None:
    """Run the arm; print what it took."""
    args = parse()
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not args.actorless:
        ray.init(address="local", num_cpus=args.slots, include_dashboard=False, log_to_driver=False)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place,
        contextlib.ExitStack() as stack,
    ):
        if args.actorless:
            actorless.InProcess.slots = args.slots
            actorless.replace_actors(stack, f"{place}/session")
        parts = timed_parts(stack)
        tuner, home = build(args, Path(place), stack)
        memory, wall, cpu = resident(), time.perf_counter(), driver_s()
        found = tuner.fit()
        took = {"wall_s": time.perf_counter() - wall, "cpu_s": driver_s() - cpu}
        print(
            json.dumps(
                {
                    **report(args, found, home, cpu),
                    **took,
                    **parts_of(parts),
                    "rss_before": memory,
                    "rss": resident(),
                }
            )
        )
    ray.shutdown()


def parse() -> argparse.Namespace:
    """Return the arm's options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("--population", type=int, required=True)
    parser.add_argument("--results", type=int, required=True, help="of each trial")
    parser.add_argument("--slots", type=int, required=True, help="trials that run at once")
    parser.add_argument("--tracking", choices=TRACKING, default="off")
    parser.add_argument("--actorless", action="store_true", help="trials in the driver's process")
    return parser.parse_args()


def build(args: argparse.Namespace, place: Path, stack: contextlib.ExitStack) -> tuple[Any, Path]:
    """Return a Tuner, and Tune's directory of the experiment."""
    if args.arm == "rayprune":
        return sweeping(args, place, stack), place / TUNE_DIRECTORY
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    if args.arm != "tune":
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    return plain(args, place), place / TUNE_DIRECTORY


def sweeping(args: argparse.Namespace, place: Path, stack: contextlib.ExitStack) -> Any:
    """Return the Tuner of a sweep as `rayprune sweep` makes it, but for the Trainable."""
    sweep = Sweep.of(experiment(args), place)
    placement = Placement(({"CPU": 1.0},), "PACK", min(args.slots, args.population), "")
    stack.enter_context(sweeps._environment(args.population))
    reporter = NullSweepReporter()
    stack.enter_context(observing(place, Journal(sweep, reporter), reporter))
    tuner = sweeps._tuner(sweep, tune.with_resources(StandIn, placement.factory()), placement)
    tuner._local_tuner.get_run_config().callbacks.append(Marks())
    return tuner


def experiment(args: argparse.Namespace) -> dict[str, Any]:
    """Return the experiment that the stand-in pretends to be."""
    space = {
        "pruning.sparsity": {"uniform": [0.0, 0.98]},
        "rllib.training.lr": {"loguniform": [1e-4, 1e-3]},
    }
    return {
        "name": "scaling",
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "rllib": {"training": {"train_batch_size_per_learner": 2000}},
        "pruning": {"sparsity": 0.5},
        "stop": {"env_steps": INTERVAL * args.results},
        "tracking": TRACKING[args.tracking],
        "search": {"population": args.population, "space": space, "interval": INTERVAL},
    }


def plain(args: argparse.Namespace, place: Path) -> tune.Tuner:
    """Return Tune's own population-based training of the same Trainable."""
    space = {
        "pruning": {"sparsity": tune.uniform(0.0, 0.98)},
        "rllib": {"training": {"lr": tune.loguniform(1e-4, 1e-3)}},
    }
    scheduler = PopulationBasedTraining(
        time_attr="env_steps",
        metric="return",
        mode="max",
        perturbation_interval=INTERVAL,
        hyperparam_mutations=space,
        synch=args.slots < args.population,
    )
    return tune.Tuner(
        tune.with_resources(PlainStandIn, {"cpu": 1}),
        param_space=space,
        tune_config=TuneConfig(scheduler=scheduler, num_samples=args.population, reuse_actors=True),
        run_config=RunConfig(
            name=TUNE_DIRECTORY,
            storage_path=str(place),
            stop={"env_steps": INTERVAL * args.results},
            checkpoint_config=CheckpointConfig(num_to_keep=sweeps.CHECKPOINTS_KEPT),
            callbacks=[Marks()],
            verbose=0,
        ),
    )


MARKS: Final[list[tuple[str, float]]] = []
"""Of each result: the trial, and the driver's CPU time by then."""


class Marks(Callback):
    """Notes when each result has been dealt with."""

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        """See `Callback.on_trial_result`."""
        MARKS.append((trial.trial_id, driver_s()))


def report(args: argparse.Namespace, found: Any, home: Path, began: float) -> dict[str, Any]:
    """Return what came of it, and the CPU time of starting a trial and of each later result."""
    times = [at for _, at in MARKS]
    all_there = max({trial: index for index, (trial, _) in reversed([*enumerate(MARKS)])}.values())
    # The results after all trials have had their first, in two halves: does it grow?
    middle = (all_there + len(times) - 1) // 2
    lineage = home.parent / LINEAGE_FILE
    return {
        "arm": args.arm,
        "population": args.population,
        "slots": args.slots,
        "results": len(times),
        "errors": len(found.errors),
        "exploits": lineage.read_bytes().count(b"\n") if lineage.exists() else None,
        "start_s_per_trial": (times[all_there] - began) / args.population,
        "s_per_result": mean_step(times[all_there:]),
        "s_per_result_halves": [mean_step(times[all_there:middle]), mean_step(times[middle:])],
        "state_bytes": sum(path.stat().st_size for path in home.glob("experiment_state-*.json")),
        "threads": threading.active_count(),
    }


def mean_step(times: Sequence[float]) -> float:
    """Return the mean difference of neighbours."""
    return (times[-1] - times[0]) / max(len(times) - 1, 1) if times else 0.0


def timed_parts(stack: contextlib.ExitStack) -> dict[str, Counter[str]]:
    """Count calls and CPU time of the driver's parts until the stack is left."""
    parts = {name: Counter[str]() for name, *_ in PARTS}
    for name, cls, method in PARTS:
        wrapped = timed(getattr(cls, method), parts[name])
        stack.enter_context(mock.patch.object(cls, method, wrapped))
    return parts


def timed(method: Callable[..., Any], count: Counter[str]) -> Callable[..., Any]:
    """Return it with what it takes counted in microseconds."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        begun = driver_s()
        try:
            return method(*args, **kwargs)
        finally:
            count["calls"] += 1
            count["us"] += round(1e6 * (driver_s() - begun))

    return call


def parts_of(parts: dict[str, Counter[str]]) -> dict[str, Any]:
    """Return the parts' calls and seconds."""
    return {
        "parts": {
            name: {"calls": count["calls"], "cpu_s": count["us"] / 1e6}
            for name, count in parts.items()
            if count["calls"]
        }
    }


def driver_s() -> float:
    """Return the CPU time of this process that isn't the trials'."""
    return time.process_time() - actorless.InProcess.trials_s


def resident() -> int:
    """Return the bytes of memory that this process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
