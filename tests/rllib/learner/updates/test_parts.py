"""Where a user's Learner, module or config does a part in its own way, RLlib's code runs."""

from __future__ import annotations

import functools
import logging
from typing import Any

import pytest
import torch
from ray.rllib.algorithms.appo.torch.appo_torch_learner import APPOTorchLearner
from ray.rllib.algorithms.cql.torch.cql_torch_learner import CQLTorchLearner
from ray.rllib.algorithms.impala.torch.impala_torch_learner import IMPALATorchLearner
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.rllib.learner.updates.parts import GRAPH, LOSS, METHODS, STEP, TARGETS, LeanParts
from tests.doubles import learners
from tests.rllib import configs
from tests.rllib.learner.updates import twins
from tests.rllib.learner.updates.test_updates import EPOCHS, check_twins, ppo

pytestmark = pytest.mark.timeout(120)


class _Stub:
    """As much of a Learner as its parts are chosen by."""

    def __init__(self, config: Any) -> None:
        self.config = config


def parts_of(cls: type = PPOTorchLearner, config: Any = None, **how: Any) -> LeanParts:
    config = (config or configs.ppo()).learners(learner_config_dict={"rayprune_lean": True})
    for name, value in how.items():
        setattr(config, name, value)
    return LeanParts(type("Learner", (_Stub, cls), {"__module__": "rayprune.x"})(config))


def with_method(name: str) -> type:
    return type("Own", (PPOTorchLearner,), {name: lambda self: None, "__module__": "mine"})


@pytest.mark.parametrize("part", METHODS)
def test_a_part_is_left_to_the_user_s_own_method(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in METHODS[part]:
        with caplog.at_level(logging.DEBUG, logger="rayprune"):
            assert part not in parts_of(with_method(name))
        assert f"RLlib's own {part} of the Learner" in caplog.text
        assert f"a `{name}` of the user's" in caplog.text or part == TARGETS


@pytest.mark.parametrize("part", [part for part in METHODS if part != TARGETS])
def test_ppo_is_lean_in_all_parts(part: str) -> None:
    assert part in parts_of()


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        (STEP, {"torch_compile_learner": True}),
        (GRAPH, {"num_learners": 2}),
        ("counts of steps", {"stats_cls_lookup": {}}),
        ("gradients", {"_torch_grad_scaler_class": object}),
        ("gradients", {"_torch_lr_scheduler_classes": [object]}),
    ],
)
def test_a_config_may_ask_for_what_only_rllib_does(part: str, settings: Any) -> None:
    assert part not in parts_of(**settings)


def test_what_updates_in_a_thread_logs_as_it_did() -> None:
    parts = parts_of(IMPALATorchLearner)
    assert LOSS not in parts
    assert GRAPH not in parts
    assert STEP in parts
    assert STEP not in parts_of(IMPALATorchLearner, num_learners=2)


def test_nothing_is_lean_when_lean_is_false() -> None:
    config = configs.ppo()
    assert not any(part in LeanParts(_StubPPO(config)) for part in METHODS)


class _StubPPO(_Stub, PPOTorchLearner):
    pass


def test_a_function_put_on_one_learner_counts_as_the_user_s() -> None:
    config = configs.ppo().learners(learner_config_dict={"rayprune_lean": True})
    learner = _StubPPO(config)
    learner.compute_loss_for_module = lambda **given: None
    parts = LeanParts(learner)
    assert LOSS not in parts
    assert STEP in parts


@pytest.mark.parametrize(
    "cls",
    [
        learners.Plain,
        learners.Centralising,
        learners.NoiseBeforeClipping,
        learners.NoiseAfterClipping,
    ],
)
def test_users_learners_learn_as_with_rllib_s_own_loop(cls: type) -> None:
    config = ppo(grad_clip=0.5).learners(learner_class=cls)
    check_twins(config)


class Counting(DefaultPPOTorchRLModule):
    """Does something beside its arithmetic."""

    forwards = 0

    def _forward_train(self, batch: Any, **kwargs: Any) -> Any:
        type(self).forwards += 1
        return super()._forward_train(batch, **kwargs)


def test_a_user_s_module_is_run_for_every_minibatch() -> None:
    config = ppo().rl_module(rl_module_spec=RLModuleSpec(module_class=Counting))
    lean = twins.twins(config, plasticity=None)[1]
    Counting.forwards = 0
    batch = twins.ppo_batch(lean, 80)
    twins.after_updates(lean, lambda: iter([batch]), **EPOCHS)
    assert Counting.forwards >= 15
    assert lean._replays.are_off


def test_torch_s_schedulers_are_stepped_as_before() -> None:
    falls = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    config = ppo().experimental(_torch_lr_scheduler_classes=[falls])
    check_twins(config)


def test_a_loss_that_nobody_has_read_is_computed_each_time() -> None:
    assert GRAPH not in parts_of(APPOTorchLearner)
    assert GRAPH in parts_of(CQLTorchLearner, configs.sac())
    assert TARGETS in parts_of(SACTorchLearner)
