"""A mask update of 100 million weights under global L1, against one `torch.kthvalue` over them.

    python benchmarks/mask_update.py

Prints the ratio of the two, measured interleaved in one process on one thread (seconds of process
time, median of paired ratios), a control that compares `kthvalue` with itself, and the peak memory
beyond weights and masks, each measured in a fresh process. Targets: at most 0.5 times, and at most
0.5 GB. Exits with 1 when one is missed. "training" is told beside: a Pruner that masks gradients
keeps its masks as floats, too, 4 bytes a weight, from the first gradient on.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from rayprune import Pruner, PruningConfig

WIDTHS = (4096, 4096, 4096, 4096, 4096, 4096)  # five square layers and a remainder
MODES = ("first", "repeated", "training")
TARGETS = {"ratio": 0.5, "memory_gb": 0.5}


def build(weights: int) -> nn.Module:
    """Return a stack of bias-free layers that hold exactly ``weights`` weights."""
    square = WIDTHS[0] * WIDTHS[1]
    layers = [nn.Linear(WIDTHS[0], WIDTHS[1], bias=False) for _ in range(weights // square)]
    rest = weights - square * len(layers)
    if rest:
        layers.append(nn.Linear(rest, 1, bias=False))
    return nn.Sequential(*layers)


def make_pruner(weights: int) -> Pruner:
    """Return a Pruner under global L1."""
    return Pruner(build(weights), PruningConfig(sparsity=0.9, distribution="global"))


def seconds(work: Callable[[], object]) -> float:
    """Return the process time that some work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(weights: int, rounds: int) -> dict[str, float]:
    """Measure updates, first ones and repeated ones, and `kthvalue`, in turn."""
    pruner = make_pruner(weights)
    flat = torch.cat([weight.detach().view(-1) for weight in pruner.parameters.values()]).abs_()
    original = {name: weight.detach().clone() for name, weight in pruner.parameters.items()}
    dense = pruner.state_dict()
    firsts, repeats, controls, updates, kths = [], [], [], [], []
    for _ in range(rounds):
        with torch.no_grad():
            for name, weight in pruner.parameters.items():
                weight.copy_(original[name])
        pruner.load_state_dict(dense)
        first = seconds(lambda: pruner.prune_to(0.5))
        kth = seconds(lambda: torch.kthvalue(flat, weights // 2))
        repeat = seconds(lambda: pruner.prune_to(0.9))
        again = seconds(lambda: torch.kthvalue(flat, weights // 2))
        firsts.append(first / kth)
        repeats.append(repeat / again)
        controls.append(again / kth)
        updates += [first, repeat]
        kths += [kth, again]
    return {
        "update_s": statistics.median(updates),
        "kthvalue_s": statistics.median(kths),
        "ratio_first": statistics.median(firsts),
        "ratio_repeated": statistics.median(repeats),
        "control": statistics.median(controls),
    }


def peak_memory(weights: int) -> dict[str, float]:
    """Measure in fresh processes, so that no earlier peak hides this one."""
    sizes = {}
    for what in MODES:
        command = [sys.executable, __file__, "--measure", what, "--weights", str(weights)]
        reply = subprocess.run(command, check=True, capture_output=True, text=True)
        sizes[f"memory_gb_{what}"] = float(json.loads(reply.stdout)["extra_gb"])
    return sizes


def measure_memory(what: str, weights: int) -> float:
    """Return how far the peak of one update rises above weights and masks, in GB."""
    # The warm-up loads what torch loads at its first call.
    make_pruner(1 << 16).prune_to(0.5)
    pruner = make_pruner(weights)
    if what == "first":
        owned = weights  # the masks, a byte each, which the update makes
    else:
        pruner.prune_to(0.5)
        reset_peak()
        owned = 0
    before = resident()
    if what == "training":
        pruner.mask_weights()
    pruner.prune_to(0.9)
    return (peak() - before - owned) / 1e9


def peak() -> int:
    """Return the peak of this process's memory, in bytes."""
    if what := read_status("VmHWM"):
        return what
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident() -> int:
    """Return this process's memory now, in bytes."""
    return read_status("VmRSS")


def read_status(key: str) -> int:
    """Read a field of ``/proc/self/status``, in bytes."""
    with Path("/proc/self/status").open(encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def reset_peak() -> None:
    """Let the kernel count the peak from now on."""
    with Path("/proc/self/clear_refs").open("w", encoding="ascii") as file:
        file.write("5")


def main() -> int:
    """Measure, print, and say by the exit status whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=MODES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.measure:
        print(json.dumps({"extra_gb": measure_memory(args.measure, args.weights)}))
        return 0
    result = {**peak_memory(args.weights), **compare(args.weights, args.rounds)}
    for key, value in result.items():
        print(f"{key:18s} {value:.3f}")
    met = max(result["ratio_first"], result["ratio_repeated"]) <= TARGETS["ratio"]
    met = (
        met and max(result["memory_gb_first"], result["memory_gb_repeated"]) <= TARGETS["memory_gb"]
    )
    print(f"targets {TARGETS}: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
