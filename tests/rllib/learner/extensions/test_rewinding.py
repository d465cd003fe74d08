"""A lottery ticket's weights really go back, on every Learner, with all that belongs to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.learner.extensions.rewinding import Rewinding
from tests.rllib import configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]


def ticket(config: Any, **schedule: Any) -> Any:
    kind = {"kind": "lottery", "rounds": 2, "rewind_to": 0, "round_steps": 300, **schedule}
    return configs.build(prune(config, configs.pruning(sparsity=0.75, schedule=kind)))


def weights(learner: Any) -> dict[str, Any]:
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    return {
        name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()
    }


def masks(learner: Any) -> dict[str, Any]:
    held = learner.masks()[DEFAULT_MODULE_ID]
    return {name: mask.numpy() for name, mask in held.items()}


def moments(learner: Any) -> int:
    return sum(len(optimizer.state) for optimizer in learner._named_optimizers.values())


def train_to_the_next_rewind(algo: Any) -> None:
    """Train until the masks have grown sparser."""
    before = learner_reports(algo)[0][DEFAULT_MODULE_ID]["sparsity"]
    for _ in range(20):
        algo.train()
        if learner_reports(algo)[0][DEFAULT_MODULE_ID]["sparsity"] > before:
            return
    raise AssertionError("no round ended")


def assert_rewound(now: dict[str, Any], early: dict[str, Any], held: dict[str, Any]) -> None:
    own = [name for name in now if "target" not in name]
    assert any(not mask.all() for mask in held.values())
    for name in own:
        mask = held.get(name, np.ones(now[name].shape, dtype=bool))
        assert np.array_equal(now[name], np.where(mask, early[name], 0)), name


# Two Learners start for it: what each does alone is the same.
@pytest.mark.parametrize("learners", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_each_round_ends_at_the_first_weights_to_the_bit(learners: int) -> None:
    algo = ticket(configs.ppo().learners(num_learners=learners))
    try:
        early = foreach_learner(algo, weights)
        for expected in (0.5, 0.75):
            train_to_the_next_rewind(algo)
            now, held = foreach_learner(algo, weights), foreach_learner(algo, masks)
            for rank in range(len(now)):
                assert_rewound(now[rank], early[0], held[0])
            assert foreach_learner(algo, moments) == [0] * len(now)
            report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
            assert report["sparsity"] == pytest.approx(expected, abs=0.01)
        algo.train()
        # The EnvRunners got the rewound weights: they are not the trained ones any more.
        assert moments_after_training(algo)
        trained = foreach_learner(algo, weights)[0]
        assert any(not np.array_equal(trained[name], early[0][name]) for name in trained)
    finally:
        algo.stop()


def moments_after_training(algo: Any) -> bool:
    return all(count > 0 for count in foreach_learner(algo, moments))


def test_env_runners_sample_with_the_rewound_policy() -> None:
    algo = ticket(configs.ppo().env_runners(num_env_runners=1))
    try:
        train_to_the_next_rewind(algo)
        learned = configs.learner_of(algo).module[DEFAULT_MODULE_ID].get_state(inference_only=True)

        def same(runner: Any) -> bool:
            held = runner.module.state_dict()
            return all(np.array_equal(learned[name], held[name].numpy()) for name in learned)

        group = algo.env_runner_group
        assert group.foreach_env_runner(same, local_env_runner=False) == [True]
    finally:
        algo.stop()


def test_a_later_rewind_point_is_where_the_weights_go() -> None:
    algo = ticket(configs.ppo(), rewind_to=300, round_steps=200)
    try:
        first = weights(configs.learner_of(algo))
        algo.train()
        algo.train()  # 400 steps: past the rewind point, before the first round's end at 500
        early = weights(configs.learner_of(algo))
        train_to_the_next_rewind(algo)
        learner = configs.learner_of(algo)
        assert_rewound(weights(learner), early, masks(learner))
        assert any(not np.array_equal(first[name], early[name]) for name in early)
    finally:
        algo.stop()


@pytest.mark.parametrize("base", [configs.dqn, configs.sac], ids=["dqn", "sac"])
def test_targets_follow_the_rewound_source_and_the_temperature_goes_back(base: Any) -> None:
    algo = ticket(base(), rewind_to=0, round_steps=120)
    try:
        learner = configs.learner_of(algo)
        early, compared = weights(learner), []
        rewind = learner.extension(Rewinding).rewind

        def watched(*args: Any) -> None:
            # At once, for the same iteration trains on.
            rewind(*args)
            assert_rewound(weights(learner), early, masks(learner))
            module = learner.module[DEFAULT_MODULE_ID].unwrapped()
            for source, target in module.get_target_network_pairs():
                for p, t in zip(source.parameters(), target.parameters(), strict=True):
                    assert torch.equal(p, t)
            assert moments(learner) == 0
            if base is configs.sac:
                alpha = learner.curr_log_alpha[DEFAULT_MODULE_ID]
                assert alpha.item() == pytest.approx(np.log(1.5))
            compared.append(args)

        learner.extension(Rewinding).rewind = watched
        train_to_the_next_rewind(algo)
        train_to_the_next_rewind(algo)
        assert len(compared) == 2
    finally:
        algo.stop()


def test_a_dense_run_is_not_rewound() -> None:
    kind = {"kind": "lottery", "rounds": 2, "rewind_to": 0, "round_steps": 200}
    algo = configs.build(prune(configs.ppo(), configs.pruning(sparsity=0.0, schedule=kind)))
    try:
        early = weights(configs.learner_of(algo))
        for _ in range(3):
            algo.train()
            now = weights(configs.learner_of(algo))
            assert any(not np.array_equal(now[name], early[name]) for name in now)
        assert learner_reports(algo)[0][DEFAULT_MODULE_ID]["finished"]
    finally:
        algo.stop()
