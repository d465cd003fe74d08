"""Pruned weights are exactly zero, on every Learner, EnvRunner and target network."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.errors import InvariantError
from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.callback import check_env_runners, check_learners, learner_reports
from rayprune.rllib.learner.updates.parts import GRADIENTS, STEP, LeanParts
from rayprune.rllib.settings.keys import LEAN_KEY
from tests.doubles.envs import OwnModule
from tests.rllib import configs
from tests.rllib.invariants import check_by_hand
from tests.rllib.learner.updates import twins

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

CASES: dict[str, Any] = {
    "ppo_shared_encoder": lambda: configs.ppo(vf_share_layers=True),
    "ppo_own_module": lambda: configs.ppo().rl_module(
        rl_module_spec=RLModuleSpec(module_class=OwnModule)
    ),
    "ppo_remote_env_runners": lambda: configs.ppo().env_runners(num_env_runners=2),
    "dqn_single": lambda: configs.dqn(dueling=False, double_q=False),
}


@pytest.mark.parametrize(
    ("case", "granularity"),
    [
        pytest.param(
            case,
            granularity,
            # Two actors start for it: whole units on a remote one differ in nothing from weights.
            marks=pytest.mark.slow
            if (case, granularity) == ("ppo_remote_env_runners", "neuron")
            else (),
        )
        for case in CASES
        for granularity in ("weight", "neuron")
    ],
)
def test_pruned_weights_stay_exactly_zero_while_training(case: str, granularity: str) -> None:
    config = prune(CASES[case](), configs.pruning(granularity=granularity, pooling="l2"))
    algo = configs.build(config)
    try:
        for _ in range(3):
            algo.train()  # the callback raises on a broken promise
            check_by_hand(algo)
        report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
        assert report["finished"]
        assert report["sparsity"] == pytest.approx(0.8, abs=0.05)
        heads = [layer for layer in report["layers"] if layer.exempt]
        assert all(layer.sparsity == 0 for layer in heads)
        # A unit of an output head is an action or a value: none can go.
        assert bool(heads) is (granularity == "neuron")
    finally:
        algo.stop()


def test_two_learners_hold_the_same_masks_and_weights() -> None:
    # What is cut by chance and what grows by gradients, at once: starting two Learners takes
    # longer than all that they do.
    rigl = {"kind": "rigl", "begin": 0, "end": 2000, "every": 50, "drop_fraction": 0.5}
    pruning = configs.pruning(criterion="random", schedule=rigl)
    algo = configs.build(prune(configs.ppo().learners(num_learners=2), pruning))
    try:
        digests = set()
        for _ in range(3):
            algo.train()
            first, second = learner_reports(algo)
            digests.add(first[DEFAULT_MODULE_ID]["digest"])
            assert first[DEFAULT_MODULE_ID]["digest"] == second[DEFAULT_MODULE_ID]["digest"]
        assert len(digests) == 3
        # RLlib's own Learner is known for what it is where Ray has made an actor of it.
        seen = foreach_learner(
            algo, lambda learner: (learner._final_masks.rewrites, learner._final_masks.strangers)
        )
        assert seen == [(False, [])] * 2
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
        check_lean(algo)
    finally:
        algo.stop()


def check_lean(algo: Any) -> None:
    """Assert that two Learners learn leanly what they learn in RLlib's own loop."""
    episodes, state = algo.env_runner.sample(), algo.learner_group.get_state()["learner"]
    found = []
    for lean in (False, True):
        foreach_learner(algo, functools.partial(begin, state=state, lean=lean))
        algo.learner_group.update(
            episodes=copy.deepcopy(episodes),
            timesteps={"num_env_steps_sampled_lifetime": 10_000},
            num_epochs=2,
            minibatch_size=32,
            shuffle_batch_per_epoch=True,
        )
        found.append([*foreach_learner(algo, twins.learned)])
    assert twins.differences(*found) == []


def begin(learner: Any, state: Any, *, lean: bool) -> None:
    """Put a Learner back to a state, and have it update in one of two ways from now on."""
    learner._weights_seq_no = 0
    learner.set_state(state)
    learner.config.learner_config_dict[LEAN_KEY] = lean
    learner._lean = LeanParts(learner)
    assert (STEP in learner._lean) is (GRADIENTS in learner._lean) is lean
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - RLlib's


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
