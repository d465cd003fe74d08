"""How fast exported policies are: pruned beside dense, in ONNX Runtime and in C, and in RLlib.

    python benchmarks/deploy.py [--case mlp256] [--rounds 9] [--formats onnx c] [--json]

Policies nobody has trained, with 75 % of the units of each hidden layer dead (*pruned*) or 90 % of
their 16x1 blocks zero (*blocks*), exported as `rayprune export` does. One process, one thread,
process CPU time; arms take turns. A ratio is the median of paired ratios over rounds with its 95 %
interval; the control is the dense ONNX file against itself. ONNX Runtime and RLlib are called from
Python, once for a batch. C is timed in C, a thousand calls of one observation each at batch 1.
Stored sizes are of the weights alone.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env
from torch import nn

from rayprune.deploy.artifact import open_artifact
from rayprune.deploy.c.compiling import CArtifact
from rayprune.deploy.exporting import export_policy
from rayprune.deploy.latency import CONTROL, Timings, speed_up, time_arms
from rayprune.deploy.policy import DeployablePolicy
from rayprune.deploy.storage import dumps
from rayprune.errors import InputError
from rayprune.rllib.deployable import deployable
from rayprune.rllib.evaluation import Evaluator
from rayprune.rllib.models import PrunableLSTM, PrunableMLP, PrunableNatureCNN

Box = gym.spaces.Box
CALLS = 1000
"""Of the C function in one timed call."""


class Spaces(gym.Env[Any, Any]):
    """An environment that is nothing but its spaces."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.observation_space, self.action_space = config["spaces"]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Return an observation."""
        return self.observation_space.sample(), {}


@dataclass(frozen=True)
class Case:
    """A network of `NOTES`' kinds."""

    module: Any
    model: Mapping[str, Any]
    observation: gym.Space[Any]
    action: gym.Space[Any]


def _floats(*shape: int) -> Box:
    return Box(-1.0, 1.0, shape, np.float32)


CASES = {
    "mlp256": Case(PrunableMLP, {}, _floats(17), _floats(6)),
    "mlp1024": Case(PrunableMLP, {"policy_hiddens": [1024, 1024]}, _floats(376), _floats(17)),
    "nature_cnn": Case(PrunableNatureCNN, {}, _floats(84, 84, 4), gym.spaces.Discrete(6)),
    "lstm256": Case(PrunableLSTM, {"policy_hiddens": []}, _floats(64), gym.spaces.Discrete(6)),
}


def evaluator_of(case: Case) -> Evaluator:
    """Build a case's policy with fixed weights."""
    register_env("deploy-benchmark", Spaces)
    torch.manual_seed(0)
    spec = RLModuleSpec(module_class=case.module, model_config=dict(case.model))
    config = PPOConfig().environment(
        "deploy-benchmark", env_config={"spaces": (case.observation, case.action)}
    )
    return Evaluator(config.rl_module(rl_module_spec=spec).debugging(log_level="ERROR"))


def kill_units(policy: nn.Module, share: float) -> None:
    """Let nobody read so many units of each hidden layer of ``policy``, a chain of layers."""
    weighted = (nn.Linear, nn.Conv2d, nn.LSTM)
    layers = [layer for layer in policy.modules() if isinstance(layer, weighted)]
    with torch.no_grad():
        for layer, reader in itertools.pairwise(layers):
            units = layer.hidden_size if isinstance(layer, nn.LSTM) else layer.weight.shape[0]
            dead = torch.randperm(units)[: round(share * units)]
            if isinstance(layer, nn.LSTM):
                layer.weight_hh_l0[:, dead] = 0
            weight = reader.weight_ih_l0 if isinstance(reader, nn.LSTM) else reader.weight
            # Between a convolution and a Linear, each channel has many columns.
            weight.view(len(weight), units, -1)[:, dead] = 0


