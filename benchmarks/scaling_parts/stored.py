"""What an exploit moves: a PPO policy's checkpoint, stored without its zeros and with them.

    PYTHONPATH=.:benchmarks python -m scaling_parts.stored --sparsities 0 0.9

A real Algorithm with a real Adam, trained for one iteration; prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"

import ray

from rayprune.config import experiment_faults, to_yaml
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.checkpoints.saved_policy import MODULE, MODULE_FILE
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.tracking.versions import versions

ARRAYS = (Path("learner_group", "learner", "state.pkl"), MODULE / MODULE_FILE)
"""Weights, masks and moments; and the weights again, for EnvRunners."""


def experiment(sparsity: float, hidden: int) -> dict[str, Any]:
    """Return a small experiment on CartPole."""
    training = {"train_batch_size_per_learner": 256, "minibatch_size": 128, "num_epochs": 1}
    return {
        "name": "stored",
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "rllib": {
            "training": training,
            "env_runners": {"num_env_runners": 0},
            "rl_module": {"model_config": {"fcnet_hiddens": [hidden, hidden]}},
        },
        "pruning": {"sparsity": sparsity, "schedule": {"kind": "one_shot", "begin": 0}},
        "stop": {"env_steps": 256},
    }


def stored(sparsity: float, hidden: int, place: Path) -> dict[str, Any]:
    """Return the bytes of one checkpoint, as it is stored and as it would be with its zeros."""
    faults, parsed = experiment_faults(experiment(sparsity, hidden))
    assert parsed is not None, faults
    algorithm = build_config(parsed).build_algo()
    algorithm.train()
    row: dict[str, Any] = {"sparsity": sparsity, "hidden": hidden}
    for form in ("stored", "with_zeros"):
        home = place / f"{form}-{sparsity}"
        with mock.patch.object(
            checkpoints,
            "rewrite_sparsely",
            checkpoints.rewrite_sparsely if form == "stored" else lambda *_: None,
        ):
            checkpoints.save(algorithm, home, to_yaml(parsed, versions()), {"env_steps": 256})
        files = [path for path in home.rglob("*") if path.is_file()]
        row[form] = {
            "arrays": sum((home / name).stat().st_size for name in ARRAYS),
            "all": sum(path.stat().st_size for path in files),
            "files": len(files),
        }
    algorithm.stop()
    return row


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sparsities", type=float, nargs="+", required=True)
    parser.add_argument("--hidden", type=int, default=256)
    args = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as place:
        rows = [stored(sparsity, args.hidden, Path(place)) for sparsity in args.sparsities]
    ray.shutdown()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
