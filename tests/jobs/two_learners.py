"""A job: PPO that is pruned on two Learners, as a Python program of a user's would have it.

It appends to ``OUT/seen.jsonl`` what each Learner holds after each iteration, read by its own eyes
and not by rayprune's callback, and ends at ``STEPS`` once ``OUT/enough`` is there.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune import PruningConfig
from rayprune.rllib import prune

STEPS, SPARSITY = 6000, 0.8
CONFIG = (
    PPOConfig()
    .environment("CartPole-v1")
    .learners(num_learners=2, custom_resources_per_learner={"learner": 1})
    .env_runners(num_env_runners=2, custom_resources_per_env_runner={"runner": 1})
    .training(train_batch_size_per_learner=200, minibatch_size=64, num_epochs=2)
    .rl_module(model_config={"fcnet_hiddens": [16, 16]})
    .debugging(seed=3, log_level="ERROR")
)
PRUNING = PruningConfig(
    sparsity=SPARSITY, schedule={"begin": 0.1, "end": 0.8, "every": 200}, horizon=STEPS
)


def main(out: Path) -> None:
    ray.init(log_to_driver=False, logging_level="ERROR")
    algorithm = prune(CONFIG, PRUNING).build_algo()
    with (out / "seen.jsonl").open("a") as file:
        while True:
            started = time.monotonic()
            result = algorithm.train()
            row = {
                "iteration": result["training_iteration"],
                "env_steps": result["num_env_steps_sampled_lifetime"],
                "seconds": time.monotonic() - started,
                "at": time.time(),
                "sparsity": result["rayprune"][DEFAULT_MODULE_ID]["sparsity"],
                "learners": [
                    answer.get() for answer in algorithm.learner_group.foreach_learner(held)
                ],
                "env_runners": algorithm.env_runner_group.foreach_env_runner(
                    lambda runner: (runner.worker_index, node()), local_env_runner=False
                ),
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
            if row["env_steps"] >= STEPS and (out / "enough").exists():
                break
    algorithm.stop()


def held(learner: Any, **_: Any) -> dict[str, Any]:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    masks = learner.masks()[DEFAULT_MODULE_ID]
    weights = dict(module.named_parameters())
    return {
        "node": node(),
        "masks": digest(masks),
        "weights": digest(weights),
        "pruned": sum(int((~mask).sum()) for mask in masks.values()),
        "not_zero": sum(
            int(torch.count_nonzero(weights[name][~mask])) for name, mask in masks.items()
        ),
    }


def digest(tensors: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].detach().cpu().numpy().tobytes())
    return found.hexdigest()


def node() -> str:
    return str(ray.get_runtime_context().get_node_id())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
