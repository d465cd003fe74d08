"""Granularity ``head``: whole heads of attention go."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.granularity.sensors import find_sensors


class Net(nn.Module):
    """Two attention layers between Linear ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(6, 8)
        self.one = nn.MultiheadAttention(8, 4, batch_first=True)
        self.two = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = y + self.one(y, y, y, need_weights=False)[0]
        return self.out(y + self.two(y, x, x, need_weights=False)[0]).mean(1)


def test_the_heads_of_the_least_magnitude_go_with_all_that_is_theirs() -> None:
    net = Net()
    with torch.no_grad():
        for head, size in enumerate((3.0, 1.0, 4.0, 2.0)):
            rows = slice(2 * head, 2 * head + 2)
            net.one.in_proj_weight.view(3, 8, 8)[:, rows] = size
            net.one.out_proj.weight[:, rows] = size
    pruner = Pruner(net, PruningConfig(granularity="head", sparsity=0.5))
    pruner.prune_to(0.5)
    stays = torch.tensor([True, True, False, False, True, True, False, False])
    assert torch.equal(net.one.in_proj_weight != 0, stays.repeat(3)[:, None].expand(24, 8))
    assert torch.equal(net.one.out_proj.weight != 0, stays[None].expand(8, 8))
    # Of the other, of separate projections, one of two.
    gone = net.two.q_proj_weight.eq(0).all(1)
    assert gone.sum() == 4
    for weight in (net.two.k_proj_weight, net.two.v_proj_weight):
        assert torch.equal(weight.eq(0).all(1), gone)
    assert torch.equal(net.two.out_proj.weight.eq(0).all(0), gone)
    assert pruner.sparsity() == 0.5
    assert {layer.name for layer in pruner.prunable} == {"one", "two"}


@pytest.mark.parametrize("criterion", ["fisher", "wanda", "taylor"])
def test_heads_are_scored_by_what_data_tell_of_their_weights(criterion: str) -> None:
    net, x = Net(), torch.randn(4, 3, 6)
    with torch.no_grad():
        net.one.out_proj.weight[:, :2] = 0  # nothing of the first head arrives
        net.one.in_proj_weight.view(3, 8, 8)[2, :2] = 0
    pruner = Pruner(net, PruningConfig(granularity="head", criterion=criterion, sparsity=0.25))
    pruner.prune_to(0.25, batch=x, loss=lambda net, x: net(x).square().mean())
    assert not pruner.masks["one.in_proj_weight"][:2].any()
    assert pruner.masks["one.in_proj_weight"][2:8].all()


def test_what_heads_are_not_for_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match=r"no nn\.MultiheadAttention of more than one head"):
        Pruner(nn.Linear(2, 2), PruningConfig(granularity="head", sparsity=0.5))
    with pytest.raises(ConfigError, match="'head' takes many of them together"):
        PruningConfig(granularity="head", sparsity=0.5, criterion="shapley")
    with pytest.raises(ConfigError, match="must be 'neuron', but is 'head'"):
        PruningConfig(
            granularity="head", sparsity=0.5, penalty={"kind": "group_lasso", "strength": 0.1}
        )


def test_an_attention_layer_that_is_frozen_in_part_keeps_its_heads() -> None:
    net = Net()
    net.one.out_proj.weight.requires_grad_(False)
    pruner = Pruner(net, PruningConfig(granularity="head", sparsity=0.5))
    assert [layer.name for layer in pruner.prunable] == ["two"]


@pytest.mark.parametrize("criterion", ["l1", "information_gain"])
def test_under_granularity_neuron_a_query_goes_with_its_key(criterion: str) -> None:
    net, x = Net(), torch.randn(4, 3, 6)
    pruner = Pruner(
        net, PruningConfig(granularity="neuron", criterion=criterion, sparsity=0.5), heads=["out"]
    )
    pruner.prune_to(0.5, batch=x, loss=lambda net, x: net(x).square().mean())
    queries, keys, values = net.one.in_proj_weight.eq(0).all(1).view(3, 8)
    assert torch.equal(queries, keys)
    # Half of 8 pairs, 8 values and 8 rows of the output's.
    for attention in (net.one, net.two):
        dead = attention.out_proj.weight.eq(0).all(1).sum()
        if attention is net.one:
            dead += queries.sum() + values.sum()
        else:
            pairs = net.two.q_proj_weight.eq(0).all(1)
            assert torch.equal(pairs, net.two.k_proj_weight.eq(0).all(1))
            dead += pairs.sum() + net.two.v_proj_weight.eq(0).all(1).sum()
        assert int(dead) == 12


def test_sensors_are_seen_through_keys_and_refused_where_queries_are_others() -> None:
    class Reads(nn.Module):
        def __init__(self, *, own_query: bool) -> None:
            super().__init__()
            self.m, self.own_query = nn.MultiheadAttention(4, 2, batch_first=True), own_query
            self.query = nn.Parameter(torch.randn(1, 1, 4))

        def forward(self, x: Tensor) -> Tensor:
            token = x[:, None]
            out: Tensor = self.m(self.query if self.own_query else token, key=token, value=token)[0]
            return out

    net = Reads(own_query=False)
    found = find_sensors({"m": net.m}, [torch.zeros(1, 4)], lambda leaves: net(*leaves))
    assert found.columns == {"m": (0, 1, 2, 3)}
    other = Reads(own_query=True)
    with pytest.raises(InputError, match="a mix of them"):
        find_sensors({"m": other.m}, [torch.zeros(1, 4)], lambda leaves: other(*leaves))
