"""What measuring plasticity costs a PPO Learner's update, at the default interval.

    python benchmarks/plasticity.py                  # all nets; --rounds 3 for tighter intervals

Arms take turns in one process on one thread, in an order shuffled anew each round, as in
overhead.py; times are the process's CPU time. Two looks at the same cost: a window of 16 steps,
ranks and all, against 16 steps without (a large ratio, so little noise), spread over the interval;
and whole intervals with it on against whole intervals with it off, beside an A/A control.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from overhead import CASES, NET, Case, Times, compare, ppo_config, ratio, show, updater

from rayprune import PruningConfig
from rayprune.pruning.measures.plasticity import WINDOW
from rayprune.rllib import prune

# Small nets have the fastest steps, in which a window weighs most.
SMALL = replace(CASES["mlp256"], model={"fcnet_hiddens": [64, 64]}, minibatch=32)
NETS = {"mlp64": SMALL, **{name: CASES[name] for name in ("mlp256", "nature_cnn")}}

CHUNK = 200
"""Optimizer steps of one call: arms alternate fast."""


def learner_with(case: Case, plasticity: dict[str, int] | None) -> Any:
    """Return a built Learner that prunes 90 % and measures as told."""
    schedule = {"kind": "one_shot", "begin": 0}
    pruning = PruningConfig(sparsity=0.9, schedule=schedule, horizon=1000, plasticity=plasticity)
    return prune(ppo_config(case), pruning).build_learner()


def window_share(case: Case, every: int, rounds: int) -> tuple[float, float, float]:
    """Return the share of the update time by the windows' extra time, and its 95 % interval."""
    short = replace(case, steps=WINDOW)

    def arm(plasticity: dict[str, int] | None) -> Callable[[], Callable[[], object]]:
        return lambda: updater(learner_with(short, plasticity), short)

    times = compare(
        {"window": arm({"every": WINDOW}), "off": arm(None), "off again": arm(None)}, rounds
    )
    step = statistics.median(times["off"]) / WINDOW
    extra = sorted(on - off for on, off in zip(times["window"], times["off"], strict=True))
    half, middle = round(0.98 * len(extra) ** 0.5), len(extra) // 2
    ends = extra[max(middle - half, 0)], extra[min(middle + half, len(extra) - 1)]
    show(
        f"a window of {WINDOW} steps",
        [ratio(times, "off again", "off", None, WINDOW), ratio(times, "window", "off", None, 1)],
    )
    return tuple(seconds / (every * step) for seconds in (statistics.median(extra), *ends))


def whole_intervals(case: Case, every: int, rounds: int) -> None:
    """Print the ratio of whole intervals, taken chunk by chunk in turns."""
    chunked = replace(case, steps=CHUNK)
    arms = {
        name: updater(learner_with(chunked, plasticity), chunked)
        for name, plasticity in (("on", {"every": every}), ("off", None), ("off again", None))
    }
    times: Times = {name: [] for name in arms}
    order, generator = list(arms), random.Random(0)
    # The first interval warms up. No arm is built anew: every interval has its one window.
    for turn in range(rounds + 1):
        spent = dict.fromkeys(arms, 0.0)
        for _ in range(every // CHUNK):
            generator.shuffle(order)
            for name in order:
                start = time.process_time()
                arms[name]()
                spent[name] += time.process_time() - start
        if turn:
            for name in arms:
                times[name].append(spent[name])
    show(
        f"whole intervals of {every} steps",
        [
            ratio(times, "off again", "off", None, every),
            ratio(times, "on", "off", 1.01, every),
        ],
    )


def main() -> None:
    """Run both looks on all nets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=NETS, action="append")
    parser.add_argument("--rounds", type=float, default=1.0, help="factor on the rounds")
    parser.add_argument("--windows-only", action="store_true", help="leave the slow look out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    every = PruningConfig(sparsity=0.5).plasticity_every
    for name in arguments.case or NETS:
        case = NETS[name]
        print(f"\n== {name}, module {NET}, minibatch {case.minibatch}, every {every} steps")
        rounds = max(10, round(60 * arguments.rounds))
        share, low, high = window_share(case, every, rounds)
        said = "met" if high <= 0.01 else "MISSED"
        interval = f"[{100 * low:.2f}, {100 * high:.2f}]"
        print(f"  share of the update time: {100 * share:.2f} % {interval}   target 1 %: {said}")
        if not arguments.windows_only and case.steps > 5:
            whole_intervals(case, every, max(5, round(20 * arguments.rounds)))


if __name__ == "__main__":
    main()
