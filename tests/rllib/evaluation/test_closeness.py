"""Agreement, KL and value error against torch's own distributions and by hand."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from rayprune.rllib.environments.environment import start_episode
from rayprune.rllib.evaluation.closeness import action_difference, agreement, closeness, kl
from rayprune.rllib.evaluation.evaluator import Evaluator
from tests.rllib import configs


def evaluator(config: Any, seed: int) -> Evaluator:
    torch.manual_seed(seed)
    return Evaluator(config, whole=True)


def moved(config: Any, scale: float) -> Evaluator:
    """The same policy as `evaluator(config, 0)`, every weight off by a little."""
    made = evaluator(config, 0)
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in made.module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return made


class Kind:
    """A module that has nothing but a kind of action distribution."""

    def __init__(self, kind: Any) -> None:
        self.get_inference_action_dist_cls = lambda: kind


def test_agreement_counts_states_in_which_every_discrete_part_is_the_same() -> None:
    assert agreement([(0, 1), (1, 1), (2, 0)], [(0, 1), (1, 0), (2, 0)]) == pytest.approx(2 / 3)
    assert agreement([np.array([0.5])], [np.array([0.5])]) is None


def test_the_difference_of_actions_is_over_their_continuous_parts() -> None:
    first = [(1, np.array([0.0, 2.0])), (0, np.array([1.0, 1.0]))]
    second = [(0, np.array([1.0, 2.0])), (0, np.array([1.0, -2.0]))]
    assert action_difference(first, second) == 1.0
    assert action_difference([0, 1], [1, 1]) is None


def test_kl_of_categoricals_and_gaussians_is_torchs() -> None:
    from ray.rllib.core.distribution.torch import torch_distribution as rllib

    # Within [-1, 1]: RLlib clips larger logarithms of standard deviations.
    first, second = 2 * torch.rand(2, 7, 6, generator=torch.Generator().manual_seed(0)) - 1
    categorical = [torch.distributions.Categorical(logits=x.double()) for x in (first, second)]
    expected = torch.distributions.kl_divergence(*categorical).mean()
    assert kl(Kind(rllib.TorchCategorical), first, second) == pytest.approx(float(expected))
    normal = [
        torch.distributions.Normal(x[:, :3].double(), x[:, 3:].double().exp())
        for x in (first, second)
    ]
    expected = torch.distributions.kl_divergence(*normal).sum(-1).mean()
    for kind in (rllib.TorchDiagGaussian, rllib.TorchSquashedGaussian):
        assert kl(Kind(kind), first, second) == pytest.approx(float(expected))


def test_a_policy_is_wholly_close_to_itself() -> None:
    config = configs.ppo()
    found = closeness(evaluator(config, 0), evaluator(config, 0), 100, 3)
    assert (found["agreement"], found["kl"], found["value_rmse"]) == (1.0, 0.0, 0.0)
    assert found["states"] > 20


def test_ppos_figures_are_those_of_a_slow_loop_over_the_dense_policys_states() -> None:
    config = configs.ppo()
    dense, other = evaluator(config, 0), moved(config, 0.1)
    same, kls, errors, states = 0, 0.0, 0.0, 0
    for seed in (100, 101):
        env = gym.make("CartPole-v1")
        obs, done = env.reset(seed=seed)[0], False
        while not done:
            batch = {Columns.OBS: torch.as_tensor(obs)[None]}
            with torch.no_grad():
                ours, theirs = (
                    x.module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS][0].double()
                    for x in (dense, other)
                )
                gap = dense.module.compute_values(batch) - other.module.compute_values(batch)
            same += int(ours.argmax() == theirs.argmax())
            p, q = ours.softmax(0), theirs.softmax(0)
            kls += float((p * (p.log() - q.log())).sum())
            errors += float(gap) ** 2
            states += 1
            obs, _, terminated, truncated, _ = env.step(int(ours.argmax()))
            done = terminated or truncated
    found = closeness(dense, other, 100, 2)
    assert found["states"] == states
    assert found["agreement"] == pytest.approx(same / states)
    assert found["kl"] == pytest.approx(kls / states)
    assert found["value_rmse"] == pytest.approx((errors / states) ** 0.5, rel=1e-5)


def test_a_recurrent_policy_carries_its_own_state_along_the_dense_ones_path() -> None:
    config = configs.ppo(use_lstm=True, lstm_cell_size=8, max_seq_len=10)
    assert closeness(evaluator(config, 0), evaluator(config, 0), 100, 2)["kl"] == 0.0
    dense, other = evaluator(config, 0), moved(config, 0.2)
    found = closeness(dense, other, 100, 1)
    # The slow way: the other one's own state, fed by what the dense policy saw.
    env = dense.make_env()
    episode, shadow = start_episode(env, 100), start_episode(env, 100)
    logits, memories = [], ({}, {})  # type: ignore[var-annotated]
    while not episode.is_done:
        ours, theirs = dense.act([episode], memories[0]), other.act([shadow], memories[1])
        assert ours.logits is not None
        assert theirs.logits is not None
        logits.append((ours.logits.reshape(1, -1), theirs.logits.reshape(1, -1)))
        obs, reward, terminated, truncated, info = env.step(ours.for_env[0])
        for one, acted in ((episode, ours), (shadow, theirs)):
            one.add_env_step(
                observation=obs,
                action=ours.actions[0],
                reward=reward,
                infos=info,
                terminated=terminated,
                truncated=truncated,
                extra_model_outputs={k: v[0] for k, v in acted.extras.items()},
            )
    first, second = (torch.cat(part) for part in zip(*logits, strict=True))
    assert found["kl"] == pytest.approx(kl(dense.module, first, second))


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_q_values_are_compared_where_there_are_no_state_values(name: str) -> None:
    config = getattr(configs, name)()
    found = closeness(evaluator(config, 0), moved(config, 0.1), 100, 1)
    assert found["value_rmse"] > 0
    if name == "dqn":
        assert found["kl"] is None
        assert 0 < found["agreement"] <= 1
    else:
        assert found["kl"] > 0
        assert found["agreement"] is None
        assert 0 < found["action_difference"] <= 4  # Pendulum's torques lie in [-2, 2]
