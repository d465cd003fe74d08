"""Whether pruning on a GPU does what it does on a CPU: the same masks, bit for bit.

Criteria that measure (gradients, activations, coalitions) run the network, and two devices' sums
differ: of these the scores are compared, as a share of the largest.

    python benchmarks/gpu_check.py            # --json prints one line of JSON at the end

Needs torch, numpy and pydantic; gpu_learners.py has RLlib's part. Exits 0 if all is right, 1 if
anything differs; without a GPU it exits 0 and says `no GPU: nothing checked`, also as JSON
(`"checked": false`). `--device cpu` compares the CPU with itself: that tests this script, not the
GPU.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "4")
# A clone needn't be installed to be checked.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import RaypruneError
from rayprune.pruning.criteria import CRITERIA
from rayprune.pruning.distributions import DISTRIBUTIONS
from rayprune.pruning.evidence.divergences import gaussian_divergence
from rayprune.pruning.evidence.objectives import ANY_GROUP, Actions, Objective
from rayprune.pruning.granularity import GRANULARITIES, POOLINGS
from rayprune.pruning.schedules import SCHEDULES

NOTHING_CHECKED = "no GPU: nothing checked"


class Recurrent(nn.Module):
    """An LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(24, 48, num_layers=2, batch_first=True)
        self.head = nn.Linear(48, 6)


def mlp() -> nn.Module:
    """Return a fully connected net."""
    return nn.Sequential(nn.Linear(40, 200), nn.Tanh(), nn.Linear(200, 200), nn.Linear(200, 7))


def cnn() -> nn.Module:
    """Return a convolutional net; none of these nets is ever run."""
    convolutions = (nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.Flatten())
    return nn.Sequential(*convolutions, nn.Linear(576, 64), nn.Linear(64, 6))


NETS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "cnn": cnn, "lstm": Recurrent}

SCHEDULE = {"begin": 0, "end": 1000, "every": 250}
LAST = 1500
THRESHOLDS = ({"absolute": 0.03}, {"percentile": 80}, {"mean_fraction": 0.8})


TOLERANCE = 1e-3
"""Of scores that were measured, as a share of the largest."""
NEEDS_DATA = tuple(name for name, c in CRITERIA.items() if c.evidence or c.needs_returns)
"""Criteria that see more than the weights."""
NOT_COMPARED = {
    "input": "asks which layers read the observation, which these nets don't say",
    "layer": "these nets have no layer that could be left out",
    "n:m": "a form; 2:4 stands for it",
    "gated": "waits for returns",
    "lottery": "goes back to weights that a driver keeps",
}
"""Granularities and schedules that are left out, and why."""
FORMS = (*(g for g in GRANULARITIES if g not in NOT_COMPARED), "2:4")
HYBRID = {"neuron": 0.5, "weight": 0.8}
GROWING = ("set", "rigl", "grow")
"""Schedules that need granularity ``weight``."""


def settings() -> Iterator[dict[str, Any]]:
    """Yield every combination worth comparing, as keyword arguments of PruningConfig."""
    for criterion, distribution, granularity in itertools.product(
        [c for c in CRITERIA if c not in NEEDS_DATA],
        DISTRIBUTIONS,
        FORMS,
    ):
        for pooling in POOLINGS if granularity == "neuron" else ("mean",):
            yield {
                "sparsity": 0.8,
                "criterion": criterion,
                "distribution": distribution,
                "granularity": granularity,
                "pooling": pooling,
            }
    for kind, granularity in itertools.product(SCHEDULES, FORMS):
        if kind not in NOT_COMPARED and (kind not in GROWING or granularity == "weight"):
            yield {"sparsity": 0.9, "granularity": granularity, "schedule": {"kind": kind}}
    for threshold, distribution in itertools.product(THRESHOLDS, ("uniform", "global")):
        yield {"threshold": threshold, "distribution": distribution}
    yield {"sparsity": 0.9, "operation": {"scale": 0.5, "steps": 3}, "distribution": "global"}


