"""Compaction, on networks small enough to follow by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from rayprune import Pruner, PruningConfig, compact, make_maskable
from rayprune.errors import InputError
from tests.unit.deploy.compaction.compacted import assert_same, reasons, removed, zero


def test_a_unit_that_nothing_reads_goes():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    zero(net[2].weight[:, 1])
    small = compact(net, torch.randn(4, 2))
    assert removed(small) == {"0": 1}
    assert small.module[0].weight.tolist() == net[0].weight[[0, 2]].tolist()
    assert small.module[2].weight.tolist() == net[2].weight[:, [0, 2]].tolist()
    assert small.module[2].bias.tolist() == net[2].bias.tolist()
    assert (small.module[0].out_features, small.module[2].in_features) == (2, 2)
    assert net[0].out_features == 3


def test_a_unit_that_nothing_reaches_is_folded_into_the_next_bias():
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [0.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 3.0]))
        net[2].weight.copy_(torch.tensor([[1.0, 0.5]]))
        net[2].bias.fill_(1.0)
    small = compact(net, torch.randn(4, 1))
    # relu(3) * 0.5 = 1.5 joins the bias of 1.
    assert small.module[2].bias.item() == 2.5
    assert small.module[2].weight.tolist() == [[1.0]]


def test_dead_units_are_followed_through_all_layers_in_both_directions():
    net = nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 4), nn.ReLU(),
        nn.Linear(4, 2),
    )  # fmt: skip
    with torch.no_grad():
        zero(net[0].weight[:3])
        net[2].weight[0, 3:] = 0  # reads constants only, and so is one
        zero(net[6].weight[:, 1])
        net[4].weight[[0, 2, 3], 4] = 0  # read by a unit only that nothing reads
    small = compact(net, torch.randn(3, 4))
    assert removed(small) == {"0": 3, "2": 2, "4": 1}
    assert_same(net, small, torch.zeros(9, 4))


def test_a_layer_keeps_one_unit_and_it_is_zero():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))
    zero(net[0].weight)
    small = compact(net, torch.randn(3, 3))
    assert removed(small) == {"0": 3}
    assert small.module[0].weight.tolist() == [[0.0] * 3]
    assert small.module[2].weight.tolist() == [[0.0]] * 2
    assert_same(net, small, torch.zeros(9, 3))


def test_outputs_keep_their_shape_even_where_they_are_constant():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    zero(net[2].weight)
    small = compact(net, torch.randn(4, 2))
    assert small.module[2].weight.shape == (2, 1)
    assert_same(net, small, torch.zeros(3, 2))


def test_a_constant_filter_goes_where_no_zeros_surround_it():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten())
    with torch.no_grad():
        zero(net[0].weight[1])
        net[0].bias[1] = 2.0
    small = compact(net, torch.randn(2, 1, 5, 5))
    assert removed(small) == {"0": 1}
    assert_same(net, small, torch.zeros(2, 1, 5, 5))


@pytest.mark.parametrize("pads", ["in the layer", "by a layer of its own"])
def test_a_filter_that_is_zero_goes_although_zeros_surround_it(pads):
    own = pads == "by a layer of its own"
    pad = nn.ZeroPad2d(1) if own else nn.Identity()
    second = nn.Conv2d(4, 2, 3, padding=0 if own else 1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), pad, second)
    with torch.no_grad():
        zero(net[0].weight[1])
        net[0].bias[1] = -2.0
    small = compact(net, torch.randn(2, 1, 6, 6))
    assert removed(small) == {"0": 1}
    assert_same(net, small, torch.zeros(2, 1, 6, 6))


@pytest.mark.parametrize("pads", ["in the layer", "by a layer of its own"])
def test_of_constant_filters_that_zeros_surround_one_carries_the_others(pads):
    own = pads == "by a layer of its own"
    pad = nn.ZeroPad2d(1) if own else nn.Identity()
    second = nn.Conv2d(5, 2, 3, padding=0 if own else 1)
    net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Tanh(), pad, second)
    with torch.no_grad():
        zero(net[0].weight[1:4])
        net[0].bias[1:4] = torch.tensor([0.1, -2.0, 0.4])
    small = compact(net, torch.randn(2, 1, 6, 6))
    assert removed(small) == {"0": 2}
    assert small.module[0].bias[1] == -2.0  # the strongest
    share = torch.tanh(net[0].bias[[1, 3]]) / torch.tanh(net[0].bias[2])
    weight = net[3].weight
    carried = weight[:, 2] + share[0] * weight[:, 1] + share[1] * weight[:, 3]
    assert torch.allclose(small.module[3].weight[:, 1], carried)
    assert "0: they are constant, but '3' has zeros around them" in reasons(small)
    assert_same(net, small, torch.zeros(2, 1, 6, 6))


def test_a_layer_without_bias_keeps_one_constant_for_all():
    net = nn.Sequential(nn.Linear(2, 5), nn.Sigmoid(), nn.Linear(5, 2, bias=False))
    zero(net[0].weight[:3])
    small = compact(net, torch.randn(4, 2))
    assert removed(small) == {"0": 2}
    assert_same(net, small, torch.zeros(4, 2))


def test_flattening_takes_all_places_of_a_filter_along():
    net = nn.Sequential(
        nn.Conv1d(2, 3, 2), nn.ELU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(6, 2)
    )
    zero(net[0].weight[2])
    small = compact(net, torch.randn(3, 2, 5))
    assert small.module[0].weight.shape == (2, 2, 2)
    assert small.module[4].weight.shape == (2, 4)
    assert_same(net, small, torch.zeros(3, 2, 5))


class Residual(nn.Module):
    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.stem, self.inner = nn.Linear(3, 5), nn.Linear(5, 4)
        self.back, self.head = nn.Linear(4, 5), nn.Linear(5, 2)
        self.norm = nn.LayerNorm(5) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(self.norm(x + self.back(torch.tanh(self.inner(x)))))


def test_a_residual_block_that_adds_nothing_loses_its_inside():
    net = Residual()
    zero(net.back.weight, net.back.bias)
    small = compact(net, torch.randn(3, 3))
    assert removed(small) == {"inner": 3}
    assert_same(net, small, torch.zeros(7, 3))


def test_a_unit_of_a_residual_stream_goes_only_as_a_whole():
    net = Residual()
    zero(net.head.weight[:, 0], net.head.weight[:, 1], net.inner.weight[:, 1])
    small = compact(net, torch.randn(3, 3))
    # Unit 0 is still read inside the block.
    assert removed(small) == {"stem": 1, "back": 1}
    assert_same(net, small, torch.zeros(7, 3))


def test_a_layer_norm_keeps_what_it_takes_the_mean_of():
    net = Residual(norm=True)
    zero(net.head.weight[:, 1], net.inner.weight[:, 1], net.back.weight[:, 2])
    small = compact(net, torch.randn(3, 3))
    assert removed(small) == {"inner": 1}
    assert "stem: nothing reads them, but they change, and a norm takes the mean" in reasons(small)
    assert_same(net, small, torch.zeros(7, 3))


class TwoHeads(nn.Module):
    """A shared encoder, a dueling head, and a log-std that is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6)
        self.advantage = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        self.value = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))
        self.log_std = nn.Parameter(torch.full((3,), 0.5))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = torch.tanh(self.encoder(x))
        advantage = self.advantage(x)
        q = self.value(x) + advantage - advantage.mean(-1, keepdim=True)
        return {"q": torch.cat([q, self.log_std.expand_as(q)], -1)}


