"""Pruned weights stay zero whatever a user's Learner does, and RLlib's own pay nothing for it."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.learner.extensions.rewinding import Rewinding
from rayprune.rllib.learner.optimizers import moments, optimizers_of
from rayprune.rllib.learner.sparse_moments_and_targets import masked_targets
from tests.doubles.learners import (
    STEPPING,
    WRITING,
    NoiseAfterClipping,
    NoiseBeforeClipping,
    NoiseOfEachRank,
    Plain,
    SharedOptimizer,
    perturb,
)
from tests.rllib import configs

pytestmark = pytest.mark.timeout(300)

ACTIONS = 3


def spaces_only(modules: Any = (DEFAULT_MODULE_ID,)) -> Any:
    """PPO's config, without an environment."""
    config = configs.ppo().environment(
        observation_space=gym.spaces.Box(-1, 1, (5,), np.float32),
        action_space=gym.spaces.Discrete(ACTIONS),
    )
    if len(modules) > 1:
        config.multi_agent(policies=set(modules), policy_mapping_fn=lambda agent, *_, **__: agent)
    return config


def learner_with(cls: Any, config: Any = None, **changes: Any) -> Any:
    """A built Learner, without an algorithm around it."""
    config = (config or spaces_only()).learners(learner_class=cls)
    return prune(config, configs.pruning(**changes)).build_learner()


def update(learner: Any, step: int = 1000, seed: int = 0, num_epochs: int = 2) -> Any:
    """Update over one batch of random steps for each module; return RLlib's result."""
    generator = torch.Generator().manual_seed(seed)
    size = 32
    batches = {
        module_id: SampleBatch(
            {
                "obs": torch.randn(size, 5, generator=generator),
                "actions": torch.randint(ACTIONS, (size,), generator=generator),
                "action_dist_inputs": torch.zeros(size, ACTIONS),
                "action_logp": torch.full((size,), -float(np.log(ACTIONS))),
                "advantages": torch.randn(size, generator=generator),
                "value_targets": torch.randn(size, generator=generator),
            }
        )
        for module_id in learner.module.keys()  # noqa: SIM118 - a MultiRLModule is no dict
    }
    return learner.update(
        batch=MultiAgentBatch(batches, env_steps=size),
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: step},
        minibatch_size=16,
        num_epochs=num_epochs,
    )


def not_zero(learner: Any) -> dict[str, int]:
    """Count by name what is pruned and not zero: weights, moments, target networks."""
    found: dict[str, int] = {}
    for module_id, pruner in learner.pruners.items():
        weights = dict(learner.module[module_id].unwrapped().named_parameters())
        optimizers = optimizers_of(learner, module_id)
        for name, mask in pruner.masks.items():
            tensors = [weights[name], *moments(optimizers, weights[name])]
            found[name] = sum(int(torch.count_nonzero(t[~mask])) for t in tensors)
        for name, target in masked_targets(pruner):
            if name in pruner.masks:
                found[f"target of {name}"] = int(torch.count_nonzero(target[~pruner.masks[name]]))
    assert found
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize("kind", [*WRITING, *STEPPING])
def test_pruned_weights_and_their_moments_stay_zero_under_any_learner(kind: str) -> None:
    learner = learner_with({**WRITING, **STEPPING}[kind])
    step, after_steps = learner.apply_gradients, list[Any]()

    def watched(gradients: Any) -> None:
        step(gradients)
        after_steps.append(not_zero(learner) if learner.pruners[DEFAULT_MODULE_ID].masks else {})

    learner.apply_gradients = watched
    for seed in range(3):
        update(learner, seed=seed)
        assert not not_zero(learner)
    assert after_steps == [{}] * 12
    report = learner.pruning_report()[DEFAULT_MODULE_ID]
    assert report["sparsity"] == pytest.approx(0.8, abs=0.01)
    state = learner.get_state(components="rl_module")["rl_module"][DEFAULT_MODULE_ID]
    for name, mask in learner.pruners[DEFAULT_MODULE_ID].masks.items():
        assert np.count_nonzero(state[name][~mask.numpy()]) == 0
        assert np.count_nonzero(state[name]) > 0


