"""Whether Learners on a GPU prune as they should: RLlib's algorithms, trained a few iterations.

    python benchmarks/gpu_learners.py [--case PPO ...] [--json]

A Learner actor holds the GPU, EnvRunners hold none. After each iteration its weights and masks must
lie on the GPU and every pruned weight be exactly zero, there, in target networks and in the
EnvRunner; at the end the sparsity asked for is reached, and a new algorithm that loads the
checkpoint has the same masks. Exits 1 where any of it is wrong. Without a GPU it exits 0 and says
`no GPU: nothing checked`; `--device cpu` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray
import torch
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune import PruningConfig
from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner

NOTHING_CHECKED = "no GPU: nothing checked"
ITERATIONS = 4
SCHEDULE = {"kind": "linear", "begin": 0, "end": 600, "every": 100}
"""In env steps: over within every case's iterations."""


@dataclass(frozen=True)
class Case:
    """An algorithm, its net and how it is pruned."""

    algorithm: Callable[[], Any]
    pruning: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


def ppo() -> Any:
    """PPO with 400 steps an iteration."""
    config = PPOConfig().environment("CartPole-v1")
    return config.training(train_batch_size_per_learner=400, minibatch_size=100, num_epochs=2)


def off_policy(config: Any, env: str, **training: Any) -> Any:
    """Return DQN or SAC that learns from its first iteration on."""
    config.environment(env).reporting(min_sample_timesteps_per_iteration=300)
    return config.training(num_steps_sampled_before_learning_starts=100, **training)


def asynchronous(config: Any) -> Any:
    """Return APPO or IMPALA, whose Learner has threads of its own."""
    config.environment("CartPole-v1").training(train_batch_size_per_learner=200)
    return config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=600)


CASES = {
    "PPO": Case(ppo),
    "PPO, 2:4": Case(ppo, {"granularity": "2:4", "sparsity": 0.5}),
    "PPO, units by taylor": Case(ppo, {"granularity": "neuron", "criterion": "taylor"}),
    "PPO, units by shapley": Case(ppo, {"granularity": "neuron", "criterion": "shapley"}),
    "PPO, fisher": Case(ppo, {"criterion": "fisher"}),
    "PPO, RigL": Case(ppo, {"schedule": {**SCHEDULE, "kind": "rigl"}, "distribution": "erk"}),
    "PPO, live compaction": Case(
        ppo, {"granularity": "neuron", "compact_every": 200, "sparsity": 0.75}
    ),
    "PPO, LSTM": Case(ppo, model={"use_lstm": True, "lstm_cell_size": 32, "max_seq_len": 8}),
    "DQN": Case(
        lambda: off_policy(DQNConfig(), "CartPole-v1", train_batch_size=32), {"sparsity": 0.8}
    ),
    "SAC": Case(
        lambda: off_policy(
            SACConfig(), "Pendulum-v1", train_batch_size_per_learner=32, initial_alpha=1.5
        ),
        {"sparsity": 0.8},
        {"head_fcnet_hiddens": []},
    ),
    "APPO": Case(lambda: asynchronous(APPOConfig())),
    "IMPALA": Case(lambda: asynchronous(IMPALAConfig())),
}


def pruning_of(case: Case) -> PruningConfig:
    """Return a case's pruning."""
    return PruningConfig(**{"sparsity": 0.9, "schedule": SCHEDULE, "horizon": 1000, **case.pruning})


def config_of(case: Case, device: str) -> Any:
    """Return the algorithm's config, pruned, with one Learner actor on the device."""
    config = (
        case.algorithm()
        .env_runners(num_env_runners=1)
        .learners(num_learners=1, num_gpus_per_learner=int(device == "cuda"))
        .rl_module(model_config={"fcnet_hiddens": [64, 64], **case.model})
        .debugging(seed=0, log_level="ERROR")
    )
    return prune(config, pruning_of(case))


