"""How fast exported policies are: pruned beside dense, in ONNX Runtime and in C, and in RLlib.

    python benchmarks/deploy.py [--case mlp256] [--rounds 9] [--formats onnx c] [--json]

Policies nobody has trained, with 75 % of the units of each hidden layer dead (*pruned*) or 90 % of
their 16x1 blocks zero (*blocks*), exported as `rayprune export` does. One process, one thread,
process CPU time; arms take turns, and files are opened anew every third round, for where weights
happen to lie in memory is worth a few percent. A ratio is the median of paired ratios over rounds
with its 95 % interval; the control is the dense ONNX file against itself.

ONNX Runtime and RLlib are called from Python, once for a batch; at batch 1 ten of ONNX Runtime's
calls are timed at once, for reading the clock takes 0.6 us. Its inputs and outputs are bound to
arrays that are there, as C's are; `run()` is rayprune's own call, which copies them and takes 2 us
more. C is timed in C, at batch 1 up to a thousand calls of one observation each, as many as a cache
holds. Both of RLlib's arms are dense: `ours` calls `forward_inference` of the module that was
exported, `RLlib's` that of RLlib's default module of the same sizes (whose LSTM needs a layer
before it: 64 units here). Stored sizes are of the weights alone.
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
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.torch_utils import convert_to_torch_tensor
from ray.tune.registry import register_env
from torch import nn

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.formats import open_artifact
from rayprune.deploy.formats.c.compiler import CArtifact
from rayprune.deploy.formats.onnx.runtime import OnnxArtifact
from rayprune.deploy.measure.latency import CONTROL, Timings, speed_up, time_arms
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.storage import dumps
from rayprune.errors import InputError
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.export.policy import deployable
from rayprune.rllib.models import PrunableLSTM, PrunableMLP, PrunableNatureCNN

Box = gym.spaces.Box
CALLS, CACHED = 1000, 512 * 1024
"""Of the C function in one timed call, at most; and bytes of their observations, at most."""
ONNX_CALLS = 10
OURS, RLLIBS = "ours", "RLlib's"
COPYING = ", run()"
ROUNDS_AS_OPENED = 3


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
    default: Mapping[str, Any]
    """RLlib's name for a network of these sizes."""


def _floats(*shape: int) -> Box:
    return Box(-1.0, 1.0, shape, np.float32)


CASES = {
    "mlp256": Case(PrunableMLP, {}, _floats(17), _floats(6), {"fcnet_hiddens": [256, 256]}),
    "mlp1024": Case(
        PrunableMLP,
        {"policy_hiddens": [1024, 1024]},
        _floats(376),
        _floats(17),
        {"fcnet_hiddens": [1024, 1024]},
    ),
    "nature_cnn": Case(
        PrunableNatureCNN,
        {},
        _floats(84, 84, 4),
        gym.spaces.Discrete(6),
        {"conv_filters": [[32, 8, 4], [64, 4, 2], [64, 3, 1]], "head_fcnet_hiddens": [512]},
    ),
    "lstm256": Case(
        PrunableLSTM,
        {"policy_hiddens": []},
        _floats(64),
        gym.spaces.Discrete(6),
        {"fcnet_hiddens": [64], "use_lstm": True, "max_seq_len": 20},
    ),
}


def _config_of(case: Case) -> PPOConfig:
    register_env("deploy-benchmark", Spaces)
    torch.manual_seed(0)
    spaces = {"spaces": (case.observation, case.action)}
    config = PPOConfig().environment("deploy-benchmark", env_config=spaces)
    return config.debugging(log_level="ERROR")


def evaluator_of(case: Case) -> Evaluator:
    """Build a case's policy with fixed weights."""
    spec = RLModuleSpec(module_class=case.module, model_config=dict(case.model))
    return Evaluator(_config_of(case).rl_module(rl_module_spec=spec))


def rllibs_evaluator_of(case: Case) -> Evaluator:
    """Build what RLlib makes of a case's sizes by itself."""
    model = DefaultModelConfig(vf_share_layers=False, **case.default)
    return Evaluator(_config_of(case).rl_module(model_config=model))


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


Arm = tuple[Callable[[], object], int]
"""What is timed, and how many calls that is."""


def _arrays(artifact: Artifact, batch: int) -> tuple[list[Array], list[Array]]:
    """Return inputs for a batch, and room for its outputs."""
    ports = artifact.interface
    inputs = [(port.zeros(batch) + 0.3).astype(port.dtype) for port in ports.inputs]
    return inputs, [port.zeros(batch) for port in ports.outputs]


