"""Pruned weights are exactly zero, on every Learner, EnvRunner and target network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.errors import InvariantError
from rayprune.rllib import prune
from rayprune.rllib.callback import check_env_runners, check_learners, learner_reports
from tests.rllib import configs
from tests.rllib.envs import Images, OwnModule

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

CNN = {"conv_filters": [[8, 4, 2], [16, 4, 2]], "head_fcnet_hiddens": [16], "fcnet_hiddens": []}

CASES: dict[str, Any] = {
    "ppo_mlp": lambda: configs.ppo(),
    "ppo_shared_encoder": lambda: configs.ppo(vf_share_layers=True),
    "ppo_lstm": lambda: configs.ppo(use_lstm=True, lstm_cell_size=16, max_seq_len=8),
    "ppo_cnn": lambda: configs.ppo(Images, **CNN),
    "ppo_own_module": lambda: configs.ppo().rl_module(
        rl_module_spec=RLModuleSpec(module_class=OwnModule)
    ),
    "ppo_remote_env_runners": lambda: configs.ppo().env_runners(num_env_runners=2),
    "dqn_dueling_double": lambda: configs.dqn(dueling=True, double_q=True),
    "dqn_distributional": lambda: configs.dqn(num_atoms=5, v_min=0.0, v_max=50.0),
    "sac": lambda: configs.sac(),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_pruned_weights_stay_exactly_zero_while_training(case: str, granularity: str) -> None:
    config = prune(CASES[case](), configs.pruning(granularity=granularity, pooling="l2"))
    algo = configs.build(config)
    try:
        for _ in range(3):
            algo.train()  # the callback raises on a broken promise
            _check_by_hand(algo)
        report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
        assert report["finished"]
        assert report["sparsity"] == pytest.approx(0.8, abs=0.05)
        heads = [layer for layer in report["layers"] if layer.exempt]
        assert all(layer.sparsity == 0 for layer in heads)
        # A unit of an output head is an action or a value: none can go.
        assert bool(heads) is (granularity == "neuron")
    finally:
        algo.stop()


def _check_by_hand(algo: Any) -> None:
    """Compare masks with weights directly, not by the code that the callback uses."""
    learner = configs.learner_of(algo)
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    masks = learner.masks()[DEFAULT_MODULE_ID]
    weights = dict(module.named_parameters())
    assert any(not mask.all() for mask in masks.values())
    for name, mask in masks.items():
        assert torch.all(weights[name][~mask] == 0), name
    if hasattr(module, "get_target_network_pairs"):
        _check_targets(module, masks)

    synced = set(learner.module[DEFAULT_MODULE_ID].get_state(inference_only=True))

    def dense(runner: Any) -> list[str]:
        held = {n: p for n, p in runner.module.named_parameters() if n in synced}
        assert held
        return [n for n, m in masks.items() if n in held and torch.any(held[n][~m] != 0)]

    assert algo.env_runner_group.foreach_env_runner(dense, local_env_runner=True) == [[]] * (
        algo.config.num_env_runners + 1
    )


def _check_targets(module: Any, masks: dict[str, torch.Tensor]) -> None:
    names = {id(p): name for name, p in module.named_parameters()}
    compared = 0
    for source, target in module.get_target_network_pairs():
        for p, t in zip(source.parameters(), target.parameters(), strict=True):
            mask = masks.get(names[id(p)])
            if mask is not None:
                assert torch.all(t[~mask] == 0), names[id(p)]
                compared += 1
    assert compared >= 2


def test_two_learners_hold_the_same_masks_and_weights() -> None:
    config = configs.ppo().learners(num_learners=2)
    algo = configs.build(prune(config, configs.pruning(criterion="random")))
    try:
        for _ in range(2):
            algo.train()
        first, second = learner_reports(algo)
        assert first[DEFAULT_MODULE_ID]["digest"] == second[DEFAULT_MODULE_ID]["digest"]
        assert first[DEFAULT_MODULE_ID]["sparsity"] == pytest.approx(0.8, abs=0.01)
        sums = [
            float(answer.get())
            for answer in algo.learner_group.foreach_learner(
                lambda learner: sum(
                    float(p.double().abs().sum())
                    for p in learner.module[DEFAULT_MODULE_ID].parameters()
                )
            )
        ]
        assert sums[0] == sums[1]
    finally:
        algo.stop()


def test_the_callback_raises_when_something_else_writes_weights() -> None:
    algo = configs.build(prune(configs.ppo(), configs.pruning()))
    try:
        algo.train()
        learner = configs.learner_of(algo)
        masks = learner.masks()[DEFAULT_MODULE_ID]
        name, mask = next((n, m) for n, m in masks.items() if not m.all())
        weights = dict(learner.module[DEFAULT_MODULE_ID].named_parameters())[name]
        with torch.no_grad():
            weights[~mask] = 0.25
        with pytest.raises(InvariantError, match="not zero"):
            check_learners(learner_reports(algo))
    finally:
        algo.stop()


def test_the_callback_raises_when_an_env_runner_misses_a_mask() -> None:
    algo = configs.build(prune(configs.ppo(), configs.pruning()))
    try:
        algo.train()
        with torch.no_grad():
            for parameter in algo.env_runner.module.parameters():
                parameter.add_(0.1)
        with pytest.raises(InvariantError, match="EnvRunner"):
            check_env_runners(algo, learner_reports(algo)[0])
    finally:
        algo.stop()