def test_weights_asked_for_in_inference_mode_leave_masks_that_can_change() -> None:
    learner = learner_with(WRITING["ShrinkAndPerturb"], sparsity=0.5)
    update(learner)
    learner.pruners[DEFAULT_MODULE_ID].members[0]._store.forget()
    with torch.inference_mode():
        learner.get_state(components="rl_module")
    held = learner.config.learner_config_dict["rayprune"]
    learner.config.learner_config_dict["rayprune"] = {**held, "sparsity": 0.8}
    update(learner, step=2000)
    assert learner.pruning_report()[DEFAULT_MODULE_ID]["sparsity"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("kind", [PPOTorchLearner, Plain])
def test_learners_that_write_nothing_pay_for_one_multiply_of_the_gradients(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_with(kind)
    for seed in range(2):
        update(learner, seed=seed)  # the masks are there, and nobody has been here since
    pruner = learner.pruners[DEFAULT_MODULE_ID]
    calls: list[str] = []
    for name in ("mask_weights", "mask_gradients", "mask_along"):
        monkeypatch.setattr(pruner, name, lambda *_, name=name: calls.append(name))
    learner.apply_gradients({p: torch.zeros_like(p) for p in learner._params})
    assert calls == []
    learner.postprocess_gradients({p: torch.zeros_like(p) for p in learner._params})
    assert calls == ["mask_gradients"]
    if kind is PPOTorchLearner:
        calls.clear()
        update(learner)
        assert set(calls) == {"mask_gradients"}


@pytest.mark.parametrize("kind", [PPOTorchLearner, NoiseAfterClipping, NoiseBeforeClipping])
def test_the_clipped_norm_counts_no_pruned_weight(kind: Any) -> None:
    learner = learner_with(kind, spaces_only().training(grad_clip=1e-3, grad_clip_by="global_norm"))
    update(learner)
    pruner = learner.pruners[DEFAULT_MODULE_ID]
    masks = {p: pruner.masks.get(n) for n, p in pruner.module.named_parameters()}
    clipped: list[float] = []
    clip = learner._get_clip_function()

    def watched(gradients: Any, **options: Any) -> Any:
        norm = clip(gradients, **options)
        masked = [g[~masks[p]] for p, g in gradients.items() if masks[p] is not None]
        assert not any(torch.any(g != 0) for g in masked)
        clipped.append(float(norm))
        return norm

    learner._get_clip_function = lambda: watched
    update(learner)
    assert clipped


def test_one_optimizer_for_all_modules_forgets_the_moments_of_both() -> None:
    learner = learner_with(SharedOptimizer, spaces_only(("small", "large")))
    update(learner)
    (optimizer,) = learner._named_optimizers.values()
    assert {id(o) for m in ("small", "large") for o in optimizers_of(learner, m)} == {id(optimizer)}
    assert optimizer.param_groups[0]["fused"] is True
    assert not not_zero(learner)


def test_a_rewound_module_leaves_a_shared_optimizers_other_moments_alone() -> None:
    ticket = {"kind": "lottery", "rounds": 1, "rewind_to": 0, "round_steps": 100}
    learner = learner_with(SharedOptimizer, spaces_only(("small", "large")), schedule=ticket)
    update(learner, step=10)
    optimizer = learner._named_optimizers["__all_modules___shared"]
    learner.extension(Rewinding).rewind("small", learner.pruners["small"])
    held = {
        mid: [p in optimizer.state for p in learner.module[mid].parameters()]
        for mid in ("small", "large")
    }
    assert not any(held["small"])
    assert all(held["large"])


class Nosy(RLlibCallback):
    """Writes a Learner's weights after each iteration."""

    def on_train_result(self, *, algorithm: Any, **_: Any) -> None:
        foreach_learner(algorithm, perturb)


@pytest.mark.usefixtures("ray_session")
def test_weights_that_a_callback_writes_are_masked_after_it() -> None:
    algo = configs.build(prune(configs.ppo().callbacks(Nosy), configs.pruning()))
    try:
        for _ in range(3):
            algo.train()
            assert not not_zero(configs.learner_of(algo))
    finally:
        algo.stop()


@pytest.mark.usefixtures("ray_session")
def test_weights_written_from_the_script_are_masked_by_the_next_iteration() -> None:
    algo = configs.build(prune(configs.ppo(), configs.pruning()))
    try:
        for _ in range(2):
            algo.train()
            foreach_learner(algo, perturb)
        algo.train()
        assert not not_zero(configs.learner_of(algo))
    finally:
        algo.stop()


class WritesAfterTheUpdate(RLlibCallback):
    """Writes weights between the update and our look at them."""

    def on_evaluate_end(self, *, algorithm: Any, **_: Any) -> None:
        foreach_learner(algorithm, perturb)


@pytest.mark.usefixtures("ray_session")
def test_a_callback_that_writes_weights_behind_the_learner_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = configs.ppo().callbacks(WritesAfterTheUpdate)
    config.evaluation(evaluation_interval=1, evaluation_duration=1)
    algo = configs.build(prune(config, configs.pruning()))
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                algo.train()
                assert not not_zero(configs.learner_of(algo))
    finally:
        algo.stop()
    told = [r.message for r in caplog.records if "no longer zero" in r.message]
    assert len(told) == 1
    assert "the callback WritesAfterTheUpdate" in told[0]


@pytest.mark.slow  # two Learners start; one with such noise is tried above in every run
@pytest.mark.usefixtures("ray_session")
def test_two_learners_with_noise_of_their_own_agree_on_the_masks() -> None:
    config = configs.ppo().learners(learner_class=NoiseOfEachRank, num_learners=2)
    pruning = configs.pruning(schedule={"kind": "cubic", "begin": 0.01, "end": 0.05, "every": 100})
    algo = configs.build(prune(config, pruning))
    try:
        for _ in range(3):
            algo.train()
            assert foreach_learner(algo, not_zero) == [{}, {}]
    finally:
        algo.stop()


def test_who_reads_an_asynchronous_learner_breaks_no_backward_of_its_thread() -> None:
    config = IMPALAConfig().environment(
        observation_space=gym.spaces.Box(-1, 1, (5,), np.float32),
        action_space=gym.spaces.Discrete(ACTIONS),
    )
    learner = prune(config, configs.pruning()).build_learner()
    learner.prune_now()
    module = learner.module[DEFAULT_MODULE_ID]
    # As its thread does, between a forward and its backward.
    out = module.forward_train({Columns.OBS: torch.zeros(2, 5)})[Columns.ACTION_DIST_INPUTS]
    assert not learner.pruning_report()[DEFAULT_MODULE_ID]["violations"]
    learner.get_state()
    out.sum().backward()
    # What isn't zero is still masked for who asks.
    name, weight = next(iter(module.named_parameters()))
    with torch.no_grad():
        weight.fill_(1.0)
    learner.get_state()
    assert torch.all(weight[~learner.masks()[DEFAULT_MODULE_ID][name]] == 0)