def c_arm(artifact: CArtifact, batch: int) -> Arm:
    """Return the C function on arrays that are there."""
    calls = 1
    if batch == 1:
        observed = sum(port.zeros(1).nbytes for port in artifact.interface.inputs)
        calls = min(CALLS, max(1, CACHED // observed))
    inputs, outputs = _arrays(artifact, batch * calls)
    arrays = [*inputs, *outputs]

    def call() -> None:
        # The pointers hold no reference: the arrays have to live as long as this function.
        artifact.function(len(arrays[0]), *(ctypes.c_void_p(x.ctypes.data) for x in arrays))

    return call, calls


def onnx_arms(artifact: OnnxArtifact, batch: int) -> dict[str, Arm]:
    """Return ONNX Runtime on arrays that are there, and rayprune's call of it, which copies."""
    inputs, outputs = _arrays(artifact, batch)
    taken = {port.name for port in artifact.session.get_inputs()}
    binding = artifact.session.io_binding()
    times = ONNX_CALLS if batch == 1 else 1
    for port, x in zip(artifact.interface.inputs, inputs, strict=True):
        if port.name in taken:
            binding.bind_input(port.name, "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)
    for port, x in zip(artifact.interface.outputs, outputs, strict=True):
        binding.bind_output(port.name, "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)

    def call() -> None:
        for _ in range(times):
            artifact.session.run_with_iobinding(binding)

    def run() -> None:
        for _ in range(times):
            artifact.run(inputs)

    call.held = inputs, outputs  # a binding holds no reference
    return {"": (call, times), COPYING: (run, times)}


def arms_of(files: Mapping[str, Path], batch: int) -> dict[str, Arm]:
    """Return what is timed of files."""
    arms = {}
    for label, path in files.items():
        artifact = open_artifact(path)
        if isinstance(artifact, CArtifact):
            arms[label] = c_arm(artifact, batch)
        elif isinstance(artifact, OnnxArtifact):
            found = onnx_arms(artifact, batch)
            arms |= {f"{label}{how}": arm for how, arm in found.items()}
    return arms


def _rllib_arm(evaluator: Evaluator) -> Callable[[], object]:
    given = convert_to_torch_tensor(evaluator.first_batch(0))
    return lambda: evaluator.module.forward_inference(given)


def export_kinds(name: str, folder: Path, formats: Sequence[str]) -> dict[str, Path]:
    """Export a case dense, pruned, and for format ``c`` in blocks."""
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
    return files


def time_batch(
    files: Mapping[str, Path], modules: Mapping[str, Evaluator], batch: int, rounds: int
) -> dict[str, Timings]:
    """Time files and modules, opening the files anew every few rounds."""
    blocks: dict[str, list[Any]] = {}
    for first in range(0, rounds, ROUNDS_AS_OPENED):
        arms = arms_of(files, batch)
        calls = {label: calls for label, (_, calls) in arms.items()}
        calls[CONTROL] = calls[next(iter(arms))]
        timed = {label: arm for label, (arm, _) in arms.items()}
        timed |= {label: _rllib_arm(evaluator) for label, evaluator in modules.items()}
        found = time_arms(
            timed,
            rounds=min(ROUNDS_AS_OPENED, rounds - first),
            clock=time.process_time,
            block_s=0.05,
            seed=first,
        )
        for label, timings in found.items():
            taken = [block / calls.get(label, 1) for block in timings.blocks]
            blocks.setdefault(label, []).extend(taken)
    return {label: Timings(tuple(held)) for label, held in blocks.items()}


def time_case(name: str, folder: Path, rounds: int, formats: Sequence[str]) -> dict[str, Any]:
    """Time a case's files at batch 1 and 32."""
    files, case = export_kinds(name, folder, formats), CASES[name]
    modules = {OURS: evaluator_of(case), RLLIBS: rllibs_evaluator_of(case)}
    rows = {}
    for batch in (1, 32):
        beside = modules if batch == 1 else {}
        timings = time_batch(files, beside, batch, rounds)
        rows[batch] = {
            label: {
                "median_us": 1e6 * float(np.median(found.medians)),
                "than_onnx_dense": speed_up(timings["onnx dense"], found),
                **{f"than {rllib}": speed_up(timings[rllib], found) for rllib in beside},
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
            for rllib in (OURS, RLLIBS):
                if f"than {rllib}" in row:
                    line += f"  {row[f'than {rllib}']['ratio']:7.1f}x {rllib}"
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
