"""Networks that compete for the target: against a slow loop, in checkpoints, and refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID as MID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from rayprune.errors import ConfigError
from rayprune.rllib import prune
from rayprune.rllib.learner.extensions.competing_networks import CompetingNetworks
from tests.rllib import configs
from tests.rllib.off_policy.runs import differing

EVERY = 4
RACE = {"kind": "adaptive", "begin": 2, "end": 30, "every": EVERY, "networks": 3, "step": 0.3}
PRUNING = {"sparsity": 0.9, "schedule": RACE, "horizon": 1000, "fused_optimizer": False}
GAMMA = 0.9


def learner_of(algorithm: str, **changes: Any) -> Any:
    config = configs.dqn() if algorithm == "DQN" else configs.sac()
    config.training(gamma=GAMMA, grad_clip=None, target_network_update_freq=1000)
    if algorithm == "DQN":
        config.training(dueling=False, double_q=True, lr=1e-2)
    seen, acts = (
        (4, gym.spaces.Discrete(2)) if algorithm == "DQN" else (3, gym.spaces.Box(-1, 1, (1,)))
    )
    spaces = {"observation_space": gym.spaces.Box(-9, 9, (seen,)), "action_space": acts}
    config.environment(None, **spaces)
    schedule = {**RACE, **changes}
    pruning = prune(config, {**PRUNING, "schedule": schedule})
    learner = pruning.learner_class(
        config=pruning.copy(), module_spec=pruning.get_multi_rl_module_spec()
    )
    learner.build()
    return learner


def minibatches(algorithm: str, count: int) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        seen = rng.normal(size=(2, 8, 4 if algorithm == "DQN" else 3)).astype(np.float32)
        acts = rng.uniform(-1, 1, (8, 1)).astype(np.float32)
        yield {
            Columns.OBS: seen[0],
            Columns.NEXT_OBS: seen[1],
            Columns.ACTIONS: rng.integers(0, 2, 8) if algorithm == "DQN" else acts,
            Columns.REWARDS: rng.normal(size=8).astype(np.float32),
            Columns.TERMINATEDS: rng.random(8) < 0.2,
            Columns.TRUNCATEDS: np.zeros(8, bool),
            "weights": np.ones(8, np.float32),
            "n_step": np.ones(8, np.float32),
        }


def train(learner: Any, batches: Any, first: int = 1) -> Iterator[int]:
    for step, batch in enumerate(batches, first):
        learner.update(
            batch=MultiAgentBatch({MID: SampleBatch(batch)}, 8),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: step},
        )
        yield step


class SlowNetwork:
    """A network of its own, with its own optimizer and masks, and DQN's loss written out."""

    def __init__(self, module: Any, masks: dict[str, Tensor]) -> None:
        self.module, self.masks, self.loss = copy.deepcopy(module), masks, 0.0
        self.weights = {
            name: p for name, p in self.module.named_parameters() if "target" not in name
        }
        self.adam = torch.optim.Adam(self.weights.values(), lr=1e-2)
        self.mask()

    @torch.no_grad()
    def mask(self) -> None:
        for name, mask in self.masks.items():
            self.weights[name].mul_(mask)

    def q(self, seen: Tensor) -> Tensor:
        return self.module.compute_q_values({Columns.OBS: seen})["qf_preds"]

    def step(self, batch: dict[str, np.ndarray], target: SlowNetwork) -> None:
        held = {key: torch.as_tensor(value) for key, value in batch.items()}
        following = self.q(held[Columns.NEXT_OBS]).argmax(-1)
        with torch.no_grad():
            judged = target.q(held[Columns.NEXT_OBS])[torch.arange(8), following]
        aim = held[Columns.REWARDS] + GAMMA * judged * (~held[Columns.TERMINATEDS])
        chosen = self.q(held[Columns.OBS])[torch.arange(8), held[Columns.ACTIONS]]
        errors = (chosen - aim).abs()
        loss = torch.where(errors < 1, 0.5 * errors**2, errors - 0.5).mean()
        self.loss += float(loss.detach())
        self.adam.zero_grad()
        loss.backward()
        for name, mask in self.masks.items():
            self.weights[name].grad *= mask
        self.adam.step()
        self.mask()


def same(slow: SlowNetwork, tensors: Any) -> None:
    for name, weight in slow.weights.items():
        torch.testing.assert_close(tensors[name].detach(), weight.detach(), rtol=1e-4, atol=1e-6)


