"""What pruning costs a PPO Learner and an EnvRunner, as ratios; mask_update.py has the masks.

    python benchmarks/overhead.py                 # everything
    python benchmarks/overhead.py --case mlp256   # one case; --json adds one line of JSON

All arms of a case live in one process on one thread and take turns, in an order shuffled anew each
round, so that a drift of the machine meets them alike. Every few rounds they are built anew, for
where a module's weights happen to lie in memory is worth several percent. A ratio is the median of
the rounds' paired ratios, with the 95 % interval of that median by order statistics. The A/A
control is two arms of the same kind: a ratio inside its interval is noise. Times are the process's
CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

# A clone needn't be installed to be measured.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gymnasium as gym
import numpy as np
import torch

SPARSITY = 0.9
NET = "default_policy"


@dataclass(frozen=True)
class Case:
    """One network, its data, and what the issue allows."""

    observation: tuple[int, ...]
    action_space: gym.Space[Any]
    model: Mapping[str, Any]
    minibatch: int
    steps: int
    """Optimizer steps per `Learner.update`: few where one is slow, so that arms alternate fast."""
    rounds: int
    target_as_shipped: float
    target_both_fused: float = 1.08


CASES = {
    "mlp256": Case((17,), gym.spaces.Discrete(6), {"fcnet_hiddens": [256, 256]}, 128, 16, 60, 0.95),
    "mlp2048": Case(
        (376,), gym.spaces.Discrete(17), {"fcnet_hiddens": [2048, 2048]}, 128, 3, 40, 0.85
    ),
    "mlp2048_small_batch": Case(
        (376,), gym.spaces.Discrete(17), {"fcnet_hiddens": [2048, 2048]}, 32, 4, 40, 0.85
    ),
    "nature_cnn": Case(
        (84, 84, 4),
        gym.spaces.Discrete(6),
        {
            "conv_filters": [[32, 8, 4], [64, 4, 2], [64, 3, 1]],
            "conv_activation": "relu",
            "head_fcnet_hiddens": [512],
        },
        32,
        3,
        40,
        1.00,
    ),
}


@dataclass(frozen=True)
class Ratio:
    """A median of paired ratios, and what it is held against."""

    name: str
    median: float
    low: float
    high: float
    target: float | None
    milliseconds: tuple[float, float]
    """Median of the numerator and of the denominator, per optimizer step or call."""


Times = dict[str, list[float]]
BLOCKS = 5
WARM_UP = 3
WARM_UP_OF_LEARNERS = 8
"""A pruning Learner knows by then whether replaying gradients pays for this network."""


def compare(
    builders: Mapping[str, Callable[[], Callable[[], object]]],
    rounds: int,
    *,
    blocks: int = BLOCKS,
    warm_up: int = WARM_UP,
) -> Times:
    """Run every arm once per round; return CPU seconds, ``{arm: (rounds,)}``.

    Args:
        builders: makes each arm; called once per block of rounds, in shuffled order.
        rounds: in all blocks together.
        blocks: how often arms are built anew.
        warm_up: rounds of each block that don't count.
    """
    times: Times = {name: [] for name in builders}
    order = list(builders)
    generator = random.Random(0)
    for _ in range(blocks):
        generator.shuffle(order)
        arms = {name: builders[name]() for name in order}
        # Warm up: lazy states, memory, and the mask update itself.
        for turn in range(-warm_up, -(-rounds // blocks)):
            generator.shuffle(order)
            for name in order:
                start = time.process_time()
                arms[name]()
                if turn >= 0:
                    times[name].append(time.process_time() - start)
    return times


def ratio(times: Times, name: str, over: str, target: float | None, calls: int) -> Ratio:
    """Return the ratio of two arms; ``calls`` is how many steps one timing holds."""
    paired = sorted(a / b for a, b in zip(times[name], times[over], strict=True))
    # The median lies between these order statistics in 95 % of samples (binomial, normal limit).
    half = round(0.98 * len(paired) ** 0.5)
    middle = len(paired) // 2
    return Ratio(
        name=f"{name} / {over}",
        median=statistics.median(paired),
        low=paired[max(middle - half, 0)],
        high=paired[min(middle + half, len(paired) - 1)],
        target=target,
        milliseconds=(
            1e3 * statistics.median(times[name]) / calls,
            1e3 * statistics.median(times[over]) / calls,
        ),
    )


# -- Learner updates ------------------------------------------------------------------------------


def ppo_config(case: Case) -> Any:
    """Return a plain PPOConfig for a case, without an environment."""
    from ray.rllib.algorithms.ppo import PPOConfig

    return (
        PPOConfig()
        .environment(
            observation_space=gym.spaces.Box(-1, 1, case.observation, np.float32),
            action_space=case.action_space,
        )
        .rl_module(model_config=dict(case.model))
        # A step so small that the weights stay where they are, and with them the work per step.
        .training(lr=1e-7, minibatch_size=case.minibatch)
        .learners(num_learners=0)
        .debugging(seed=0)
    )


def pruning_config(config: Any) -> Any:
    """Return the config with 90 % of its weights pruned in the first update."""
    from rayprune import PruningConfig
    from rayprune.rllib import prune

    schedule = {"kind": "one_shot", "begin": 0}
    return prune(config, PruningConfig(sparsity=SPARSITY, schedule=schedule, horizon=1000))


def a_batch(case: Case, size: int) -> Any:
    """Return random training data of ``size`` steps, as the Learner connector would leave it."""
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

    generator = torch.Generator().manual_seed(0)
    actions = int(case.action_space.n)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    logits = 0.01 * normal(size, actions)
    columns = {
        "obs": normal(size, *case.observation).clamp(-1, 1),
        "actions": torch.randint(actions, (size,), generator=generator),
        "action_dist_inputs": logits,
        "action_logp": torch.full((size,), -float(np.log(actions))),
        "advantages": normal(size),
        "value_targets": normal(size),
    }
    return MultiAgentBatch({NET: SampleBatch(columns)}, env_steps=size)


def updater(learner: Any, case: Case) -> Callable[[], object]:
    """Return a call that updates ``learner`` over its batch once."""
    from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

    batch = a_batch(case, case.steps * case.minibatch)

    def update() -> object:
        return learner.update(
            batch=batch,
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 1000},
            minibatch_size=case.minibatch,
            num_epochs=1,
        )

    return update


def fuse(learner: Any) -> Any:
    """Give a plain Learner the fused Adam, set as a user would: as an option of the optimizer."""
    for optimizer in learner._named_optimizers.values():
        for group in optimizer.param_groups:
            group["fused"] = True
    return learner


def learner_ratios(case: Case, rounds: int) -> list[Ratio]:
    """Measure the update of a pruning Learner against plain ones."""
    plain = ppo_config(case)
    pruning = pruning_config(plain)

    def build(config: Any, *, fused: bool = False, pruned: bool = False) -> Callable[[], object]:
        learner = config.copy().build_learner()
        update = updater(fuse(learner) if fused else learner, case)
        if pruned:
            update()
            check_pruned(learner)
        return update

    times = compare(
        {
            "plain": lambda: build(plain),
            "plain again": lambda: build(plain),
            "plain fused": lambda: build(plain, fused=True),
            "plain fused again": lambda: build(plain, fused=True),
            "pruning": lambda: build(pruning, pruned=True),
        },
        rounds,
        warm_up=WARM_UP_OF_LEARNERS,
    )
    return [
        ratio(times, "plain again", "plain", None, case.steps),
        ratio(times, "pruning", "plain", case.target_as_shipped, case.steps),
        ratio(times, "plain fused again", "plain fused", None, case.steps),
        ratio(times, "pruning", "plain fused", case.target_both_fused, case.steps),
    ]


def check_pruned(learner: Any) -> None:
    """Refuse to measure a Learner that doesn't prune."""
    weights = [p for p in learner.module[NET].parameters() if p.dim() > 1]
    total = sum(w.numel() for w in weights)
    zero = 1 - sum(int(w.count_nonzero()) for w in weights) / total
    if abs(zero - SPARSITY) > 0.005:
        raise SystemExit(f"The pruning Learner is {zero:.3f} sparse, not {SPARSITY}.")


