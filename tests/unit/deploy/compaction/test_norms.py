"""Units go through norms: by hand, then what stays and why."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune import compact
from rayprune.deploy.compaction.live import TrainedNetwork, plan_live, prove_live
from rayprune.deploy.compaction.plan import apply_plan
from rayprune.pruning.measures.counting import count_parameters

DEAD = torch.arange(0, 16, 2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def net(norm: nn.Module, dead: Tensor = DEAD, *, conv: bool = False) -> nn.Sequential:
    """Return ``dead`` units that are constants, a norm, and a layer that doesn't read them."""
    one = nn.Conv2d(3, 16, 3) if conv else nn.Linear(6, 16)
    other = nn.Conv2d(16, 4, 3) if conv else nn.Linear(16, 3)
    one.weight[dead] = 0
    other.weight[:, dead] = 0
    for tensor in [*norm.parameters(), *norm.buffers()]:
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return nn.Sequential(one, norm, nn.ReLU(), other).eval()


def inputs(*, conv: bool = False, batch: int = 4) -> Tensor:
    return torch.randn(batch, *((3, 8, 8) if conv else (6,)))


def same(whole: nn.Module, small: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(small(x), whole(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "count"),
    [
        (nn.LayerNorm(16), 7 * 8 + 16 + 9 * 3),
        (nn.LayerNorm(16, elementwise_affine=False), 7 * 8 + 9 * 3),
        (nn.RMSNorm(16), 7 * 8 + 8 + 9 * 3),
        (nn.RMSNorm(16, eps=1e-6), 7 * 8 + 8 + 9 * 3),
        (nn.BatchNorm1d(16), 7 * 8 + 16 + 9 * 3),
        (nn.BatchNorm1d(16, affine=False), 7 * 8 + 9 * 3),
    ],
    ids=str,
)
def test_a_norm_loses_the_units_that_are_constant_and_unread(norm, count):
    whole = net(norm)
    small = compact(whole, inputs())
    assert count_parameters(small.module).total == count
    assert small.left == ()
    same(whole, small.module, inputs())


@pytest.mark.parametrize(
    ("norm", "count"),
    [
        (nn.BatchNorm2d(16), 28 * 8 + 16 + 4 * 8 * 9 + 4),
        (nn.InstanceNorm2d(16), 28 * 8 + 4 * 8 * 9 + 4),
        (nn.LayerNorm([16, 6, 6]), 28 * 8 + 2 * 8 * 36 + 4 * 8 * 9 + 4),
        (nn.LayerNorm([16, 6, 6], elementwise_affine=False), 28 * 8 + 4 * 8 * 9 + 4),
    ],
    ids=str,
)
def test_a_norm_of_images_loses_channels(norm, count):
    whole = net(norm, conv=True)
    small = compact(whole, inputs(conv=True))
    assert count_parameters(small.module).total == count
    same(whole, small.module, inputs(conv=True))


@pytest.mark.parametrize("affine", [True, False])
def test_a_group_norm_loses_whole_groups_only(affine):
    norm = nn.GroupNorm(4, 16, affine=affine)
    whole = net(norm, torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 12]), conv=True)
    small = compact(whole, inputs(conv=True))
    assert (small.module[1].num_groups, small.module[1].num_channels) == (2, 8)
    # Nothing reads channel 12 either, but it is in a group with channels that live.
    assert any("takes the mean of groups" in left.reason for left in small.left)
    same(whole, small.module, inputs(conv=True))


def test_a_unit_whose_weight_in_the_norm_is_zero_is_constant_behind_it():
    whole = net(nn.LayerNorm(16))
    with torch.no_grad():
        whole[3].weight.normal_()
        whole[1].weight[DEAD] = 0
    small = compact(whole, inputs())
    assert small.module[0].out_features == 8
    same(whole, small.module, inputs())


def test_a_unit_that_changes_stays_though_nothing_reads_it():
    whole = net(nn.RMSNorm(16))
    nn.init.normal_(whole[0].weight)
    small = compact(whole, inputs())
    assert small.removed == ()
    assert [(left.layer, left.units) for left in small.left] == [("0", 8)]
    assert "a norm takes the mean" in small.left[0].reason


