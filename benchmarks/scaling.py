"""What a population costs its driver, and what an exploit moves.

    python benchmarks/scaling.py [--parts driver ray bytes] [--rounds 3] [--quick] [--json]

Real driver code throughout: Tune's, and rayprune's scheduler, records, archives and state files as
`rayprune sweep` wires them. Instead of RLlib's Algorithm the trials run a stand-in that costs
nothing and reports rows as long as those of PPO. Three parts:

``driver``
    the trials run inside the driver's process, all of them at once, and what they take is taken
    off; what Ray's messages cost is not in it;
``ray``
    the trials are Ray's actors, at most `--slots` at a time, so that a larger population takes
    turns; one actor of nothing but Ray and this package takes some 100 MB;
``bytes``
    checkpoints of a real PPO policy, stored without their zeros and with them.

Each arm runs in a process of its own, beside plain Tune (its own PBT on the same Trainable): with
the loggers that it adds by itself, and without. CPU time of the driver's process; medians over the
rounds [least, most]. Exits with 1 if a sparse checkpoint isn't smaller in proportion.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ARMS: Final = ("rayprune", "tune", "tune, no loggers")
RESULTS: Final = {8: 24, 64: 8, 512: 3}
"""Of each trial, by the population: fewer where there are more trials."""
SPARSITIES: Final = (0.0, 0.5, 0.9, 0.95)
FIXED_BYTES: Final = 16_000
"""Biases, names and optimizer settings, which no sparsity makes smaller."""

Row = dict[str, Any]


def main() -> int:
    """Measure, print, and say by the exit status whether checkpoints shrink."""
    args = parse()
    found: dict[str, list[Row]] = {}
    for part in ("driver", "ray"):
        if part in args.parts:
            found[part] = populations(args, part)
            print_populations(part, found[part])
    if "bytes" in args.parts:
        sparsities = SPARSITIES[::2] if args.quick else SPARSITIES
        found["bytes"] = ask("stored", "--sparsities", *map(str, sparsities), *hidden(args))
        print_bytes(found["bytes"])
    if args.json:
        print(json.dumps(found))
    return 0 if all(in_proportion(row, found["bytes"][0]) for row in found.get("bytes", ())) else 1


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=("driver", "ray", "bytes"))
    parser.add_argument("--populations", type=int, nargs="+")
    parser.add_argument("--results", type=int, help="of each trial; default: by the population")
    parser.add_argument("--slots", type=int, default=8, help="Ray's actors at a time")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--tracking", choices=("off", "tensorboard", "all"), default="off")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="a few trials, once: a test of this")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.parts = args.parts or ("driver", "ray", "bytes")
    args.populations = args.populations or ((4,) if args.quick else tuple(RESULTS))
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.results = args.results or (3 if args.quick else None)
    return args


def populations(args: argparse.Namespace, part: str) -> list[Row]:
    """Run all arms of all populations, side by side, round by round."""
    rows = []
    for population in args.populations:
        for number in range(args.rounds):
            for arm in args.arms:
                options = {
                    "--population": population,
                    "--results": args.results or RESULTS.get(population, 3),
                    "--slots": population if part == "driver" else min(args.slots, population),
                    "--tracking": args.tracking,
                }
                given = [str(word) for option in options.items() for word in option]
                actors = ["--actorless"] if part == "driver" else []
                rows.append({**ask("arm", arm, *given, *actors), "round": number})
    return rows


def hidden(args: argparse.Namespace) -> list[str]:
    """Return the option for smaller networks where it should be quick."""
    return ["--hidden", "64"] if args.quick else []


def ask(module: str, *arguments: str) -> Any:
    """Run a part in a process of its own; return what its last line says."""
    path = os.pathsep.join([str(HERE.parent), str(HERE), *sys.path[1:]])
    done = subprocess.run(
        [sys.executable, "-m", f"scaling_parts.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def print_populations(part: str, rows: Sequence[Row]) -> None:
    """Print a line for each population and arm, then where rayprune's time goes."""
    print(f"\n{part}: CPU time of the driver, median [least, most]")
    print(
        f"{'trials':>6s} {'arm':17s} {'ms a result':>20s} {'second half':>11s} "
        f"{'ms a trial':>20s} {'MB':>5s} {'state MB':>8s} {'exploits':>8s}  of rayprune's result"
    )
    for population in dict.fromkeys(row["population"] for row in rows):
        same = [row for row in rows if row["population"] == population]
        for arm in dict.fromkeys(row["arm"] for row in same):
            print_arm(population, arm, same)
    for population in dict.fromkeys(row["population"] for row in rows):
        print_parts(population, [row for row in rows if row["population"] == population])