def check(case: Case, device: str) -> dict[str, Any]:
    """Train a case; return what was found, with ``faults`` empty if all is right."""
    start = time.perf_counter()
    config = config_of(case, device)
    algorithm = config.build_algo()
    faults: list[str] = []
    try:
        for iteration in range(ITERATIONS):
            algorithm.train()
            found = look(algorithm)
            faults += [f"iteration {iteration}: {fault}" for fault in faults_of(found, device)]
        faults += runner_faults(algorithm)
        if found["sparsity"] < pruning_of(case).sparsity - 0.02:
            faults.append(f"sparsity {found['sparsity']:.3f} at the end")
        with tempfile.TemporaryDirectory() as folder:
            algorithm.save_to_path(folder)
            algorithm.stop()
            algorithm = config.copy(copy_frozen=False).build_algo()
            algorithm.restore_from_path(folder)
        if look(algorithm)["digest"] != found["digest"]:
            faults.append("other masks after the checkpoint was loaded")
    finally:
        algorithm.stop()
    seconds = time.perf_counter() - start
    return {
        "faults": faults,
        "sparsity": found["sparsity"],
        "weights": found["weights"],
        "seconds": round(seconds, 1),
    }


def look(algorithm: Any) -> dict[str, Any]:
    """Return what the check needs of the only Learner, read in its own process."""
    (found,) = foreach_learner(algorithm, _look)
    return dict(found)


def _look(learner: Any) -> dict[str, Any]:
    with learner._mask_lock:  # The threads of an asynchronous Learner go on meanwhile.
        return _seen(learner)


def _seen(learner: Any) -> dict[str, Any]:
    (report,) = learner.pruning_report().values()
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    pruners = learner.pruners.values()
    masks = {name: mask for pruner in pruners for name, mask in pruner.masks.items()}
    weights = dict(module.named_parameters())
    targets = (
        module.get_target_network_pairs() if hasattr(module, "get_target_network_pairs") else ()
    )
    names = {id(weight): name for name, weight in weights.items()}
    unmasked = [name for name, mask in masks.items() if weights[name][~mask].any()]
    for source, target in targets:
        for weight, copy in zip(source.parameters(), target.parameters(), strict=True):
            mask = masks.get(names[id(weight)])
            if mask is not None and copy[~mask].any():
                unmasked.append(f"target of {names[id(weight)]}")
    return {
        "device": sorted({weight.device.type for weight in weights.values()}),
        "masks_on": sorted({mask.device.type for mask in masks.values()}),
        "unmasked": unmasked,
        "violations": report["violations"],
        "sparsity": report["sparsity"],
        "weights": sum(weight.numel() for weight in weights.values()),
        "digest": report["digest"],
    }


def faults_of(found: Mapping[str, Any], device: str) -> list[str]:
    """Return what is wrong with the Learner."""
    wrong = [f"{found[key]}" for key in ("device", "masks_on") if found[key] != [device]]
    wrong += [f"{name} is not zero where pruned" for name in found["unmasked"]]
    return wrong + ([f"{found['violations']} violations"] if found["violations"] else [])


def runner_faults(algorithm: Any) -> list[str]:
    """Return which pruned weights the EnvRunner does not hold as zeros, once it has the newest."""
    algorithm.env_runner_group.sync_weights(
        from_worker_or_learner_group=algorithm.learner_group, inference_only=True
    )
    (masks,) = foreach_learner(
        algorithm,
        lambda learner: {n: m.cpu() for n, m in learner.masks()[DEFAULT_MODULE_ID].items()},
    )

    def dense(runner: Any) -> list[str]:
        synced = runner.module.get_state(inference_only=True)  # No critic, where it is apart.
        held = {n: p for n, p in runner.module.named_parameters() if n in synced}
        return [n for n, mask in masks.items() if n in held and bool(held[n][~mask].any())]

    answers = algorithm.env_runner_group.foreach_env_runner(dense, local_env_runner=False)
    return [f"EnvRunner: {name} is not zero where pruned" for answer in answers for name in answer]


def main() -> int:
    """Check, tell, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--case", nargs="+", choices=CASES, help="default: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, last")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"checked": False}) if arguments.json else NOTHING_CHECKED)
        return 0
    gpus = int(arguments.device == "cuda")
    ray.init(address="local", num_cpus=4, num_gpus=gpus, include_dashboard=False)
    results = {}
    for name in arguments.case or CASES:
        try:
            found = check(CASES[name], arguments.device)
        except Exception as error:  # One case's failure must not hide the others'.
            found = {"faults": [f"{type(error).__name__}: {error}"]}
        results[name] = found
        print(f"{name:22} {'right' if not found['faults'] else 'WRONG'} {found}", flush=True)
    ray.shutdown()
    if arguments.json:
        print(json.dumps({"checked": bool(gpus), "cases": results}))
    return int(any(found["faults"] for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
