"""What families say of values and policies of TQC and IQL, beside their modules' own outputs."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
import torch
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.core.columns import Columns

from rayprune.rllib.algorithms import family_of, family_of_module, teacher_kl
from tests.rllib import configs

ROWS = 6


def iql() -> Any:
    model = {"fcnet_hiddens": [8], "fusionnet_hiddens": [8], "head_fcnet_hiddens": []}
    return IQLConfig().environment("Pendulum-v1").rl_module(model_config=model)


def module_of(config: Any) -> Any:
    made = gym.make("Pendulum-v1")
    spec = config.get_multi_rl_module_spec(env=made, inference_only=False)
    module = spec.build()["default_policy"]
    module.make_target_networks()
    return module


def batch() -> dict[str, Any]:
    return {
        Columns.OBS: torch.randn(ROWS, 3),
        Columns.NEXT_OBS: torch.randn(ROWS, 3),
        Columns.ACTIONS: torch.rand(ROWS, 1),
        Columns.REWARDS: torch.randn(ROWS),
        Columns.TERMINATEDS: torch.tensor([True, *[False] * (ROWS - 1)]),
    }


@pytest.mark.parametrize(("make", "nets"), [(configs.tqc, 2), (iql, 3)])
def test_each_value_net_has_an_output_and_is_reached_by_the_error(make: Any, nets: int) -> None:
    config = make()
    module, given = module_of(config), batch()
    family = family_of_module(module)
    assert family is family_of(config)
    values = family.values(module, given, config, 0.5)
    assert [output.shape for output in values.outputs] == [(ROWS,)] * nets
    assert values.targets[0] == given[Columns.REWARDS][0]  # nothing follows an end
    values.error(None).backward()
    critics = [n for n, _ in module.named_parameters() if n.startswith(("qf", "vf"))]
    reached = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n.rpartition(".")[0] for n in critics} <= {n.rpartition(".")[0] for n in reached}


def test_tqc_s_targets_leave_the_highest_quantiles_out() -> None:
    config = configs.tqc().training(top_quantiles_to_drop_per_net=2)
    module, given = module_of(config), batch()
    with torch.no_grad():
        for head in module.target_qf_heads:
            for layer in head.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.weight.zero_()
                    layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 100.0, 1000.0]))
    values = family_of(config).values(module, given, config, 0.0)
    expected = given[Columns.REWARDS] + config.gamma * 2.0
    assert torch.allclose(values.targets[1:], expected[1:])


@pytest.mark.parametrize("make", [configs.tqc, iql])
def test_a_policy_is_no_distance_from_itself_and_some_from_another(make: Any) -> None:
    student, teacher, given = module_of(make()), module_of(make()), batch()
    outputs = student.forward_train(given)
    seen = {Columns.OBS: given[Columns.OBS]}
    own = teacher_kl(student, student, outputs, seen, 1.0)
    other = teacher_kl(student, teacher, outputs, seen, 1.0)
    assert own is not None
    assert other is not None
    assert own.abs().max() < 1e-5 < other.min()