def configs() -> Iterator[PruningConfig]:
    """Yield the settings that make a valid config; the rest can't be pruned on any device."""
    for given in settings():
        schedule = {"kind": "cubic"} | given.pop("schedule", {}) | SCHEDULE
        if given.get("granularity") == "hybrid":
            given["hybrid"] = HYBRID
            del given["sparsity"]
        if given.get("granularity") == "2:4":
            given["sparsity"] = 0.5
        if schedule["kind"] == "one_shot":
            del schedule["end"]
        try:
            yield PruningConfig(**given, schedule=schedule, horizon=1000)
        except RaypruneError as error:
            print(f"  left out {given}: {error}", file=sys.stderr)


def difference(make: Callable[[], nn.Module], config: PruningConfig, device: str) -> str:
    """Prune on both devices by the schedule, weights moving in between; say what differs first.

    The weights stay equal to the bit: they are disturbed on the CPU and copied over, so that only
    pruning is compared, not two devices' floating-point sums.
    """
    torch.manual_seed(0)
    module = make()
    twin = copy.deepcopy(module).to(device)
    pruner, other = Pruner(module, config, seed=3), Pruner(twin, config, seed=3)
    for step in range(0, LAST + 1, 250):
        ours, theirs = pruner.update(step), other.update(step)
        if (ours is None) != (theirs is None):
            return f"step {step}: a mask update on one device only"
        found = _unequal(pruner, other, device)
        if found:
            return f"step {step}: {found}"
        disturb(module, twin, step)
        for kept in (pruner, other):
            grow(kept, step)
        pruner.mask_weights()
        other.mask_weights()
        if pruner.violations() or other.violations():
            return f"step {step}: pruned weights that are not zero"
    if not 0 < pruner.sparsity() < 1:
        return f"nothing was pruned, or all: {pruner.sparsity()}"
    return ""


def _unequal(pruner: Pruner, other: Pruner, device: str) -> str:
    if pruner.masks.keys() != other.masks.keys():
        return f"masks of {sorted(pruner.masks)} and of {sorted(other.masks)}"
    for name, mask in pruner.masks.items():
        theirs = other.masks[name]
        if theirs.device.type != torch.device(device).type:
            return f"the mask of {name} is on {theirs.device}"
        if not torch.equal(mask, theirs.cpu()):
            return f"{int((mask != theirs.cpu()).sum())} of {mask.numel()} bits of {name}"
        weight = pruner.parameters[name]
        if not torch.equal(weight, other.parameters[name].cpu()):
            return f"the weights of {name}"
    return ""


@torch.no_grad()
def disturb(module: nn.Module, twin: nn.Module, seed: int) -> None:
    """Add the same noise to both modules' parameters."""
    generator = torch.Generator().manual_seed(seed)
    for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        noise = 0.01 * torch.randn(ours.shape, generator=generator)
        ours.add_(noise)
        theirs.copy_(ours)


def grow(pruner: Pruner, seed: int) -> None:
    """Hand a pruner the dense gradients that regrowth looks at: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    gradients = {
        p: torch.randn(p.shape, generator=generator).to(p.device)
        for p in pruner.parameters.values()
    }
    pruner.gather_gradients(gradients)


def score_difference(criterion: str, device: str) -> float:
    """Return how far a measured criterion's scores are apart, as a share of the largest."""
    granularity = "neuron" if CRITERIA[criterion].scores == "units" else "weight"
    config = PruningConfig(sparsity=0.8, criterion=criterion, granularity=granularity)
    torch.manual_seed(0)
    module, batch = mlp(), torch.randn(512, 40)
    found = []
    for where in ("cpu", device):
        # What a unit of the output layer says of the actions, which it is, is infinite but rounded.
        pruner = Pruner(copy.deepcopy(module).to(where), config, exempt=("3",), seed=3)
        for step in range(3):
            weights = pruner.parameters.values()
            pruner.observe_gradients({p: torch.full_like(p, step - 0.5) * p for p in weights})
        found.append(pruner.scores(batch=batch.to(where), loss=OBJECTIVE))
    ours, theirs = ({n: s.cpu() for n, s in scores.items()} for scores in found)
    most = max(float(score.abs().max()) for score in ours.values())
    return max(float((theirs[n] - score).abs().max()) for n, score in ours.items()) / most