def print_arm(population: int, arm: str, rows: Sequence[Row]) -> None:
    """Print one arm; the ratio is of the same rounds."""
    own = [row for row in rows if row["arm"] == arm]
    ours = [row for row in rows if row["arm"] == "rayprune"]
    ratios = [
        one["s_per_result"] / other["s_per_result"]
        for one, other in zip(ours, own, strict=False)
        if other["s_per_result"]
    ]
    halves = [row["s_per_result_halves"][1] for row in own]
    exploits = statistics.median(row["exploits"] or 0 for row in own)
    print(
        f"{population:6d} {arm:17s} {ms([row['s_per_result'] for row in own]):>20s} "
        f"{1e3 * statistics.median(halves):11.1f} "
        f"{ms([row['start_s_per_trial'] for row in own]):>20s} "
        f"{statistics.median(row['rss'] - row['rss_before'] for row in own) / 1e6:5.0f} "
        f"{statistics.median(row['state_bytes'] for row in own) / 1e6:8.2f} {exploits:8.0f}  "
        f"{'' if arm == 'rayprune' or not ratios else f'{statistics.median(ratios):.2f}'}"
    )


def print_parts(population: int, rows: Sequence[Row]) -> None:
    """Print where rayprune's driver spends its time, by call."""
    ours = [row for row in rows if row["arm"] == "rayprune"]
    for name in dict.fromkeys(name for row in ours for name in row["parts"]):
        known = [row["parts"][name] for row in ours if name in row["parts"]]
        each = [part["cpu_s"] / part["calls"] for part in known]
        print(f"{population:6d} {name:31s} {ms(each):>22s} ms a call, {known[0]['calls']} calls")


def ms(seconds: Sequence[float]) -> str:
    """Return ``median [least, most]`` in milliseconds."""
    middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
    return f"{1e3 * middle:.1f} [{1e3 * least:.1f}, {1e3 * most:.1f}]"


def print_bytes(rows: Sequence[Row]) -> None:
    """Print what a checkpoint has of bytes; an exploit reads one, and its donor wrote it."""
    print("\nbytes of a checkpoint: PPO, CartPole, weights and Adam's moments")
    print(f"{'sparsity':>8s} {'arrays':>10s} {'with zeros':>10s} {'of dense':>8s} {'whole':>10s}")
    dense = rows[0]["stored"]["arrays"]
    for row in rows:
        arrays = row["stored"]["arrays"]
        print(
            f"{row['sparsity']:8.2f} {arrays:10,d} {row['with_zeros']['arrays']:10,d} "
            f"{arrays / dense:8.3f} {row['stored']['all']:10,d}"
            f"{'' if in_proportion(row, rows[0]) else '  NOT IN PROPORTION'}"
        )


def in_proportion(row: Row, dense: Row) -> bool:
    """Whether a checkpoint's arrays are as much smaller as it is sparser than the dense one.

    A bit for each weight and each moment says which are left (1/32), and one more in each mask.
    """
    share = 1 - row["sparsity"] + 1 / 32 + 1 / 96
    return bool(row["stored"]["arrays"] <= share * dense["stored"]["arrays"] + FIXED_BYTES)


if __name__ == "__main__":
    sys.exit(main())