def test_what_is_compacted_already_can_be_compacted_further():
    whole = net(nn.LayerNorm(16))
    once = compact(whole, inputs()).module
    with torch.no_grad():
        for layer, axis in ((whole[0].weight, 0), (whole[3].weight, 1)):
            layer.index_fill_(axis, torch.tensor([1, 3, 5]), 0)
        for layer, axis in ((once[0].weight, 0), (once[3].weight, 1)):
            layer.index_fill_(axis, torch.tensor([0, 1, 2]), 0)
    twice = compact(once, inputs()).module
    assert twice[0].out_features == 5
    assert "gone=11" in repr(twice)
    same(whole, twice, inputs())


def test_a_norm_used_twice_keeps_what_is_another_constant_each_time():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(6, 16), nn.Linear(6, 16), nn.LayerNorm(16)
            self.last = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.a(x)) + self.norm(self.b(x)))

    whole = Twice().eval()
    with torch.no_grad():
        whole.a.weight[DEAD] = whole.b.weight[DEAD] = 0
        whole.last.weight[:, DEAD] = 0
        whole.b.bias[DEAD[:4]] = whole.a.bias[DEAD[:4]]
    small = compact(whole, inputs())
    assert small.module.a.out_features == 12
    same(whole, small.module, inputs())


class Called(nn.Module):
    """A norm that is no module."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layers, self.kind = net(nn.LayerNorm(16)), kind
        self.scale, self.shift = nn.Parameter(torch.rand(16)), nn.Parameter(torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers[0](x)
        if self.kind == "layer_norm":
            y = functional.layer_norm(y, (16,), self.scale, self.shift)
        elif self.kind == "rms_norm":
            y = functional.rms_norm(y, (16,))
        elif self.kind == "by hand":
            y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        else:
            y = y / (1 + y.abs().sum(-1, keepdim=True))
        return self.layers[3](torch.relu(y))


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm", "by hand", "sum"])
def test_a_norm_that_is_no_module_keeps_what_constants_add_in_the_forward(kind):
    whole = Called(kind)
    small = compact(whole, inputs())
    assert small.module.layers[0].out_features == 8
    assert (small.module.scale.numel() == 8) == (kind == "layer_norm")
    same(whole, small.module, inputs(batch=7))
    again = copy.deepcopy(small.module)
    same(whole, again, inputs(batch=2))


def test_an_empty_layers_placeholder_is_no_zero_to_a_norm():
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dead, self.live = nn.Linear(6, 4), nn.Linear(6, 4)
            self.norm, self.last = nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            joined = torch.cat([self.dead(x), self.live(x)], -1)
            return self.last(self.norm(joined)) + joined.mean(-1, keepdim=True)

    whole = Beside().eval()
    with torch.no_grad():
        whole.dead.weight.zero_()
        whole.last.weight[:, :4] = 0
    small = compact(whole, inputs())
    assert small.module.dead.out_features == 1
    same(whole, small.module, inputs())


def live(module: nn.Sequential, masks: dict[str, Tensor]) -> TrainedNetwork:
    return TrainedNetwork(module, inputs(), lambda m, x: m(x), masks)


def masks_of(module: nn.Sequential) -> dict[str, Tensor]:
    return {f"{place}.weight": module[place].weight != 0 for place in (0, 3)}


def test_a_network_in_training_loses_units_through_its_norm():
    whole = net(nn.LayerNorm(16))
    given = live(whole, masks_of(whole))
    plan = plan_live(given)
    prove_live(given, plan)
    small = apply_plan(copy.deepcopy(whole), plan)
    assert small[1].weight.numel() == 8
    moments = torch.arange(16.0)
    assert plan.pick("1.weight", moments).tolist() == moments[1::2].tolist()


def test_a_norms_weight_that_is_zero_may_learn_again():
    whole = net(nn.LayerNorm(16))
    with torch.no_grad():
        whole[3].weight.normal_()
        whole[1].weight[DEAD] = 0
    assert plan_live(live(whole, masks_of(whole))).removed == ()


def test_a_batch_norm_in_training_keeps_units_until_its_statistics_have_come_to_them():
    whole = net(nn.BatchNorm1d(16))
    with torch.no_grad():
        whole[1].bias.zero_()
        whole[3].weight.normal_()
    given = live(whole, masks_of(whole))
    assert plan_live(given).removed == ()
    with torch.no_grad():
        whole[1].running_mean[DEAD] = whole[0].bias[DEAD]
    plan, x = plan_live(given), inputs()
    assert plan.removed[0].units == 8
    small = apply_plan(copy.deepcopy(whole), plan)
    for mode in (True, False):
        torch.testing.assert_close(small.train(mode)(x), whole.train(mode)(x), rtol=1e-5, atol=1e-5)