def test_dqns_networks_learn_and_are_chosen_as_in_a_slow_loop() -> None:
    learner = learner_of("DQN")
    module = learner.module[MID].unwrapped()
    race = learner.extension(CompetingNetworks)
    slow = [SlowNetwork(module, {})]
    target, sparsities, winners = copy.deepcopy(slow[0]), [], []
    batches = list(minibatches("DQN", 15))
    for step, batch in zip(train(learner, batches), batches, strict=False):
        for network in slow:
            network.step(batch, target)
        if step % EVERY == 2:
            best = min(range(len(slow)), key=lambda at: slow[at].loss)
            winners.append(best)
            same(slow[best], dict(module.named_parameters()))
            rivals = race._rivals[MID]
            masks = [learner.masks()[MID], *(rival.masks for rival in rivals)]
            slow = [SlowNetwork(slow[best].module, held) for held in masks]
            target = copy.deepcopy(slow[0])
            for source, copied in module.get_target_network_pairs():
                for one, other in zip(source.parameters(), copied.parameters(), strict=True):
                    assert torch.equal(one, other)
            sparsities.append(learner.pruners[MID].sparsity())
            for held in masks[1:]:
                assert all(not (mask & ~masks[0].get(n, mask)).any() for n, mask in held.items())
        same(slow[0], dict(module.named_parameters()))
        for network, rival in zip(slow[1:], race._rivals.get(MID, ()), strict=True):
            same(network, rival.tensors)
            assert float(rival.loss) == pytest.approx(network.loss, rel=1e-4)
    assert sparsities == sorted(sparsities)
    assert 0 < sparsities[-1] < 0.9
    assert max(winners) > 0
    assert learner.pruning_report()[MID]["violations"] == {}


@pytest.mark.parametrize("algorithm", ["DQN", pytest.param("SAC", marks=pytest.mark.slow)])
def test_a_checkpoint_in_mid_race_goes_on_to_the_bit_and_the_end_leaves_one(algorithm: str) -> None:
    batches = list(minibatches(algorithm, 14))
    torch.manual_seed(0)
    whole = learner_of(algorithm, end=13)
    list(train(whole, batches[:8]))
    state, draws = copy.deepcopy(whole.get_state()), torch.get_rng_state()
    assert len(whole.extension(CompetingNetworks)._rivals[MID]) == 2
    list(train(whole, batches[8:], first=9))
    resumed = learner_of(algorithm, end=13)
    resumed.set_state(state)
    torch.set_rng_state(draws)
    list(train(resumed, batches[8:], first=9))
    ours, theirs = whole.get_state(), resumed.get_state()
    for key in ("rl_module", "optimizer", "rayprune"):
        assert differing(ours[key], theirs[key]) == []
    assert whole.extension(CompetingNetworks)._rivals == {}
    report = whole.pruning_report()[MID]
    assert 0 < report["sparsity"] < 0.9
    assert report["violations"] == {}


def test_a_rival_of_sac_with_the_modules_masks_learns_to_the_bit_what_the_module_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = learner_of("SAC", step=1e-9, networks=2, every=100)
    race = learner.extension(CompetingNetworks)
    step_alone = race._step

    def with_the_same_draws(*given: Any) -> None:
        torch.set_rng_state(before)
        step_alone(*given)

    monkeypatch.setattr(race, "_step", with_the_same_draws)
    before = torch.get_rng_state()
    for _ in train(learner, minibatches("SAC", 6)):
        before = torch.get_rng_state()
    (rival,) = race._rivals[MID]
    live = race._live(MID)
    assert live.keys() == rival.tensors.keys() >= {"alpha/0", "alpha/0::exp_avg"}
    assert not any("target" in name for name in live)
    assert [name for name in live if not torch.equal(live[name], rival.tensors[name])] == []
    assert float(rival.loss) == float(race._losses[MID]) > 0


def test_algorithms_without_a_q_loss_are_refused() -> None:
    with pytest.raises(ConfigError, match="which PPO doesn't have as DQN and SAC do"):
        prune(PPOConfig().environment("CartPole-v1"), PRUNING)
    with pytest.raises(ConfigError, match="`num_learners` must be 0 or 1"):
        prune(configs.dqn().learners(num_learners=2), PRUNING)
