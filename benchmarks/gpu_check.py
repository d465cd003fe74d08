"""Whether pruning on a GPU does what it does on a CPU: the same masks, bit for bit.

    python benchmarks/gpu_check.py            # --json prints one line of JSON at the end

Needs torch, numpy and pydantic. Where Ray is importable too, PPO trains three iterations with its
Learner actor on the GPU. Exits 0 if all is right, 1 if anything differs; without a GPU it exits 0
and says `no GPU: nothing checked`, also as JSON (`"checked": false`). `--device cpu` compares the
CPU with itself: that tests this script, not the GPU.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
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


def settings() -> Iterator[dict[str, Any]]:
    """Yield every combination worth comparing, as keyword arguments of PruningConfig."""
    for criterion, distribution, granularity in itertools.product(
        CRITERIA, DISTRIBUTIONS, GRANULARITIES
    ):
        for pooling in POOLINGS if granularity == "neuron" else ("mean",):
            yield {
                "sparsity": 0.8,
                "criterion": criterion,
                "distribution": distribution,
                "granularity": granularity,
                "pooling": pooling,
            }
    for kind, granularity in itertools.product(SCHEDULES, GRANULARITIES):
        yield {"sparsity": 0.9, "granularity": granularity, "schedule": {"kind": kind}}
    for threshold, distribution in itertools.product(THRESHOLDS, ("uniform", "global")):
        yield {"threshold": threshold, "distribution": distribution}
    yield {"sparsity": 0.9, "operation": {"scale": 0.5, "steps": 3}, "distribution": "global"}


def configs() -> Iterator[PruningConfig]:
    """Yield the settings that make a valid config; the rest can't be pruned on any device."""
    for given in settings():
        schedule = {"kind": "cubic"} | given.pop("schedule", {}) | SCHEDULE
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


# -- RLlib ----------------------------------------------------------------------------------------


def train_ppo() -> dict[str, Any]:
    """Train PPO for three iterations with its Learner actor on the GPU, and read its masks."""
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig

    from rayprune.rllib import prune

    ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False)
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=1)
        .learners(num_learners=1, num_gpus_per_learner=1)
        .training(train_batch_size_per_learner=512, minibatch_size=128, num_epochs=2)
        .debugging(seed=0)
    )
    schedule = {"kind": "linear", "begin": 0, "end": 1000, "every": 100}
    algorithm = prune(config, PruningConfig(sparsity=0.9, schedule=schedule)).build_algo()
    try:
        iterations = []
        for _ in range(3):
            algorithm.train()
            # Everything the check needs, in the Learner's process: a result holds or raises.
            iterations += [r.get() for r in algorithm.learner_group.foreach_learner(_look)]
    finally:
        algorithm.stop()
        ray.shutdown()
    right = all(
        i["device"].startswith("cuda") and i["masks_on"] == ["cuda"] and not i["violations"]
        for i in iterations
    )
    return {"right": right and iterations[-1]["sparsity"] >= 0.89, "iterations": iterations}


def _look(learner: Any) -> dict[str, Any]:
    (report,) = learner.pruning_report().values()
    pruners = learner._pruners.values()
    masks = [mask for pruner in pruners for mask in pruner.masks.values()]
    return {
        "device": str(next(learner.module["default_policy"].parameters()).device),
        "masks_on": sorted({mask.device.type for mask in masks}),
        "sparsity": report["sparsity"],
        "violations": report["violations"],
    }


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

    right = not masks["differences"]
    if arguments.device == "cuda" and importlib.util.find_spec("ray") is not None:
        results["ppo"] = train_ppo()
        right = right and results["ppo"]["right"]
        print(f"PPO, Learner on the GPU: {results['ppo']}")
    else:
        print("PPO: not checked, for want of Ray or of a GPU")
    results["right"] = right
    if arguments.json:
        print(json.dumps(results))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
