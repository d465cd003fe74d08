"""What scoring costs, as multiples of a forward pass over the same observations.

    python benchmarks/criteria.py [--rounds 7] [--json]

A 376-1024-1024-17 tanh net on 4,096 observations, in minibatches of 128, on one thread. In each
round every criterion, and the forward pass twice, run once in an order shuffled anew; a multiple is
the median of the rounds' ratios of process time, with its 95 % bootstrap interval. The control
compares the forward pass with itself. Shapley values are those of one hidden layer, by 32 orders
(16 antithetic pairs) over 256 observations, in multiples of a forward pass over those 256: once
with every pair on all 256 observations, once with each pair on its own 16 (16 minibatches of 16),
as the Learner's minibatches are dealt out. Exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rayprune import Pruner, PruningConfig
from rayprune.pruning.criteria.shapley import estimate_shapley
from rayprune.pruning.evidence.divergences import gaussian_divergence
from rayprune.pruning.evidence.objectives import Objective

WIDTHS = (376, 1024, 1024, 17)
OBSERVATIONS, MINIBATCH, FEW = 4096, 128, 256
PERMUTATIONS = 32
TARGETS = {
    "snip": 4.0,
    "taylor": 4.0,
    "fisher": 5.0,
    "information_gain": 3.0,
    "shapley, last hidden layer": 400.0,
    "shapley, last hidden layer, shared out": 400.0,
    "shapley, first hidden layer, shared out": 400.0,
}
# Told beside: without a target, or with every pair on every observation of the wider layer.
BESIDE = ("wanda", "information_gain, binned")


def net() -> nn.Sequential:
    """Return the net."""
    layers: list[nn.Module] = []
    for width, after in itertools.pairwise(WIDTHS):
        layers += [nn.Linear(width, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def loss(module: nn.Module, x: Tensor) -> Tensor:
    """Return minus the log-probability of zero actions under unit Gaussians, less a constant."""
    return module(x).square().sum(dim=-1).mean() / 2


def forward(module: nn.Module, batches: list[Tensor]) -> None:
    """Run the net, as an evaluation would."""
    with torch.no_grad():
        for batch in batches:
            module(batch)


def scorer(
    module: nn.Module, criterion: str, batches: list[Tensor], **config: object
) -> Callable[[], object]:
    """Return what scores the whole net by a criterion."""
    pruner = Pruner(module, PruningConfig(sparsity=0.5, criterion=criterion, **config))
    return lambda: pruner.scores(batch=batches, loss=loss)


def shapley(module: nn.Module, batches: list[Tensor], layer: str) -> Callable[[], object]:
    """Return what estimates one layer's Shapley values."""
    config = PruningConfig(sparsity=0.5, criterion="shapley", granularity="neuron")
    pruner = Pruner(module, config)
    objective = Objective(loss, lambda m, x: {}, lambda m, x: m(x), gaussian_divergence)

    def run() -> None:
        games = pruner.measure(batches, objective).tables["coalitions"]
        generator = torch.Generator().manual_seed(0)
        estimate_shapley(games[f"{layer}.weight"], generator, PERMUTATIONS)

    return run


def seconds(work: Callable[[], object]) -> float:
    """Return the process time that some work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(
    arms: dict[str, Callable[[], object]], unit: Callable[[], object], rounds: int
) -> dict[str, list[float]]:
    """Return each arm's ratios to the unit, with the unit itself as control."""
    named = {"unit": unit, "control (A/A)": unit, **arms}
    ratios: dict[str, list[float]] = {name: [] for name in named}
    for name in named:
        named[name]()  # what is loaded or asked for at the first call counts nowhere
    for _ in range(rounds):
        order = [*named]
        random.shuffle(order)
        times = {name: seconds(named[name]) for name in order}
        for name, value in times.items():
            ratios[name].append(value / times["unit"])
    del ratios["unit"]
    return ratios


def repeated(work: Callable[[], object], times: int) -> Callable[[], object]:
    """Return work done several times, for what is too short to time."""

    def run() -> None:
        for _ in range(times):
            work()

    return run


def interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a median."""
    generator = np.random.default_rng(0)
    picks = generator.choice(values, size=(2000, len(values)))
    low, high = np.quantile(np.median(picks, axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> int:
    """Measure, print, and say by the exit status whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = net()
    x = torch.randn(OBSERVATIONS, WIDTHS[0])
    batches = list(x.split(MINIBATCH))
    units = {"granularity": "neuron"}
    arms = {
        "snip": scorer(module, "snip", batches),
        "taylor": scorer(module, "taylor", batches),
        "fisher": scorer(module, "fisher", batches),
        "wanda": scorer(module, "wanda", batches),
        "information_gain": scorer(module, "information_gain", batches, **units),
        "information_gain, binned": scorer(
            module, "information_gain", batches, evidence={"estimator": "binned"}, **units
        ),
    }
    ratios = measure(arms, lambda: forward(module, batches), args.rounds)
    few = x[:FEW]
    shared = list(few.split(FEW // (PERMUTATIONS // 2)))
    # A forward pass over 256 is too short to time alone.
    times = 50
    games = {
        "shapley, last hidden layer": shapley(module, [few], "2"),
        "shapley, last hidden layer, shared out": shapley(module, shared, "2"),
        "shapley, first hidden layer, shared out": shapley(module, shared, "0"),
    }
    found = measure(
        games, repeated(lambda: forward(module, [few]), times), max(3, args.rounds // 2)
    )
    control = found.pop("control (A/A)")
    ratios |= {name: [times * value for value in values] for name, values in found.items()}
    ratios["control of shapley (A/A)"] = control
    result = {
        name: {"median": statistics.median(values), "ci95": interval(values)}
        for name, values in ratios.items()
    }
    missed = [name for name, target in TARGETS.items() if result[name]["median"] > target]
    for name, figures in result.items():
        low, high = figures["ci95"]
        target = f"  target {TARGETS[name]:g}" if name in TARGETS else ""
        print(f"{name:42s} {figures['median']:8.2f} [{low:.2f}, {high:.2f}]{target}")
    print(f"targets {'MISSED: ' + ', '.join(missed) if missed else 'met'}")
    if args.json:
        print(json.dumps(result))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
