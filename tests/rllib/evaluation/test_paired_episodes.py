"""Pairs of episodes: the returns of each policy alone, and where their actions first differ."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from rayprune.rllib.evaluation.closeness import agreement, closeness
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.evaluation.paired_episodes import Alike, EpisodePair, PolicyActor, play_pairs
from tests.rllib import configs

SEEDS = range(100, 105)


def evaluator(config: Any, moved: float = 0.0, *, whole: bool = False) -> Evaluator:
    """The same policy each time, its weights off by ``moved``."""
    torch.manual_seed(0)
    made = Evaluator(config, whole=whole)
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in made.module.parameters():
            parameter.add_(moved * torch.randn_like(parameter))
    return made


def played(dense: Evaluator, pruned: Evaluator, **others: Any) -> list[EpisodePair]:
    actors = PolicyActor(dense), PolicyActor(pruned)
    return play_pairs(dense.make_env, *actors, SEEDS, **others)


def test_each_policy_earns_what_it_earns_alone() -> None:
    dense, pruned = evaluator(configs.ppo()), evaluator(configs.ppo(), 0.3)
    pairs = played(dense, pruned)
    assert [pair.seed for pair in pairs] == list(SEEDS)
    assert [pair.dense for pair in pairs] == dense.returns(100, 5)
    assert [pair.pruned for pair in pairs] == pruned.returns(100, 5)
    assert [pair.dense_steps for pair in pairs] == [pair.dense for pair in pairs]


def test_a_policy_never_parts_from_itself() -> None:
    config = configs.ppo()
    assert all(pair.diverged_at is None for pair in played(evaluator(config), evaluator(config)))


def test_episodes_part_where_a_slow_loop_first_sees_other_actions() -> None:
    dense, pruned = evaluator(configs.ppo()), evaluator(configs.ppo(), 0.1)
    found = [pair.diverged_at for pair in played(dense, pruned)]
    expected = []
    for seed in SEEDS:
        env = gym.make("CartPole-v1")
        obs, done, step, at = env.reset(seed=seed)[0], False, 0, None
        while not done and at is None:
            batch = {Columns.OBS: torch.as_tensor(obs)[None]}
            with torch.no_grad():
                ours, theirs = (
                    int(one.module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS].argmax())
                    for one in (dense, pruned)
                )
            at = step if ours != theirs else None
            obs, _, terminated, truncated, _ = env.step(ours)
            done, step = terminated or truncated, step + 1
        expected.append(at)
        env.close()
    assert found == expected
    assert any(at is not None for at in found)


@pytest.mark.parametrize("lstm", [False, True], ids=["mlp", "lstm"])
def test_actions_are_compared_on_the_dense_policys_states(lstm: bool) -> None:
    model = {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 10} if lstm else {}
    config = configs.ppo(**model)
    dense, pruned = (evaluator(config, moved, whole=True) for moved in (0.0, 0.2))
    seen: tuple[list[Any], list[Any]] = [], []

    def compare(first: Any, second: Any) -> None:
        seen[0].append(first)
        seen[1].append(second)

    played(dense, pruned, shadow=PolicyActor(pruned), compare=compare)
    expected = closeness(dense, pruned, 100, 5)
    assert len(seen[0]) == expected["states"]
    assert agreement(*seen) == pytest.approx(expected["agreement"])


def test_continuous_actions_are_alike_within_a_hundredth_of_their_range() -> None:
    alike = Alike(gym.spaces.Box(-2.0, 2.0, (2,)))
    assert alike(np.array([0.0, 1.0]), np.array([0.03, 1.0]))
    assert not alike(np.array([0.0, 1.0]), np.array([0.05, 1.0]))


def test_discrete_actions_are_alike_when_they_are_the_same() -> None:
    alike = Alike(gym.spaces.MultiDiscrete([3, 3]))
    assert alike(np.array([0, 2]), np.array([0, 2]))
    assert not alike(np.array([0, 2]), np.array([0, 1]))
