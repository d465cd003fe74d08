"""While masks change, a Gaussian policy explores as widely as at the first cut."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.learner.deviations import HeadDeviation
from rayprune.rllib.models import PrunableMLP
from tests.rllib import configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

SHRINKS = [[0, -10.0], [1_000_000, -10.0]]
RLLIBS = RLModuleSpec(model_config={"fcnet_hiddens": [16, 16]})
FREE = RLModuleSpec(model_config={"fcnet_hiddens": [16, 16], "free_log_std": True})
OURS = RLModuleSpec(
    module_class=PrunableMLP,
    model_config={"policy_hiddens": [16], "value_hiddens": [16], "free_log_std": True},
)


def ppo(spec: RLModuleSpec = FREE, *, hold: bool = True, end: int = 1000) -> Any:
    """PPO on Pendulum, of which a negative bonus makes the deviation shrink at each step."""
    config = configs.ppo("Pendulum-v1").training(entropy_coeff=SHRINKS, lr=0.01)
    config.rl_module(model_config={}, rl_module_spec=spec)
    ramp = {"kind": "cubic", "begin": 400, "end": end, "every": 200}
    return prune(config, configs.pruning(schedule=ramp, remedies={"hold_deviation": hold}))


def deviations(algo: Any) -> list[float]:
    """Return the log-std of each Learner, in some states on average."""
    angles = torch.linspace(-3.0, 3.0, 24)
    states = torch.stack([angles.cos(), angles.sin(), angles.flip(0)], dim=1)

    def mean(learner: Any) -> float:
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        with torch.no_grad():
            out = module.forward_inference({Columns.OBS: states})[Columns.ACTION_DIST_INPUTS]
        return float(out[:, 1].mean())

    return list(foreach_learner(algo, mean))


def trained(algo: Any, iterations: int) -> list[float]:
    """Return the first Learner's log-std after each iteration."""
    found = []
    for _ in range(iterations):
        algo.train()
        found.append(deviations(algo)[0])
    return found


@pytest.mark.parametrize("spec", [FREE, OURS], ids=["RLlib's head", "ours"])
def test_a_free_deviation_is_held_from_the_first_cut_to_the_last(spec: RLModuleSpec) -> None:
    algo = configs.build(ppo(spec))
    try:
        found = trained(algo, 7)
        assert found[1] < found[0] < 0  # before the ramp it shrinks
        # The first cut is at step 600: at 400 the ramp is at zero.
        assert found[3] == pytest.approx(found[2], abs=1e-6)
        assert found[6] < found[5] < found[4] < found[3] - 0.01  # from 1,000 on masks are final
        weights = algo.env_runner.module.state_dict()
        held = [value for name, value in weights.items() if name.endswith("log_std")]
        assert float(held[0].mean()) == pytest.approx(found[-1])
    finally:
        algo.stop()


def test_one_that_depends_on_the_state_is_held_on_average() -> None:
    algo = configs.build(ppo(RLLIBS))
    try:
        found = trained(algo, 6)
        fall = found[0] - found[1]
        assert fall > 0.05
        assert found[3] > found[2] - fall / 2
        assert found[5] < found[3] - fall
    finally:
        algo.stop()


def test_without_the_remedy_it_shrinks() -> None:
    algo = configs.build(ppo(hold=False))
    try:
        found = trained(algo, 5)
        assert found == sorted(found, reverse=True)
        assert len(set(found)) == 5
    finally:
        algo.stop()


def test_a_run_that_goes_on_from_its_checkpoint_holds_what_was_noted(tmp_path: Any) -> None:
    algo = configs.build(ppo())
    try:
        noted = trained(algo, 3)[-1]
        checkpoints.save(algo, tmp_path / "at", None, {})
        straight = trained(algo, 1)[0]
    finally:
        algo.stop()
    again = configs.build(ppo())
    try:
        checkpoints.restore(again, tmp_path / "at")
        assert trained(again, 1)[0] == straight == pytest.approx(noted, abs=1e-6)
    finally:
        again.stop()


@pytest.mark.slow
@pytest.mark.parametrize("spec", [FREE, RLLIBS], ids=["free", "of the state"])
def test_two_learners_hold_the_same(spec: RLModuleSpec) -> None:
    algo = configs.build(ppo(spec, end=4000).learners(num_learners=2))
    try:
        trained(algo, 3)
        noted = deviations(algo)
        algo.train()
        now = deviations(algo)
        assert now[0] == now[1]
        assert now[0] > noted[0] - 0.02
    finally:
        algo.stop()


def test_where_there_is_no_deviation_nothing_is_held() -> None:
    pruning = configs.pruning(remedies={"hold_deviation": True})
    algo = configs.build(prune(configs.ppo(), pruning))
    try:
        algo.train()
        held = foreach_learner(algo, lambda learner: learner._modules.events.get_state())
        assert held[0]["held_deviation"] == {}
    finally:
        algo.stop()


class Unsure(DefaultPPOTorchRLModule):
    """A user's module that names no distribution, or fails where the Learner looks."""

    def get_train_action_dist_cls(self) -> Any:
        if sys._getframe(1).f_code.co_name == "deviation_of":
            raise NotImplementedError
        return super().get_train_action_dist_cls()


def test_a_module_that_names_no_distribution_trains_on() -> None:
    spec = RLModuleSpec(module_class=Unsure, model_config=RLLIBS.model_config)
    algo = configs.build(ppo(spec))
    try:
        found = trained(algo, 4)
        assert found == sorted(found, reverse=True)  # nothing is held, and nothing fails
    finally:
        algo.stop()


def test_a_forward_that_fails_holds_nothing_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    layer = torch.nn.Linear(2, 4)
    held = HeadDeviation(layer, layer.bias)
    before = layer.bias.detach().clone()
    assert held.level({}) is None
    assert held.level({"obs": torch.zeros(3, 2)}) is None
    held.hold(torch.ones(2), {"obs": torch.zeros(3, 2)})
    assert torch.equal(layer.bias, before)
    assert "can't be told, and isn't held" in caplog.text
