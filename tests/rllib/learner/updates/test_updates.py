"""Lean updates of PPO learn the same to the bit as RLlib's, and log the same."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from ray.rllib.policy.sample_batch import MultiAgentBatch

from rayprune.rllib import prune
from rayprune.rllib.learner.updates.replays import Replays
from tests.rllib import configs
from tests.rllib.learner.test_final_masks import spaces_only, update
from tests.rllib.learner.updates import twins

pytestmark = pytest.mark.timeout(120)

DENSE = {"sparsity": 0.0}
CNN = {"conv_filters": [[8, 3, 1]], "head_fcnet_hiddens": [16]}
LSTM = {"use_lstm": True, "lstm_cell_size": 16, "max_seq_len": 4, "fcnet_hiddens": [16]}
EPOCHS = {"num_epochs": 3, "minibatch_size": 16, "shuffle_batch_per_epoch": True}


def ppo(observations: Any = twins.VECTOR, actions: Any = twins.DISCRETE, **how: Any) -> Any:
    model = how.pop("model", {})
    return twins.spaces(configs.ppo(**model), observations, actions).training(**how)


def check_twins(config: Any, *, masked: bool = True, size: int = 48, **pruning: Any) -> Any:
    """Update both three times; return the lean one."""
    first, second = twins.twins(config, plasticity=None, **pruning)
    made = functools.partial(twins.ppo_batch, size=size, masked=masked)

    def batches() -> Iterator[MultiAgentBatch]:
        return (made(first, seed=seed) for seed in range(2))

    expected, found = (
        twins.after_updates(learner, batches, **EPOCHS) for learner in (first, second)
    )
    assert twins.differences(expected[0], found[0]) == []
    assert twins.differences(expected[1], found[1]) == []
    return second


CASES: dict[str, Any] = {
    "dense": (ppo(), DENSE),
    "pruned": (ppo(), {}),
    "entropy": (ppo(entropy_coeff=0.01), {}),
    "entropy falls": (ppo(entropy_coeff=[[0, 0.1], [1000, 0.0]]), {}),
    "clipped": (ppo(grad_clip=0.5), {}),
    "each clipped": (ppo(grad_clip=0.5, grad_clip_by="value"), {}),
    "no KL": (ppo(use_kl_loss=False), {}),
    "continuous": (ppo(actions=twins.CONTINUOUS), {}),
    "CNN": (ppo(observations=twins.IMAGE, model=CNN), {}),
    "LSTM": (ppo(model=LSTM), {}),
    "Taylor": (ppo(), {"criterion": "taylor"}),
    "RigL": (ppo(), {"schedule": {"kind": "rigl", "every": 1, "drop_fraction": 0.3}}),
    "not fused": (ppo(), {"fused_optimizer": False}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_is_learned_and_logged(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, pruning = CASES[case]
    found: list[Any] = []
    replayed = Replays.replayed

    def noted(*args: Any) -> Any:
        found.append(replayed(*args))
        return found[-1]

    monkeypatch.setattr(Replays, "replayed", noted)
    check_twins(config, **pruning)
    assert any(computed is not None for computed in found), "nothing was replayed"


def test_rows_may_all_count() -> None:
    assert check_twins(ppo(), masked=False)._replays._holds


def test_minibatches_may_be_of_other_sizes_from_update_to_update() -> None:
    first, second = twins.twins(ppo(), plasticity=None)

    def batches() -> Iterator[MultiAgentBatch]:
        return (twins.ppo_batch(first, size) for size in (64, 20, 100))

    expected, found = (twins.after_updates(own, batches, num_epochs=2) for own in (first, second))
    assert twins.differences(expected, found) == []


def test_layers_that_are_watched_are_run() -> None:
    lean = twins.twins(ppo(), plasticity={"every": 16})[1]
    made = twins.ppo_batch(lean, 80)
    twins.after_updates(lean, lambda: iter([made]), **EPOCHS)
    assert lean._replays._recorded is None


def test_gradients_that_are_not_finite_are_dealt_with_as_rllib_does() -> None:
    first, second = twins.twins(ppo(), plasticity=None)
    sound, broken = twins.ppo_batch(first, 80), twins.ppo_batch(first, 80, seed=1)
    broken.policy_batches["default_policy"]["advantages"][3] = float("inf")

    def batches() -> Iterator[MultiAgentBatch]:
        return iter([sound, broken, sound])

    expected, found = (twins.after_updates(own, batches, **EPOCHS) for own in (first, second))
    assert twins.differences(expected[0], found[0]) == []


def test_several_modules_are_updated_each_with_its_own() -> None:
    modules = ("cat", "mouse")
    pair = [
        prune(spaces_only(modules), configs.pruning(plasticity=None), lean=lean).build_learner()
        for lean in (False, True)
    ]
    for seed in range(2):
        first, second = (update(learner, seed=seed, num_epochs=4) for learner in pair)
        assert twins.differences(first, second) == []
    states = [learner.get_state() for learner in pair]
    for part in ("rl_module", "optimizer"):
        assert twins.differences(states[0][part], states[1][part]) == []
    assert pair[1]._replays._holds


def test_a_setting_may_change_between_updates() -> None:
    pair = twins.twins(ppo(), plasticity=None)
    batch = twins.ppo_batch(pair[0], 48)
    for clip in (0.3, 0.01):
        for learner in pair:
            vars(learner.config)["clip_param"] = clip
        first, second = (twins.after_updates(own, lambda: iter([batch]), **EPOCHS) for own in pair)
        assert twins.differences(first, second) == []


def test_recordings_that_are_never_replayed_are_given_up() -> None:
    lean = twins.twins(ppo(), plasticity=None)[1]
    batches = [twins.ppo_batch(lean, size) for size in (20, 21, 22, 23, 24)]
    # Two minibatches each: one is recorded, one is logged.
    twins.after_updates(lean, lambda: iter(batches), num_epochs=2)
    assert lean._replays.are_off
