"""What training costs: whole `train()` calls beside RLlib as shipped and Stable-Baselines3.

    python benchmarks/training_speed.py                        # all works: an hour
    python benchmarks/training_speed.py --work ppo_cartpole    # one; --json adds one line of JSON
    python benchmarks/training_speed.py --work ppo_cartpole --quick --arms rllib sparse
    python benchmarks/training_speed.py --work dqn_cartpole --profile sparse

Arms, all with sampling and learning in this process, on one thread:

``rllib``, ``rllib again``
    RLlib as shipped, twice: what differs between the two is noise;
``dense``, ``sparse``, ``small``
    `rayprune.rllib.prune` at 0 and 90 % of weights, and with 75 % of neurons gone by live
    compaction, pruned before the first turn that counts;
``sb3``
    Stable-Baselines3, dense, with nets of the same shape, if it is installed (extra `bench`).

Only where they are asked for:

``unlean``, ``pool``
    ``sparse`` with ``lean=False``, and ``sparse`` in EnvPool's engines (extra `envpool`);
``sb3 own``
    SAC of Stable-Baselines3 with its own critic, which is smaller than RLlib's.

How arms take turns and what a ratio is, is overhead.py's. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib.util
import json
import os
import platform
import pstats
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from overhead import NET, Ratio, Times, compare, line, ratio
from speed_parts.works import BEFORE_LEARNING, WORKS, Work, rllib_config

RLLIB, AGAIN, SB3, SB3_OWN = "rllib", "rllib again", "sb3", "sb3 own"
PRUNED: Final[Mapping[str, Mapping[str, Any]]] = {
    "dense": {"sparsity": 0.0},
    "sparse": {"sparsity": 0.9},
    "small": {"sparsity": 0.75, "granularity": "neuron", "compact_every": 1},
    "unlean": {"sparsity": 0.9},
    "pool": {"sparsity": 0.9},
}
ASKED_FOR: Final = ("unlean", "pool", SB3_OWN)
ARMS: Final = (RLLIB, AGAIN, *PRUNED, SB3, SB3_OWN)
BLOCKS, WARM_UP = 3, 1
SHOWN: Final = 30
"""Lines of a profile."""

Turn = Callable[[], Any]


class Running:
    """The algorithms that run: those of an arm that is built anew are stopped."""

    def __init__(self) -> None:
        self._algorithms: dict[str, Any] = {}

    def builder(self, arm: str, work: Work) -> Callable[[], Turn]:
        """Return what builds an arm and returns its turn."""
        return lambda: self.build(arm, work)

    def build(self, arm: str, work: Work) -> Turn:
        """Build an arm and let it train until it learns, and is pruned."""
        if arm in (SB3, SB3_OWN):
            from speed_parts.sb3 import trained

            return trained(work, own_nets=arm == SB3_OWN)
        if arm in self._algorithms:
            self._algorithms.pop(arm).stop()
        algorithm = self._algorithms[arm] = config_of(arm, work).build_algo()
        result = algorithm.train()
        while work.replays and result["num_env_steps_sampled_lifetime"] <= BEFORE_LEARNING:
            result = algorithm.train()
        if arm in PRUNED:
            check_pruned(arm, result["rayprune"][NET])
        return algorithm.train  # type: ignore[no-any-return]

    def stop(self) -> None:
        """Stop all."""
        for algorithm in self._algorithms.values():
            algorithm.stop()


def config_of(arm: str, work: Work) -> Any:
    """Return an arm's AlgorithmConfig."""
    from rayprune import PruningConfig
    from rayprune.rllib import prune

    config = rllib_config(work)
    if arm not in PRUNED:
        return config
    schedule = {"kind": "one_shot", "begin": 0, "every": 1}
    pruning = PruningConfig(**PRUNED[arm], schedule=schedule, horizon=1_000_000)
    if arm == "pool":
        config.environment(f"rayprune.envs.envpool:EnvPool/{work.env}")
        config.env_runners(gym_env_vectorize_mode="vector_entry_point")
    return prune(config, pruning, lean=arm != "unlean")


