"""Checkpoints of pruned policies that nobody has trained, made without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns

from rayprune.config import to_yaml
from rayprune.deploy.policy.artifact import Artifact
from rayprune.rllib.checkpoints.files import CONFIG_FILE, META_FILE
from rayprune.rllib.checkpoints.saved_policy import MODULE
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config
from tests.rllib import experiments


def scramble(module: Any, density: float, seed: int = 0) -> None:
    """Give a module weights that act, and leave so many of them."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                scale = 2.0 / (parameter[0].numel() * density) ** 0.5
                parameter.normal_(0.0, scale, generator=draw)
                parameter.mul_(torch.rand(parameter.shape, generator=draw) < density)
            else:
                parameter.normal_(0.0, 0.1, generator=draw)


def write_checkpoint(directory: Path, base: dict[str, Any], density: float) -> Path:
    """Write what the export reads of a rayprune checkpoint."""
    experiment = experiments.experiment(base)
    evaluator = Evaluator(base_config(experiment))
    scramble(evaluator.module, density)
    evaluator.module.save_to_path(str((directory / MODULE).absolute()))
    evaluator.close()
    (directory / CONFIG_FILE).write_text(to_yaml(experiment, {}))
    (directory / META_FILE).write_text(json.dumps({"env_steps": 0}))
    return directory


def returns_of(artifact: Artifact, evaluator: Evaluator, seeds: range) -> list[float]:
    """Let an exported file play, one episode a seed."""
    returns = []
    for seed in seeds:
        env = evaluator.make_env()
        observation, _ = env.reset(seed=seed)
        state, total, done = None, 0.0, False
        while not done:
            step = artifact.act(np.asarray(observation)[None], state)
            observation, reward, terminated, truncated, _ = env.step(step.actions[0])
            state, total, done = step.state, total + float(reward), terminated or truncated
        env.close()
        returns.append(total)
    return returns


def states_of(acted: Any, interface: Any) -> list[np.ndarray]:
    """Return the recurrent states that RLlib gave its module, as the interface orders them."""
    found = []
    for port in interface.states:
        held = acted.batch[Columns.STATE_IN]
        for part in port.name.split(".")[1:]:
            held = held[part]
        found.append(held.numpy())
    return found
