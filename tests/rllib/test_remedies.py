"""Remedies on live algorithms: targets of n steps, recent experience, the same intensity."""

from __future__ import annotations

from typing import Any

import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.errors import ConfigError
from rayprune.rllib import prune
from tests.rllib import configs

CUT = {"kind": "one_shot", "begin": 250, "every": 1}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    "base", [configs.dqn, pytest.param(configs.sac, marks=pytest.mark.slow)], ids=["dqn", "sac"]
)
def test_targets_span_n_steps_from_their_time_on_at_the_same_training_intensity(base: Any) -> None:
    remedies = {"n_step": 3, "n_step_from": 150}
    each = base().env_runners(rollout_fragment_length=1)  # RLlib's own: an update a step
    algo = configs.build(prune(each, configs.pruning(schedule=CUT, remedies=remedies)))
    learner, spans = configs.learner_of(algo), set()
    losses = learner.compute_losses

    def watched(*, fwd_out: Any, batch: Any) -> Any:
        spans.add(int(batch[DEFAULT_MODULE_ID]["n_step"].max()))
        return losses(fwd_out=fwd_out, batch=batch)

    learner.compute_losses = watched
    try:
        paces = []
        modules = learner._modules
        while modules.clock < 300:
            before = modules.clock, modules.updates
            algo.train()
            if modules.clock < 150:
                assert spans <= {1}
            elif before[0] >= 150:
                assert spans == {3}
                paces.append(
                    (learner._modules.updates - before[1]) / (learner._modules.clock - before[0])
                )
            spans.clear()
        assert paces
        assert all(pace == pytest.approx(1.0, abs=0.1) for pace in paces)
    finally:
        algo.stop()


@pytest.mark.usefixtures("ray_session")
def test_the_buffer_holds_recent_steps_once_weights_are_pruned() -> None:
    remedies = {"replay_limit": 200, "replay_reset": 120, "rescale": True}
    algo = configs.build(prune(configs.dqn(), configs.pruning(schedule=CUT, remedies=remedies)))
    try:
        capacities, sizes = [], []
        for _ in range(5):
            algo.train()
            buffer = algo.local_replay_buffer
            capacities.append(buffer.capacity)
            sizes.append(buffer.get_num_timesteps())
        full = algo.config.replay_buffer_config["capacity"]
        # Pruned at step 300, at the end of the third iteration: that once all but 120 go.
        assert capacities == [full, full, 120, 200, 200]
        assert sizes[2] >= 300
        longest = 60  # whole episodes go, and the newest is always kept
        assert sizes[3] <= 120 + longest
        assert sizes[4] <= 200 + longest
    finally:
        algo.stop()


def test_an_on_policy_algorithm_has_no_buffer_to_limit() -> None:
    with pytest.raises(ConfigError, match="take DQN or SAC") as caught:
        prune(configs.ppo(), configs.pruning(remedies={"n_step": 3, "replay_limit": 1000}))
    assert len(caught.value.faults) == 2
    prune(configs.ppo(), configs.pruning(remedies={"rescale": True}))


@pytest.mark.usefixtures("ray_session")
def test_a_restored_algorithm_goes_on_with_the_remedies_in_force(tmp_path: Any) -> None:
    config = prune(configs.dqn(), configs.pruning(remedies={"n_step": 3, "n_step_from": 90}))
    algo = configs.build(config)
    try:
        algo.train()
        assert algo.config.n_step == 3
        algo.save_checkpoint(str(tmp_path))
    finally:
        algo.stop()
    again = configs.build(config)
    try:
        assert again.config.n_step == 1
        again.load_checkpoint(str(tmp_path))
        assert again.config.n_step == 3
    finally:
        again.stop()