def check_pruned(arm: str, report: Mapping[str, Any]) -> None:
    """Refuse to measure an arm that isn't pruned as it says."""
    wanted = PRUNED[arm]["sparsity"]
    if abs(report["sparsity"] - wanted) > 0.01:
        raise SystemExit(f"arm {arm} is {report['sparsity']:.3f} sparse, not {wanted}.")
    parameters = report["parameters"]
    if arm == "small" and parameters.get("held", parameters["total"]) > 0.4 * parameters["total"]:
        raise SystemExit(f"arm {arm} did not shrink: {parameters}")


def ratios(times: Times, work: Work) -> Iterator[Ratio]:
    """Yield the control, and each pruning arm over RLlib and over Stable-Baselines3."""
    if {RLLIB, AGAIN} <= times.keys():
        yield ratio(times, AGAIN, RLLIB, None, work.steps)
    for arm in [name for name in PRUNED if name in times]:
        targets = work.compacted if arm == "small" else work.pruned
        for over, target in ((RLLIB, targets.rllib), (SB3, targets.sb3), (SB3_OWN, None)):
            if over in times:
                judged = None if arm in ASKED_FOR else target
                yield ratio(times, arm, over, judged, work.steps)


def verdict(found: Ratio) -> str:
    """Say whether a target was met."""
    if found.target is None:
        return "A/A control" if found.name.startswith(AGAIN) else ""
    return f"target {found.target:.2f}: {'met' if found.median <= found.target else 'MISSED'}"


def profile(turn: Turn, turns: int = 3) -> None:
    """Print where an arm's time goes."""
    turn()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(turns):
        turn()
    profiler.disable()
    for order in ("cumulative", "tottime"):
        pstats.Stats(profiler).strip_dirs().sort_stats(order).print_stats(SHOWN)


def measure(name: str, work: Work, arms: Sequence[str]) -> list[Ratio]:
    """Measure a work and print it."""
    running = Running()
    builders = {arm: running.builder(arm, work) for arm in arms}
    times = compare(builders, work.rounds, blocks=min(BLOCKS, work.rounds), warm_up=WARM_UP)
    running.stop()
    found = list(ratios(times, work))
    print(f"\n{name}: {work.steps} env steps a train(), {work.envs} env(s); ms an env step")
    for one in found:
        print(line(one, verdict(one)), flush=True)
    return found


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", choices=WORKS, action="append", help="default: all")
    parser.add_argument(
        "--arms", choices=ARMS, nargs="+", help="default: all but those to be asked for"
    )
    parser.add_argument("--rounds", type=float, default=1.0, help="factor on the rounds")
    parser.add_argument("--envs", type=int, help="environments side by side, in PPO")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--profile", metavar="ARM", choices=ARMS, help="profile it instead")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, last")
    return parser.parse_args()


def chosen_arms(wanted: Sequence[str] | None) -> list[str]:
    """Return the arms to run, without Stable-Baselines3 where it isn't installed."""
    arms = [arm for arm in ARMS if arm in wanted] if wanted else [*ARMS]
    arms = arms if wanted else [arm for arm in arms if arm not in ASKED_FOR]
    if importlib.util.find_spec("stable_baselines3") is None:
        print("Stable-Baselines3 is left out: pip install 'rayprune[bench]'.", file=sys.stderr)
        arms = [arm for arm in arms if arm not in (SB3, SB3_OWN)]
    return arms


def chosen_work(name: str, args: argparse.Namespace) -> Work:
    """Return a work as the command line wants it."""
    work = WORKS[name].quick() if args.quick else WORKS[name]
    if args.envs and not work.replays:
        work = replace(work, envs=args.envs)
    return replace(work, rounds=max(3, round(work.rounds * args.rounds)))


def main() -> int:
    """Measure what was asked for; say by the exit status whether targets were met."""
    args = parse()
    import ray

    import rayprune.envs  # noqa: F401  # registers MinBreakout

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    results |= {"torch": torch.__version__, "ray": ray.__version__, "cores": os.cpu_count()}
    missed = False
    for name in args.work or WORKS:
        work = chosen_work(name, args)
        if args.profile:
            profile(Running().build(args.profile, work))
            continue
        found = measure(name, work, chosen_arms(args.arms))
        missed |= any(one.target is not None and one.median > one.target for one in found)
        results[name] = [asdict(one) for one in found]
    if args.json and not args.profile:
        print(json.dumps(results))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
