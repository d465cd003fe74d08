"""What making up for a cut is worth without training: policies cut at once, by ridge and cuts.

    python benchmarks/reconstruction.py runs/hopper/dense-seed* --sparsity 0.9

Each run's policy is a `rayprune.rllib.models:PrunableMLP`. It is cut by the recipe (magnitude, ERK)
in some cuts, on 4,096 of the states of ten greedy episodes. What is lost is measured on others of
these states, as a share of the outputs' variance, and the return on ten other episodes. `no repair`
is the cut alone.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayprune import Calibration, Pruner
from rayprune.rllib.evaluation.open_policy import OpenPolicy

EPISODES: Final = 10
FIRST_SEED: Final = 5_000
STATES: Final = 4_096
NOISE: Final = 0.1
"""Of the normalised observations."""


def main() -> None:
    """Print a row for each run, ridge and number of cuts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--ridges", nargs="+", type=float, default=[1e-4, 1e-3, 1e-2, 1e-1])
    parser.add_argument("--cuts", nargs="+", type=int, default=[1, 36])
    asked = parser.parse_args()
    print("| run | repair | return | lost variance | moved by noise | largest RMS weight |")
    print("|---|---|---|---|---|---|")
    for run in asked.runs:
        with OpenPolicy.at(run) as policy:
            for cells in measured(policy, asked):
                print(f"| {run.name} | {' | '.join(cells)} |", flush=True)


def measured(policy: OpenPolicy, asked: Any) -> Iterator[list[str]]:
    """Yield the cells of a run's rows."""
    net = policy.evaluator.module.policy
    whole = copy.deepcopy(net)
    states, before = visited(policy, net)
    yield ["dense", f"{before:.0f}", "0", *_sizes(whole, whole, states[1])]
    for ridge in (None, *asked.ridges):
        for cuts in asked.cuts if ridge is not None else asked.cuts[:1]:
            small = cut(whole, states[0], asked.sparsity, ridge, cuts)
            net.load_state_dict(small.state_dict())
            told = "no repair" if ridge is None else f"ridge {ridge:g}, {cuts} cuts"
            after = mean_return(policy, FIRST_SEED + EPISODES)
            lost = _moved(small(states[1]), whole(states[1]), whole(states[1]))
            yield [told, f"{after:.0f}", f"{lost:.4f}", *_sizes(small, whole, states[1])]


def visited(policy: OpenPolicy, net: nn.Sequential) -> tuple[tuple[Tensor, Tensor], float]:
    """Return states to solve on, states to measure on, and the return of the episodes."""
    seen: list[Tensor] = []
    first = next(layer for layer in net if isinstance(layer, nn.Linear))
    hook = first.register_forward_hook(lambda _, given, out: seen.append(given[0].detach().clone()))
    try:
        found = mean_return(policy, FIRST_SEED)
    finally:
        hook.remove()
    states = torch.cat([part.reshape(-1, part.shape[-1]) for part in seen])
    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(0))
    return (states[order[:STATES]], states[order[STATES : 2 * STATES]]), found


def mean_return(policy: OpenPolicy, seed: int) -> float:
    """Return the mean over some greedy episodes."""
    return sum(policy.returns(seed, EPISODES)) / EPISODES


@torch.no_grad()
def cut(
    whole: nn.Sequential, states: Tensor, sparsity: float, ridge: float | None, cuts: int
) -> nn.Sequential:
    """Return a copy of a net, cut."""
    net = copy.deepcopy(whole)
    ramp = {"kind": "cubic", "begin": 0, "end": cuts, "every": 1}
    at_once = {"kind": "one_shot", "begin": 2, "every": 1}
    schedule = ramp if cuts > 1 else at_once
    pruner = Pruner(net, {"recipe": "recommended", "sparsity": sparsity, "schedule": schedule})
    run = None if ridge is None else Calibration(run=lambda: net(states), ridge=ridge)
    for number in range(1, max(cuts, 2) + 1):
        pruner.update(number, calibration=run)
    assert abs(pruner.sparsity() - sparsity) < 0.01
    return net


def _moved(after: Tensor, before: Tensor, scale: Tensor) -> float:
    return float((after - before).square().mean().detach() / scale.detach().var())


def _sizes(net: nn.Sequential, whole: nn.Sequential, states: Tensor) -> list[str]:
    noise = NOISE * torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
    moved = ((net(states + noise) - net(states)) ** 2).mean().detach() / whole(
        states
    ).detach().var()
    weights = [layer.weight.detach() for layer in net if isinstance(layer, nn.Linear)]
    largest = max(float(w[w != 0].square().mean().sqrt()) for w in weights)
    return [f"{moved:.4f}", f"{largest:.2f}"]


if __name__ == "__main__":
    main()