def test_a_shared_encoder_keeps_what_either_head_reads():
    net = TwoHeads()
    zero(net.advantage[0].weight[:, :2], net.value[0].weight[:, 1:3])
    zero(net.value[2].weight[:, 4])
    small = compact(net, torch.randn(3, 4))
    assert removed(small) == {"encoder": 1, "value.0": 1}
    assert_same(net, small, torch.zeros(7, 4))


class Twins(nn.Module):
    """Two Q-networks over observation and action, as SAC has them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (
            nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1)) for _ in range(2)
        )

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([obs, action], dim=-1)
        return torch.minimum(self.one(x), self.other(x))


def test_twin_networks_shrink_each_by_itself():
    net = Twins()
    zero(net.one[0].weight[:2], net.other[2].weight[:, 5])
    small = compact(net, (torch.randn(3, 3), torch.randn(3, 2)))
    assert removed(small) == {"one.0": 2, "other.0": 1}
    assert_same(net, small, (torch.zeros(7, 3), torch.zeros(7, 2)))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([torch.relu(self.left(x)), torch.tanh(self.right(x))], -1))


def test_columns_of_a_concatenation_belong_to_their_own_layers():
    net = Concatenated()
    zero(net.left.weight[1], net.head.weight[:, 6])
    small = compact(net, torch.randn(3, 3))
    assert removed(small) == {"left": 1, "right": 1}
    assert torch.equal(small.module.head.weight, net.head.weight[:, [0, 2, 3, 4, 5, 7]])
    assert_same(net, small, torch.zeros(7, 3))


def test_a_layer_that_runs_twice_shrinks_for_both_runs():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(3, 5), nn.Linear(10, 2)

        def forward(self, now: Tensor, then: Tensor) -> Tensor:
            codes = [torch.relu(self.encoder(x)) for x in (now, then)]
            return self.head(torch.cat(codes, -1))

    net = Twice()
    zero(net.head.weight[:, :2], net.head.weight[:, 6])
    given = (torch.randn(3, 3), torch.randn(3, 3))
    small = compact(net, given)
    assert removed(small) == {"encoder": 1}  # unit 0 is read of `then`
    assert_same(net, small, given)


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    net[2].weight = net[0].weight
    zero(net[4].weight[:, 2])
    small = compact(net, torch.randn(3, 4))
    assert small.module[0].weight is small.module[2].weight
    assert_same(net, small, torch.zeros(3, 4))


def test_an_embedding_tied_to_the_last_layer_loses_the_units_that_both_can_do_without():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.symbols, self.hidden = nn.Embedding(7, 6), nn.Linear(6, 6)
            self.out = nn.Linear(6, 7, bias=False)
            self.out.weight = self.symbols.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.hidden(self.symbols(x))))

    net = Tied()
    zero(net.symbols.weight[:, 1], net.hidden.weight[:, 1])
    small = compact(net, torch.arange(7))
    assert removed(small) == {"symbols": 1, "hidden": 1}
    assert small.module.out.weight is small.module.symbols.weight
    torch.testing.assert_close(small.module(torch.arange(7)), net(torch.arange(7)))


@pytest.mark.parametrize("slopes", [6, 1])
def test_units_before_a_prelu_go_with_their_slopes(slopes):
    net = nn.Sequential(nn.Linear(3, 6), nn.PReLU(slopes), nn.Linear(6, 2))
    with torch.no_grad():
        net[1].weight.uniform_(-1.0, 1.0)
    zero(net[0].weight[1], net[2].weight[:, 4])
    with torch.no_grad():
        net[0].bias[1] = -1.0
    small = compact(net, torch.randn(5, 3))
    assert removed(small) == {"0": 2}
    assert small.module[1].num_parameters == small.module[1].weight.numel() == max(1, slopes - 2)
    assert_same(net, small, torch.zeros(5, 3))


def test_a_weight_that_is_read_both_ways_loses_the_same_units():
    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.layer(x)) @ self.layer.weight

    net = Embedding()
    zero(net.layer.weight[1])
    small = compact(net, torch.randn(3, 4))
    assert removed(small) == {"layer": 1}
    assert_same(net, small, torch.zeros(3, 4))


def test_units_that_an_unknown_operator_reads_stay_and_the_operator_is_named():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cumsum(self.second(torch.relu(self.first(x))), -1))

    net = Attention()
    zero(net.first.weight[0], net.second.weight[0])
    small = compact(net, torch.randn(3, 3))
    assert removed(small) == {"first": 1}
    assert "second: `aten.cumsum` is not among the operators" in reasons(small)
    assert_same(net, small, torch.zeros(5, 3))


def test_a_half_keeps_a_unit_whose_counterpart_in_the_other_half_lives():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(3, 8), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            value, gate = self.layer(x).chunk(2, -1)
            return self.head(value * torch.sigmoid(gate))

    net = Gated()
    zero(net.layer.weight[0], net.head.weight[:, 2])
    small = compact(net, torch.randn(3, 3))
    assert removed(small) == {"layer": 2}
    assert "layer: no weight reaches them, but they can only go together" in reasons(small)


def test_units_that_a_view_lays_out_in_a_block_stay_with_those_that_live():
    class Literal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x)).view(x.shape[0], 2, 3).flatten(1)
            return self.head(torch.relu(self.second(x)))

    net = Literal()
    zero(net.first.weight[0], net.second.weight[1])
    small = compact(net, torch.randn(4, 3))
    assert removed(small) == {"second": 1}
    assert "first: the forward lays them out in a block with units that live" in reasons(small)
    assert_same(net, small, torch.zeros(5, 3))


def test_a_group_whose_output_is_read_stays():
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten())
    zero(net[0].weight[1])
    small = compact(net, torch.randn(2, 2, 4, 4))
    assert removed(small) == {}
    assert "0: the forward lays them out in a block with units that live" in reasons(small)


def test_inplace_activations_are_followed():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    zero(net[0].weight[1])
    small = compact(net, torch.randn(4, 2))
    assert removed(small) == {"0": 1}
    assert_same(net, small, torch.zeros(5, 2))


def test_a_forward_that_writes_into_parts_of_a_tensor_is_left_alone():
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(2, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(x)
            x[:, 0].mul_(2.0)
            return self.head(x)

    net = Writes()
    zero(net.layer.weight[1])
    small = compact(net, torch.randn(4, 2))
    assert removed(small) == {}
    assert "writes into a tensor" in reasons(small)


def test_masked_layers_come_back_as_torchs_own():
    net = make_maskable(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)))
    pruner = Pruner(net, PruningConfig(granularity="neuron", sparsity=0.5))
    pruner.prune_to(0.5)
    small = compact(net, torch.randn(3, 4))
    assert [type(layer) for layer in small.module] == [nn.Linear, nn.Tanh, nn.Linear]
    assert small.module[0].out_features == 4
    assert_same(net, small, torch.zeros(5, 4))


def test_what_the_forward_does_not_reach_stays():
    net = TwoHeads()
    zero(net.advantage[0].weight[0], net.value[0].weight[0])
    small = compact(net, torch.randn(3, 4), forward=lambda m, x: m.value(relu(m.encoder(x))))
    assert removed(small) == {"value.0": 1}


def test_training_mode_and_frozen_parameters_are_kept():
    net = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    net[2].weight.requires_grad_(False)
    zero(net[2].weight[:, 1])
    small = compact(net, torch.randn(4, 2)).module
    assert small.training
    assert not small[2].weight.requires_grad
    assert small[0].weight.requires_grad


def test_a_forward_that_fails_is_an_input_error():
    with pytest.raises(InputError, match="The forward fails on `example_input`"):
        compact(nn.Linear(2, 1), torch.zeros(1, 3))