OBJECTIVE = Objective(
    loss=lambda module, x: module(x).square().mean(),
    actions=lambda module, x: {ANY_GROUP: Actions(module(x))},
    outputs=lambda module, x: module(x),
    divergence=gaussian_divergence,
)


def compare_scores(device: str) -> dict[str, float]:
    """Return the difference of every criterion that measures; one is measured by the driver."""
    return {c: score_difference(c, device) for c in NEEDS_DATA if c != "return"}


def compare_all(device: str) -> dict[str, Any]:
    """Compare every config on every net."""
    compared, differences = 0, []
    for (name, make), config in itertools.product(NETS.items(), list(configs())):
        try:
            found = difference(make, config, device)
        except RaypruneError as error:
            # Such as a budget that this net can't meet: no device's fault, but never silent.
            found = f"{type(error).__name__}: {error}"
        compared += 1
        if found:
            told = config.to_dict()
            keys = ("criterion", "distribution", "granularity", "pooling", "threshold", "schedule")
            differences.append({"net": name, "found": found, **{key: told[key] for key in keys}})
    return {"compared": compared, "differences": differences}


# -- timings --------------------------------------------------------------------------------------


def timings(device: str, weights: int) -> dict[str, float]:
    """Return milliseconds (median of 10) of a mask update, and of the multiplies of a step."""
    width = round((weights / 10) ** 0.5)
    layers = [nn.Linear(width, width, bias=False, device=device) for _ in range(10)]
    module = nn.Sequential(*layers)
    config = PruningConfig(sparsity=0.9, criterion="l1", distribution="global")

    def update() -> None:
        for layer in layers:
            layer.__dict__["masks"] = {}  # A fresh start: what is masked needs no pruning.
        Pruner(module, config).prune_to(0.9)

    scores = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
    found = {
        "weights": float(10 * width * width),
        "mask_update_ms": milliseconds(update, device),
        "kthvalue_ms": milliseconds(lambda: torch.kthvalue(scores, scores.numel() // 2), device),
    }
    pruner = Pruner(module, config)
    pruner.prune_to(0.9)
    gradients = {p: torch.randn_like(p) for p in module.parameters()}
    found["mask_gradients_ms"] = milliseconds(lambda: pruner.mask_gradients(gradients), device)
    found["mask_weights_ms"] = milliseconds(pruner.mask_weights, device)
    return found


def milliseconds(call: Callable[[], object], device: str, repeats: int = 10) -> float:
    """Return the median wall time of a call, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[1:])[repeats // 2]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Check, tell, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--weights", type=int, default=100_000_000, help="of the timings")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, last")
    arguments = parser.parse_args()

    results: dict[str, Any] = {"torch": torch.__version__, "device": arguments.device}
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(NOTHING_CHECKED)
        if arguments.json:
            print(json.dumps(results | {"checked": False, "right": None, "why": NOTHING_CHECKED}))
        return 0
    if arguments.device == "cuda":
        results["gpu"] = torch.cuda.get_device_name()
    print(f"torch {torch.__version__} on {results.get('gpu', 'the CPU, compared with itself')}")

    masks = compare_all(arguments.device)
    print(f"masks: {masks['compared']} runs compared, {len(masks['differences'])} differ")
    for told in masks["differences"]:
        print(f"  {told}")
    results |= {"checked": arguments.device == "cuda", "masks": masks}
    results["timings"] = timings(arguments.device, arguments.weights)
    for name, value in results["timings"].items():
        print(f"  {name:20} {value:,.3f}")

    scores = results["scores"] = compare_scores(arguments.device)
    for name, value in scores.items():
        print(f"  {name:20} scores differ by {value:.1e} of the largest")
    right = not masks["differences"] and max(scores.values()) <= TOLERANCE
    results["right"] = right
    if arguments.json:
        print(json.dumps(results))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
