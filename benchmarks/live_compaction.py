"""What live compaction buys: whole `train()` iterations, beside masks alone.

    python benchmarks/live_compaction.py                 # all cases
    python benchmarks/live_compaction.py --case mlp2048  # one; --json adds one line of JSON

An algorithm with its Learner and its EnvRunner in this process, on one thread: sampling,
advantages and updates. All arms have lost 75 % of the neurons of each hidden layer in their first
iteration; one of them has shrunk too. How arms take turns and what a ratio is, is overhead.py's.
The environment hands out observations that were made before, so that it costs next to nothing;
SimBa's nets, half as wide as the paper's, are on Pendulum and LunarLander.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import gymnasium as gym
import numpy as np
import torch
from overhead import CASES as NETWORKS
from overhead import NET, Ratio, compare, line, ratio

SPARSITY = 0.75
EPISODE = 100
ENVIRONMENT = "rayprune-ready-made"
SIMBA = {
    "policy_width": 64,
    "policy_blocks": [256],
    "value_width": 256,
    "value_blocks": [1024, 1024],
}
POOL = 64
"""Observations that an environment has ready."""


@dataclass(frozen=True)
class Case:
    """A network of overhead.py in a training loop."""

    network: str
    """Of overhead.py; or an environment, which SimBa's net is for."""
    batch: int
    """Env steps an iteration, over all environments."""
    epochs: int
    minibatch: int
    rounds: int
    target: float
    """Least ratio of an iteration with masks alone to one with live compaction."""
    left: float = 0.2
    """Share of the parameters that is left at most. SimBa's stream keeps its width."""


CASES = {
    "mlp2048": Case("mlp2048", 512, 2, 128, 20, 3.0),
    "nature_cnn": Case("nature_cnn", 128, 2, 32, 20, 1.5),
    "simba_sac": Case("Pendulum-v1", 16, 1, 256, 5, 2.0, left=0.3),
    "simba_ppo": Case("LunarLander-v3", 256, 10, 128, 5, 2.0, left=0.3),
}


class ReadyMade(gym.Env[np.ndarray, Any]):
    """Hands out observations that it has made beforehand."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, config["shape"], np.float32)
        self.action_space = config["actions"]
        generator = np.random.default_rng(0)
        self._pool = generator.uniform(-1, 1, (POOL, *config["shape"])).astype(np.float32)
        self._step = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        """Start over."""
        super().reset(seed=seed)
        self._step = 0
        return self._pool[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Go on to the next observation."""
        self._step += 1
        reward = float(action == 0)
        return self._pool[self._step % POOL], reward, self._step >= EPISODE, False, {}


def config_of(case: Case, compact_every: int | None) -> Any:
    """Return an algorithm on a case, pruned in its first iteration."""
    from rayprune import PruningConfig
    from rayprune.rllib import prune

    makers = {"Pendulum-v1": simba_sac, "LunarLander-v3": simba_ppo}
    config = makers.get(case.network, ready_made_ppo)(case)
    pruning = PruningConfig(
        sparsity=SPARSITY,
        granularity="neuron",
        schedule={"kind": "one_shot", "begin": 0, "every": 1},
        horizon=1_000_000,
        compact_every=compact_every,
    )
    return prune(config.learners(num_learners=0).debugging(seed=0, log_level="ERROR"), pruning)


def ppo(case: Case) -> Any:
    """Return PPO with a step so small that the weights, and the work per step, stay as they are."""
    from ray.rllib.algorithms.ppo import PPOConfig

    return (
        PPOConfig()
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .training(
            lr=1e-7,
            train_batch_size_per_learner=case.batch,
            minibatch_size=case.minibatch,
            num_epochs=case.epochs,
        )
    )


def ready_made_ppo(case: Case) -> Any:
    """Return PPO on observations made before."""
    network = NETWORKS[case.network]
    spaces = {"shape": network.observation, "actions": network.action_space}
    config = ppo(case).environment(ENVIRONMENT, env_config=spaces)
    return config.rl_module(model_config=dict(network.model))


def simba_ppo(case: Case) -> Any:
    """Return PPO with SimBa's nets."""
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from rayprune.rllib.models import PrunableSimBa

    return (
        ppo(case)
        .environment(case.network)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PrunableSimBa, model_config=SIMBA))
    )


def simba_sac(case: Case) -> Any:
    """Return SAC with SimBa's nets, which learn once each env step."""
    from ray.rllib.algorithms.sac import SACConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from rayprune.rllib.models import PrunableSimBaSAC

    return (
        SACConfig()
        .environment(case.network)
        .env_runners(num_env_runners=0, rollout_fragment_length=1)
        .training(
            actor_lr=1e-7,
            critic_lr=1e-7,
            alpha_lr=1e-7,
            train_batch_size_per_learner=case.minibatch,
            num_steps_sampled_before_learning_starts=0,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 10_000},
        )
        .reporting(min_sample_timesteps_per_iteration=case.batch)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PrunableSimBaSAC, model_config=SIMBA))
    )


def speed_up(case: Case, rounds: int) -> tuple[list[Ratio], dict[str, int]]:
    """Measure a case; return the control, the speed-up, and the parameters before and after."""
    running: dict[str, Any] = {}
    held: dict[str, dict[str, int]] = {}

    def arm(name: str, compact_every: int | None) -> Callable[[], object]:
        if name in running:
            running.pop(name).stop()
        algorithm = running[name] = config_of(case, compact_every).build_algo()
        held[name] = algorithm.train()["rayprune"][NET]["parameters"]
        return algorithm.train  # type: ignore[no-any-return]

    arms = {"masked": None, "masked again": None, "live": 1}
    builders = {
        name: (lambda name=name, every=every: arm(name, every)) for name, every in arms.items()
    }
    times = compare(builders, rounds)
    for algorithm in running.values():
        algorithm.stop()
    parameters = held["live"]
    if parameters["held"] > case.left * parameters["total"] or "held" not in held["masked"]:
        raise SystemExit(f"the live arm did not shrink: {parameters}")
    control = ratio(times, "masked again", "masked", None, 1)
    return [control, ratio(times, "masked", "live", case.target, 1)], parameters


def show(name: str, ratios: list[Ratio], parameters: Mapping[str, int]) -> None:
    """Print a case."""
    print(
        f"\n{name}: an iteration; {parameters['total']:,} parameters, {parameters['held']:,} left"
    )
    for found in ratios:
        said = "A/A control"
        if found.target is not None:
            said = f"target {found.target}: {'met' if found.median >= found.target else 'MISSED'}"
        print(line(found, said))


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--rounds", type=float, default=1.0, help="factor on the rounds")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, last")
    arguments = parser.parse_args()
    import ray
    from ray.tune.registry import register_env

    register_env(ENVIRONMENT, ReadyMade)
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    for name in arguments.case or CASES:
        case = CASES[name]
        ratios, parameters = speed_up(case, max(5, round(case.rounds * arguments.rounds)))
        show(name, ratios, parameters)
        results[name] = {"ratios": [asdict(r) for r in ratios], "parameters": parameters}
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
