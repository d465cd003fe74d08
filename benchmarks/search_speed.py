"""One scheduler decision for a large population: ranking all, then the best and the worst quarter.

    python benchmarks/search_speed.py [--population 1000]

Prints the median and the worst of some repeats, in milliseconds of process time (the wall clock
would measure the machine's other work too). The target is 50 ms at a population of 1,000; exits
with 1 when a median misses it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from rayprune.search.objectives import KNOWN, Objectives

TARGET_MS = 50.0


def populations(size: int, objectives: int) -> Mapping[str, np.ndarray]:
    """Return easy and hard populations, shape ``(size, objectives)`` each."""
    rng = np.random.default_rng(0)
    directions = np.abs(rng.normal(size=(size, objectives)))
    return {
        "random": rng.random((size, objectives)),
        "one front": directions / np.linalg.norm(directions, axis=1, keepdims=True),
        "all alike": np.ones((size, objectives)),
        "one by one": np.arange(size, dtype=float)[:, None] * np.ones(objectives),
    }


def milliseconds(points: np.ndarray, repeats: int) -> list[float]:
    """Time one decision, from the trials' results on."""
    names = list(KNOWN)[: points.shape[1]]
    objectives = Objectives(directions=dict.fromkeys(names, "max"))
    results = [dict(zip(names, row, strict=True)) for row in points.tolist()]
    times = []
    for _ in range(repeats):
        start = time.process_time()
        objectives.tails(results)
        times.append(1000 * (time.process_time() - start))
    return times


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--population", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    slowest = 0.0
    print(f"population {args.population}: ms per decision, median (worst of {args.repeats})")
    for objectives in (1, 2, 3, 4):
        for name, points in populations(args.population, objectives).items():
            times = milliseconds(points, args.repeats)
            median = statistics.median(times)
            slowest = max(slowest, median)
            print(f"{objectives} objective(s), {name:12s} {median:6.1f} ({max(times):.1f})")
    met = slowest <= TARGET_MS
    print(f"slowest {slowest:.1f} ms, target {TARGET_MS:.0f} ms: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
