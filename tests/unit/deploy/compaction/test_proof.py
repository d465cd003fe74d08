"""The proof: what it finds, what it lets pass, and what it writes down."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from rayprune import compact
from rayprune.deploy.compaction.plan import apply_plan
from rayprune.deploy.compaction.planner import plan_compaction
from rayprune.deploy.compaction.proof import error_between, hash_of, prove
from rayprune.errors import InvariantError


def a_pruned_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)
    )  # fmt: skip
    nn.init.zeros_(net[0].weight[2])
    nn.init.zeros_(net[4].weight[:, 1])
    return net.eval()


def test_weights_that_torch_computes_are_proven_as_they_are_read():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 6)), nn.Linear(6, 2))
    nn.init.zeros_(net[1].weight[:, 2])
    x = torch.randn(4, 3)
    small = compact(net, x)
    assert small.module[0].out_features == 5
    assert prove(net, small.module, small.plan, x)["errors"]["f64"] < 1e-12


def best(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.argmax(-1)


def test_the_certificate_says_what_was_compared_and_is_plain_json():
    net, example = a_pruned_net(), torch.randn(2, 3)
    small = compact(net, example)
    recorded = [torch.randn(5, 3), torch.randn(7, 3)]
    proof = prove(
        net, small.module, small.plan, example, act=best, observations=recorded, random=3, seed=9
    )
    assert json.loads(json.dumps(proof)) == proof
    assert proof["observations"]["recorded"] == 12
    assert proof["observations"]["random"] == 6
    assert proof["errors"]["f32"] <= 1e-5
    assert proof["errors"]["f64"] <= 1e-12
    assert proof["actions"] == "equal"
    assert proof["removed"][0] == {"layer": "0", "kind": "neuron", "units": 1, "of": 6}
    assert proof["parameters"] == {"before": 83, "after": 64}
    assert proof["sha256"] == {"masked": hash_of(net), "small": hash_of(small.module)}
    other = prove(net, small.module, small.plan, example, observations=recorded[:1])
    assert other["observations"]["sha256"] != proof["observations"]["sha256"]


@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_the_first_layer_that_departs_is_named(layer):
    net, example = a_pruned_net(), torch.randn(2, 3)
    small = compact(net, example)
    with torch.no_grad():
        small.module.get_submodule(layer).weight[0, 0] += 0.1
    with pytest.raises(InvariantError, match=f"first in layer '{layer}'"):
        prove(net, small.module, small.plan, example)


def test_a_difference_that_only_recorded_observations_show_is_found():
    net, example = a_pruned_net(), torch.zeros(2, 3)
    small = compact(net, example)
    wrong = copy.deepcopy(small.module)
    with torch.no_grad():
        wrong[0].weight[0] = -net[0].weight[0]  # zeros can't tell
    prove(net, small.module, small.plan, example, observations=[torch.randn(16, 3)], random=0)
    prove(net, wrong, small.plan, example, random=0)
    with pytest.raises(InvariantError, match="departs from the masked one"):
        prove(net, wrong, small.plan, example, observations=[torch.randn(16, 3)], random=0)


def test_other_actions_are_a_failure_although_outputs_agree_within_the_bound():
    net, example = a_pruned_net(), torch.randn(2, 3)
    with torch.no_grad():
        net[4].weight[1] = net[4].weight[0]
        net[4].bias.copy_(torch.tensor([5.0, 5.0 - 1e-6, 0.0, 0.0]))
    small = compact(net, example)
    with torch.no_grad():
        small.module[4].bias[1] += 3e-6
    prove(net, small.module, small.plan, example)
    with pytest.raises(InvariantError, match="chooses other actions in f32"):
        prove(net, small.module, small.plan, example, act=best)


def test_a_plan_that_forgets_a_constant_fails_in_double_precision_too():
    net, example = a_pruned_net(), torch.randn(2, 3)
    nn.init.constant_(net[0].bias, 1.0)
    plan = plan_compaction(net, example)
    assert plan.folds
    forgetful = copy.copy(plan)
    object.__setattr__(forgetful, "folds", {})
    small = apply_plan(copy.deepcopy(net), plan)
    with pytest.raises(InvariantError, match="in f64"):
        prove(net, small, forgetful, example)


def test_errors_are_shares_of_outputs_above_one():
    one, other = torch.tensor([1000.0, 0.5]), torch.tensor([1001.0, 0.25])
    assert error_between(one, other) == 0.25
    assert error_between(torch.tensor([1000.0]), torch.tensor([1001.0])) == pytest.approx(1e-3)


def test_nan_and_other_shapes_are_infinitely_wrong():
    ones = torch.ones(2)
    assert error_between(ones, ones * torch.nan) == float("inf")
    assert error_between(ones, torch.ones(3)) == float("inf")
    assert error_between({"a": ones}, {"a": ones, "b": ones}) == float("inf")
    assert error_between(ones * torch.inf, ones * torch.inf) == 0


def test_a_hash_changes_with_one_bit_and_with_a_name():
    net = nn.Linear(2, 2)
    other = copy.deepcopy(net)
    assert hash_of(net) == hash_of(other)
    other.weight.data[0, 0] = torch.nextafter(other.weight.data[0, 0], torch.tensor(9.0))
    assert hash_of(net) != hash_of(other)
    assert hash_of(net) != hash_of(nn.Sequential(net))