def zero_blocks(policy: nn.Module, sparsity: float) -> None:
    """Zero so many of the 16x1 blocks of each Linear."""
    linear = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer in linear:
            rows, columns = layer.weight.shape
            keep = torch.rand(-(-rows // 16), columns) >= sparsity
            layer.weight.mul_(keep.repeat_interleave(16, 0)[:rows])


def export(policy: DeployablePolicy, path: Path) -> Path:
    """Export a policy in the format of the file's name."""
    draw = np.random.default_rng(0)
    recorded = [
        draw.normal(size=(64, *port.shape)).astype(port.dtype) for port in policy.interface.inputs
    ]
    export_policy(
        policy, path, {".onnx": "onnx", ".c": "c"}[path.suffix], recorded=recorded, about={}
    )
    return path


def arm_of(path: Path, batch: int) -> tuple[Callable[[], object], int]:
    """Return what is timed of a file, and how many calls that is."""
    artifact = open_artifact(path)
    calls = CALLS if isinstance(artifact, CArtifact) and batch == 1 else 1
    inputs = [port.zeros(batch * calls) + 0.3 for port in artifact.interface.inputs]
    inputs = [
        x.astype(port.dtype) for x, port in zip(inputs, artifact.interface.inputs, strict=True)
    ]
    if not isinstance(artifact, CArtifact):
        return (lambda: artifact.run(inputs)), calls
    arrays = [
        *inputs,
        *(np.empty((batch * calls, *p.shape), "f4") for p in artifact.interface.outputs),
    ]

    def call() -> None:
        # The pointers hold no reference: the arrays have to live as long as this function.
        artifact.function(len(arrays[0]), *(ctypes.c_void_p(x.ctypes.data) for x in arrays))

    return call, calls


def _rllib_arm(evaluator: Evaluator) -> Callable[[], object]:
    given = evaluator.first_batch(0)
    return lambda: evaluator.module.forward_inference(given)


def time_case(name: str, folder: Path, rounds: int, formats: Sequence[str]) -> dict[str, Any]:
    """Time a case's files at batch 1 and 32."""
    case, files = CASES[name], {}
    for kind in ("dense", "pruned", "blocks"):
        evaluator = evaluator_of(case)
        policy = deployable(evaluator)
        if kind == "pruned":
            kill_units(evaluator.module.policy, 0.75)
        if kind == "blocks":
            zero_blocks(evaluator.module.policy, 0.9)
        if kind == "blocks" and not name.startswith("mlp"):
            continue
        for suffix in formats if kind != "blocks" else set(formats) - {"onnx"}:
            try:
                files[f"{suffix} {kind}"] = export(policy, folder / f"{name}_{kind}.{suffix}")
            except InputError as error:
                print(f"{name} {kind} {suffix}: {error}")
    evaluator = evaluator_of(case)
    rows = {}
    for batch in (1, 32):
        arms = {label: arm_of(path, batch) for label, path in files.items()}
        timed = {label: arm for label, (arm, _) in arms.items()}
        if batch == 1:
            timed["forward_inference"] = _rllib_arm(evaluator)
        timings = time_arms(timed, rounds=rounds, clock=time.process_time, block_s=0.05)
        for label, (_, calls) in arms.items():
            timings[label] = Timings(tuple(block / calls for block in timings[label].blocks))
        reference = timings["onnx dense"]
        rows[batch] = {
            label: {
                "median_us": 1e6 * float(np.median(found.medians)),
                "than_onnx_dense": speed_up(reference, found),
                "than_rllib": speed_up(timings["forward_inference"], found) if batch == 1 else None,
            }
            for label, found in timings.items()
        }
    return {"batches": rows}


def stored_sizes() -> dict[str, float]:
    """Return how many times smaller the 376-1024-1024-17 MLP's weights are stored, by sparsity."""
    sizes, draw = [376, 1024, 1024, 17], np.random.default_rng(0)
    found = {}
    for sparsity in (0.5, 0.75, 0.9, 0.95, 0.99):
        state = {}
        for columns, rows in itertools.pairwise(sizes):
            weight = draw.normal(size=(rows, columns)).astype(np.float32)
            weight[draw.random(weight.shape) < sparsity] = 0
            state[f"{rows}x{columns}"], state[f"{rows}"] = weight, weight[:, 0].copy() + 1
        found[str(sparsity)] = len(pickle.dumps(state, protocol=5)) / len(dumps(state))
    return found


def show(name: str, rows: Mapping[int, Mapping[str, Any]]) -> None:
    """Print a case's rows."""
    for batch, arms in rows.items():
        print(f"\n{name}, batch {batch}")
        for label, row in arms.items():
            label = "control (onnx dense)" if label == CONTROL else label
            ratio = row["than_onnx_dense"]
            line = f"  {label:<22} {row['median_us']:9.2f} us  {ratio['ratio']:7.2f}x onnx dense "
            line += "[{:.2f}, {:.2f}]".format(*ratio["ci95"])
            if row["than_rllib"] is not None:
                line += f"  {row['than_rllib']['ratio']:7.1f}x forward_inference"
            print(line)


def main() -> None:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--formats", nargs="+", choices=("onnx", "c"), default=("onnx", "c"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"stored": stored_sizes()}
    times = ", ".join(f"{float(s):.0%}: {x:.1f}" for s, x in result["stored"].items())
    print(f"376-1024-1024-17, times smaller when stored without zeros: {times}")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.case or CASES:
            result[name] = time_case(name, Path(folder), given.rounds, given.formats)
            show(name, result[name]["batches"])
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