# -- forward on an EnvRunner ----------------------------------------------------------------------


def forward_ratios(case: Case, rounds: int, calls: int = 20) -> list[Ratio]:
    """Measure one step's forward of an EnvRunner's module, with pruned weights and with dense."""
    from ray.rllib.core.columns import Columns

    plain = ppo_config(case)
    pruning = pruning_config(plain)
    observation = {Columns.OBS: torch.zeros(1, *case.observation)}

    def build(config: Any, *, pruned: bool = False) -> Callable[[], object]:
        learner = config.copy().build_learner()
        if pruned:
            updater(learner, case)()
            check_pruned(learner)
        module = config.get_rl_module_spec(inference_only=True).build()
        module.set_state(learner.module[NET].get_state(inference_only=True))
        return lambda: [module.forward_exploration(observation) for _ in range(calls)]

    times = compare(
        {
            "plain": lambda: build(plain),
            "plain again": lambda: build(plain),
            "pruned": lambda: build(pruning, pruned=True),
        },
        rounds,
    )
    return [
        ratio(times, "plain again", "plain", None, calls),
        ratio(times, "pruned", "plain", 1.0, calls),
    ]


# -- output ---------------------------------------------------------------------------------------


def verdict(found: Ratio) -> str:
    """Say whether a target was met; the interval decides for the noise-bound ones."""
    if found.target is None:
        return "A/A control"
    return f"target {found.target:.2f}: {'met' if found.median <= found.target else 'MISSED'}"


def forward_verdict(found: Ratio, control: Ratio) -> str:
    """Say whether a forward ratio is within the noise that the control shows."""
    inside = found.low <= control.high and control.low <= found.high
    return f"target 1.00: {'within' if inside else 'OUTSIDE'} A/A noise"


def show(title: str, ratios: list[Ratio], *, forward: bool = False) -> None:
    """Print one table."""
    print(f"\n{title}")
    for found in ratios:
        said = verdict(found)
        if forward and found.target is not None:
            said = forward_verdict(found, ratios[0])
        print(line(found, said))


def line(found: Ratio, said: str) -> str:
    """Return one row of a table: the ratio, its interval, both times, and a verdict."""
    ours, theirs = found.milliseconds
    return (
        f"  {found.name:32} {found.median:6.3f}  [{found.low:.3f}, {found.high:.3f}]"
        f"  {ours:9.3f} / {theirs:9.3f} ms   {said}"
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--rounds", type=float, default=1.0, help="factor on the rounds")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, last")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    results |= {"torch": torch.__version__, "cores": os.cpu_count()}
    for name in arguments.case or CASES:
        case = CASES[name]
        updates = learner_ratios(case, max(5, round(case.rounds * arguments.rounds)))
        show(f"{name}: Learner.update, per optimizer step of {case.minibatch}", updates)
        forwards = forward_ratios(case, max(5, round(100 * arguments.rounds)))
        show(f"{name}: forward at batch 1 on an EnvRunner", forwards, forward=True)
        results[name] = {
            "update": [asdict(r) for r in updates],
            "forward": [asdict(r) for r in forwards],
        }
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
