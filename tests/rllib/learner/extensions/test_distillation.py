"""The KL term to a frozen policy: right by torch's own, in every loss, and never trained."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from rayprune import PruningConfig
from rayprune.errors import ConfigError
from rayprune.pruning.evidence.divergences import categorical_kl
from rayprune.rllib import prune
from rayprune.rllib.experiment.algorithm_config import build_module
from rayprune.rllib.learner.extensions.distillation import KL_KEY, Distillation, divergence
from tests.rllib import configs

pytestmark = pytest.mark.timeout(300)
live = pytest.mark.usefixtures("ray_session")

CASES: dict[str, Any] = {
    "ppo": lambda: configs.ppo(),
    "ppo_gaussian": lambda: configs.ppo("Pendulum-v1"),
    "ppo_lstm": lambda: configs.ppo(use_lstm=True, lstm_cell_size=8, max_seq_len=8),
    "dqn": lambda: configs.dqn(double_q=True),
    "sac": lambda: configs.sac(),
    "sac_discrete": lambda: configs.sac().environment("CartPole-v1"),
}


def distilling(config: Any, **changes: Any) -> Any:
    late = {"kind": "one_shot", "begin": 150, "every": 1}
    settings = {"distillation": {"weight": 2.0}, "schedule": late, **changes}
    return configs.build(prune(config, configs.pruning(**settings)))


def kl_of(result: dict[str, Any]) -> float | None:
    return result["learners"][DEFAULT_MODULE_ID].get(KL_KEY)


@live
@pytest.mark.parametrize("case", CASES)
def test_every_algorithm_distils_from_the_first_pruning_on(case: str) -> None:
    algo = distilling(CASES[case]())
    try:
        results = [algo.train() for _ in range(4)]
        assert kl_of(results[0]) is None
        assert kl_of(results[-1]) > 0
        learner = configs.learner_of(algo)
        teacher = learner.extension(Distillation)._teachers[DEFAULT_MODULE_ID]
        optimised = {
            id(p)
            for optimizer in learner._named_optimizers.values()
            for group in optimizer.param_groups
            for p in group["params"]
        }
        assert not optimised & {id(p) for p in teacher.parameters()}
        assert not any(p.requires_grad for p in teacher.parameters())
        # The teacher is the dense policy: none of its prunable layers has zeros in it.
        weights = dict(teacher.named_parameters())
        masks = learner.masks()[DEFAULT_MODULE_ID]
        assert all(torch.all(weights[name] != 0) for name in masks)
    finally:
        algo.stop()


def student_and_batch(config: Any) -> tuple[Any, dict[str, Any]]:
    module = build_module(config)
    if hasattr(module, "make_target_networks"):
        module.make_target_networks()
    space = module.observation_space
    generator = np.random.default_rng(0)
    obs = generator.standard_normal((16, *space.shape)).astype(np.float32)
    batch = {
        Columns.OBS: torch.from_numpy(obs),
        Columns.NEXT_OBS: torch.from_numpy(obs[::-1].copy()),
    }
    if isinstance(module.action_space, gym.spaces.Box):
        batch[Columns.ACTIONS] = torch.zeros(16, *module.action_space.shape)
    return module, batch


def perturbed(module: Any) -> Any:
    import copy

    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return other


@pytest.mark.parametrize("case", ["ppo", "ppo_gaussian", "dqn", "sac", "sac_discrete"])
def test_an_identical_student_has_no_divergence_and_another_has(case: str) -> None:
    module, batch = student_and_batch(CASES[case]())
    outputs = module.forward_train(dict(batch))
    same = divergence(module, module, outputs, batch, 1.0).detach()
    other = divergence(module, perturbed(module), outputs, batch, 1.0).detach()
    assert float(same) == pytest.approx(0, abs=1e-6)
    assert float(other) > 1e-4


def test_value_and_gradient_are_those_of_torchs_own_kl() -> None:
    torch.manual_seed(0)
    target, logits = torch.randn(8, 5), torch.randn(8, 5, requires_grad=True)
    own = categorical_kl(target, logits).mean()
    (gradient,) = torch.autograd.grad(own, logits)
    categorical = torch.distributions.Categorical
    theirs = torch.distributions.kl_divergence(
        categorical(logits=target), categorical(logits=logits)
    ).mean()
    (expected,) = torch.autograd.grad(theirs, logits)
    assert own.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-7)


@pytest.mark.parametrize("case", ["ppo_gaussian", "sac"])
def test_gaussians_diverge_as_torchs_normals_do(case: str) -> None:
    module, batch = student_and_batch(CASES[case]())
    teacher = perturbed(module)
    outputs = module.forward_train(dict(batch))
    own = divergence(module, teacher, outputs, batch, 1.0)
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(own, parameters, allow_unused=True, retain_graph=True)
    pairs = []
    with torch.no_grad():
        wanted = teacher.forward_inference({Columns.OBS: batch[Columns.OBS]})
    for inputs in (wanted[Columns.ACTION_DIST_INPUTS], outputs[Columns.ACTION_DIST_INPUTS]):
        mean, log_std = inputs.chunk(2, dim=-1)
        pairs.append(torch.distributions.Normal(mean, log_std.exp()))
    theirs = torch.distributions.kl_divergence(*pairs).sum(-1).mean()
    expected = torch.autograd.grad(theirs, parameters, allow_unused=True)
    assert own.item() == pytest.approx(theirs.item(), rel=1e-4)
    for a, b in zip(gradients, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-5)


@live
def test_the_logged_divergence_falls_while_retraining() -> None:
    # Long enough before the cut for the policy to be far from uniform: a KL worth the name.
    late = {"kind": "one_shot", "begin": 2400, "every": 1}
    config = configs.ppo().training(lr=3e-3, num_epochs=4)
    algo = distilling(config, sparsity=0.8, schedule=late, distillation={"weight": 5.0})
    try:
        values = [kl_of(algo.train()) for _ in range(22)]
        held = [value for value in values if value is not None]
        assert held[0] > 1e-3
        assert np.mean(held[-3:]) < 0.5 * held[0]
    finally:
        algo.stop()


@live
def test_the_teacher_survives_a_checkpoint(tmp_path: Path) -> None:
    def weights(learner: Any) -> Any:
        (teacher,) = learner.extension(Distillation)._teachers.values()
        return {name: t.numpy().copy() for name, t in teacher.state_dict().items()}

    algo = distilling(configs.ppo())
    try:
        for _ in range(2):
            algo.train()
        first = weights(configs.learner_of(algo))
        algo.save_to_path(str(tmp_path))
    finally:
        algo.stop()
    state = pickle.loads((tmp_path / "learner_group" / "learner" / "state.pkl").read_bytes())
    assert set(state["rayprune"]["teachers"][DEFAULT_MODULE_ID]) == set(first)
    again = distilling(configs.ppo())
    try:
        again.restore_from_path(str(tmp_path))
        assert all(
            np.array_equal(value, first[name])
            for name, value in weights(configs.learner_of(again)).items()
        )
        # A given teacher is a checkpoint's policy, from the first update on.
        given = distilling(configs.ppo(), distillation={"from": str(tmp_path)})
        given.train()
        held = weights(configs.learner_of(given))
        given.stop()
    finally:
        again.stop()
    module = pickle.loads(
        (
            tmp_path
            / "learner_group"
            / "learner"
            / "rl_module"
            / DEFAULT_MODULE_ID
            / "module_state.pkl"
        ).read_bytes()
    )
    assert all(np.array_equal(held[name], module[name]) for name in module)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"weight": 0}, "distillation.weight` must be a number above 0"),
        ({"temperture": 2}, "Did you mean 'temperature'"),
        ({"from": 3}, "must be null, 'start' or a checkpoint"),
        ("yes", "must be null or {weight, from, temperature}"),
    ],
)
def test_each_fault_of_the_block_is_worded(block: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PruningConfig(sparsity=0.5, distillation=block)
