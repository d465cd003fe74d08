"""Whether files of SimBa's policies that shrank in mid-training act as the policies do.

    python benchmarks/simba_files.py               # SAC on Pendulum and PPO on LunarLander
    python benchmarks/simba_files.py --case simba_sac --iterations 40

Each trains with live compaction after 75 % of the neurons of each layer went, and is written as
ONNX, torch and C. All must choose the policy's actions on 10,000 observations that random actions
led to: the same of a choice; of a number within 1e-5 of the action's range. It also prints what
`train()` takes, in CPU seconds, beside the same with masks alone; live_compaction.py measures that
with intervals.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gymnasium as gym
import numpy as np
import torch
from live_compaction import CASES, NET, config_of

OBSERVATIONS = 10_000
FORMATS = {"onnx": ".onnx", "torch": ".pt2", "c": ".c"}


def observations(name: str) -> np.ndarray:
    """Return what random actions meet in an environment."""
    env = gym.make(name)
    env.action_space.seed(0)
    seen = [env.reset(seed=0)[0]]
    while len(seen) < OBSERVATIONS:
        after, _, ended, cut, _ = env.step(env.action_space.sample())
        seen.append(env.reset()[0] if ended or cut else after)
    return np.stack(seen).astype(np.float32)


def trained(case: Any, compact_every: int | None, iterations: int, folder: Path) -> dict[str, Any]:
    """Train, save a checkpoint, and return what an iteration takes and what is left."""
    config = config_of(case, compact_every)
    # As fast as it learns, where the benchmark stands still.
    keys = ("actor_lr", "critic_lr", "alpha_lr") if case.network == "Pendulum-v1" else ("lr",)
    algorithm = config.training(**dict.fromkeys(keys, 3e-4)).build_algo()
    times = []
    for _ in range(iterations):
        start = time.process_time()
        result = algorithm.train()
        times.append(time.process_time() - start)
    algorithm.save_to_path(folder)
    algorithm.stop()
    told = result["rayprune"][NET]
    # Masks and moments are made, and units go, in the first two.
    return {
        "seconds": statistics.median(times[2:]),
        "sparsity": told["sparsity"],
        "parameters": told["parameters"],
    }


def files(checkpoint: Path, name: str, folder: Path) -> dict[str, float]:
    """Write a checkpoint's policy in each format; return the largest difference of an action."""
    from rayprune.deploy import open_artifact
    from rayprune.deploy.export.export import export_policy
    from rayprune.deploy.policy.capture import plain_copy
    from rayprune.deploy.policy.runs import module_run
    from rayprune.rllib.evaluation.open_policy import OpenPolicy
    from rayprune.rllib.export.policy import deployable

    with OpenPolicy.at(checkpoint) as opened:
        policy = plain_copy(deployable(opened.evaluator))
    given = [observations(name)]
    wanted = module_run(policy)(given)[0]
    found = {}
    for format_name, suffix in FORMATS.items():
        path = folder / f"policy{suffix}"
        export_policy(policy, path, format_name, recorded=given, about={"env": name})
        actions = open_artifact(path).act(given[0]).actions
        found[format_name] = float(np.abs(actions - wanted).max())
    return found


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = [name for name in CASES if name.startswith("simba")]
    parser.add_argument("--case", choices=cases, action="append", help="default: all")
    parser.add_argument("--iterations", type=int, default=12)
    arguments = parser.parse_args()
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    torch.set_num_threads(1)
    for name in arguments.case or cases:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as held:
            folder = Path(held)
            live = trained(case, 1, arguments.iterations, folder / "live")
            masked = trained(case, None, arguments.iterations, folder / "masked")
            told = {"case": name, "live": live, "masked": masked}
            told["times_as_fast"] = masked["seconds"] / live["seconds"]
            told["action_error"] = files(folder / "live", case.network, folder)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
