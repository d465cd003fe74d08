"""Two Learners that differ in being lean alone, and batches that both are updated with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rayprune.rllib import prune
from tests.rllib import configs

DISCRETE = gym.spaces.Discrete(3)
CONTINUOUS = gym.spaces.Box(-1, 1, (2,), np.float32)
VECTOR = gym.spaces.Box(-1, 1, (5,), np.float32)
IMAGE = gym.spaces.Box(0, 1, (10, 10, 2), np.float32)


def spaces(config: Any, observations: gym.Space, actions: gym.Space) -> Any:
    """A config with spaces in place of an environment."""
    return config.environment(observation_space=observations, action_space=actions)


def twins(config: Any, **pruning: Any) -> tuple[Any, Any]:
    """RLlib's way and the lean way."""
    made = (
        prune(config.copy(copy_frozen=False), configs.pruning(**pruning), lean=lean)
        for lean in (False, True)
    )
    first, second = map(built, made)
    return first, second


def built(config: Any) -> Any:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - RLlib's
    held = {DEFAULT_MODULE_ID: (config.observation_space, config.action_space)}
    spec = config.get_multi_rl_module_spec(spaces=held)
    learner = config.learner_class(config=config, module_spec=spec)
    learner.build()
    return learner


def ppo_batch(learner: Any, size: int, seed: int = 0, *, masked: bool = True) -> MultiAgentBatch:
    """Rows as PPO's connectors make them, or padded sequences of four for a recurrent module."""
    rng = torch.Generator().manual_seed(seed)
    module = learner.module[DEFAULT_MODULE_ID]
    config = learner.config
    recurrent = module.is_stateful()
    shape = (size, 4) if recurrent else (size,)
    observed, acted = config.observation_space, config.action_space
    discrete = isinstance(acted, gym.spaces.Discrete)
    logits = acted.n if discrete else 2 * acted.shape[0]
    columns: dict[str, Any] = {
        "obs": torch.randn(*shape, *observed.shape, generator=rng),
        "actions": torch.randint(acted.n, shape, generator=rng)
        if discrete
        else torch.randn(*shape, *acted.shape, generator=rng),
        "action_dist_inputs": torch.randn(*shape, logits, generator=rng) * 0.1,
        "action_logp": torch.randn(*shape, generator=rng) * 0.1 - 1.0,
        "advantages": torch.randn(*shape, generator=rng),
        "value_targets": torch.randn(*shape, generator=rng),
        "weights_seq_no": torch.zeros(shape),
    }
    if masked:
        columns["loss_mask"] = torch.rand(*shape, generator=rng) < 0.9
    if recurrent:
        lengths = torch.randint(1, 5, (size,), generator=rng)
        columns["loss_mask"] = torch.arange(4)[None] < lengths[:, None]
        state = module.get_initial_state()
        columns["state_in"] = tree.map_structure(
            lambda one: torch.as_tensor(one).expand(size, *one.shape).clone(), state
        )
        columns["seq_lens"] = lengths
    batch = SampleBatch(columns, _zero_padded=recurrent, _max_seq_len=4 if recurrent else None)
    return MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=size)


def replayed_batch(config: Any, size: int, seed: int) -> MultiAgentBatch:
    """Rows as a replay buffer gives them."""
    rng = torch.Generator().manual_seed(seed)
    observed, acted = config.observation_space, config.action_space
    columns = {
        "obs": torch.randn(size, *observed.shape, generator=rng),
        "new_obs": torch.randn(size, *observed.shape, generator=rng),
        "actions": torch.randint(acted.n, (size,), generator=rng)
        if isinstance(acted, gym.spaces.Discrete)
        else torch.rand(size, *acted.shape, generator=rng) * 2 - 1,
        "rewards": torch.randn(size, generator=rng),
        "terminateds": torch.rand(size, generator=rng) < 0.1,
        "truncateds": torch.zeros(size, dtype=torch.bool),
        "weights": torch.rand(size, generator=rng),
        "n_step": torch.ones(size),
    }
    return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=size)


def copied(batch: MultiAgentBatch) -> MultiAgentBatch:
    """The same rows in other tensors; a shuffle writes to a batch."""
    return copy.deepcopy(batch)


def differences(first: Any, second: Any) -> list[Any]:
    """The paths in two nested structures at which they aren't the same to the bit."""
    one, other = tree.flatten_with_path(first), tree.flatten_with_path(second)
    paths = [path for path, _ in one], [path for path, _ in other]
    if paths[0] != paths[1]:
        return sorted(set(map(str, paths[0])) ^ set(map(str, paths[1]))) or ["order"]
    return [path for (path, a), (_, b) in zip(one, other, strict=True) if not _same(a, b)]


def _same(a: Any, b: Any) -> bool:
    a, b = (x.peek() if hasattr(x, "peek") else x for x in (a, b))
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")


def learned(learner: Any) -> Any:
    """All that an update may change in a Learner, and the generators of random numbers."""
    state = learner.get_state()
    return [
        state["rl_module"],
        state["optimizer"],
        state["weights_seq_no"],
        state["rayprune"]["unsaved"],
        torch.get_rng_state(),
        np.random.get_state()[1:3],  # noqa: NPY002
    ]


def after_updates(
    learner: Any, batches: Callable[[], Iterator[MultiAgentBatch]], **options: Any
) -> tuple[Any, list[Any]]:
    """What a Learner has learned by updates over batches, and what it returned."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    results = [
        learner.update(
            batch=copied(batch),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 100 * (number + 1)},
            **options,
        )
        for number, batch in enumerate(batches())
    ]
    return learned(learner), results
