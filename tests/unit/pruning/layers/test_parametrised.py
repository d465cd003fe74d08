"""Masks of weights that torch computes from others, by weight norm, spectral norm and the like."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from rayprune import Pruner, PruningConfig, make_maskable
from rayprune.errors import ConfigError, RunError
from rayprune.pruning.layers.attach import maskable_layers, unmask
from rayprune.pruning.layers.masked import MaskedLinear
from rayprune.pruning.layers.plain_parameters import bake
from rayprune.pruning.measures.counting import count_flops, dead_units


class Halved(nn.Module):
    keeps_zeros = True

    def forward(self, weight):
        return weight / 2


def halved(layer):
    return parametrize.register_parametrization(layer, "weight", Halved())


WRAPS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "own": halved,
}
every_wrap = pytest.mark.parametrize("wrap", WRAPS)


def build(wrap, make=lambda: nn.Linear(4, 6)):
    return nn.Sequential(WRAPS[wrap](make()), nn.ReLU(), nn.Linear(6, 2)), torch.randn(8, 4)


def name_of(wrap):
    return f"0.parametrizations.weight.original{'1' if wrap == 'weight_norm' else ''}"


def trained(net, pruner, x, steps=3):
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        pruner.mask_gradients({p: p.grad for p in net.parameters()})
        optimizer.step()
        pruner.mask_weights()
        assert torch.isfinite(net[0].weight).all()
    return optimizer


@every_wrap
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_the_computed_weight_is_exactly_zero_where_the_mask_says_so(wrap, granularity):
    net, x = build(wrap)
    names = list(net.state_dict())
    pruner = Pruner(net, PruningConfig(sparsity=0.5, granularity=granularity), heads=["2"])
    pruner.prune_to()
    mask = pruner.masks[name_of(wrap)]
    assert torch.equal(net[0].weight != 0, mask)
    trained(net, pruner, x)
    assert torch.equal(net[0].weight != 0, mask)
    assert pruner.violations() == {}
    assert list(net.state_dict()) == names
    # A plain copy, such as an EnvRunner's, computes the same from the same state.
    plain, _ = build(wrap)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(plain.eval()(x), net.eval()(x))
    assert dead_units(net) == ({"0": 3} if granularity == "neuron" else dead_units(net))
    assert count_flops(net, lambda: net(x[:1])).sparse == 2 * int(
        sum(torch.count_nonzero(net[i].weight) for i in (0, 2))
    )


def test_directions_of_a_row_that_went_stay_and_it_may_grow_back_at_zero():
    net, x = build("weight_norm")
    pruner = Pruner(net, PruningConfig(sparsity=0.5, granularity="neuron"), heads=["2"])
    pruner.prune_to()
    name = name_of("weight_norm")
    row = int((~pruner.masks[name].any(1)).nonzero()[0])
    assert not net[0].parametrizations.weight.original0[row].any()
    fresh = torch.zeros_like(pruner.masks[name])
    fresh[row, :2] = True
    pruner.members[0]._store.grow(name, fresh)
    assert torch.equal(net[0].weight[row], torch.zeros(4))
    optimizer = trained(net, pruner, x, steps=1)
    assert torch.equal(net[0].weight[row] != 0, fresh[row])
    moments = {p: optimizer.state[p]["exp_avg"] for p in net.parameters()}
    pruner.mask_tensors(moments)
    length = net[0].parametrizations.weight.original0
    assert torch.equal(moments[length] != 0, pruner.masks[name].any(1, keepdim=True))


def test_scores_are_of_the_computed_weight():
    net, _ = build("weight_norm")
    with torch.no_grad():
        net[0].parametrizations.weight.original1.mul_(torch.linspace(9, 1, 6)[:, None])
    expected = net[0].weight.detach().abs()
    assert torch.equal(
        Pruner(net, PruningConfig(sparsity=0.5)).scores()[name_of("weight_norm")], expected
    )


@every_wrap
def test_wanda_scores_the_computed_weight_by_the_norms_of_its_inputs(wrap):
    net, x = build(wrap)
    pruner = Pruner(net, PruningConfig(sparsity=0.5, criterion="wanda"))
    found = pruner.scores(batch=x, loss=lambda net, x: net(x).square().mean())[name_of(wrap)]
    computed = net.eval()[0].weight.detach()
    torch.testing.assert_close(found, computed.abs() * x.norm(dim=0))


@every_wrap
def test_units_are_taken_out_of_a_coalition_as_a_mask_would(wrap):
    net, x = build(wrap)
    pruner = Pruner(
        net,
        PruningConfig(
            sparsity=0.5,
            granularity="neuron",
            criterion="shapley",
            evidence={"permutations": 4},
        ),
        heads=["2"],
    )
    scores = pruner.scores(batch=x, loss=lambda net, x: net(x).square().mean())
    assert all(bool(torch.isfinite(score).all()) for score in scores.values())


def test_layers_whose_weight_is_computed_do_not_become_the_identity():
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    pruner = Pruner(net, PruningConfig(sparsity=0.5, granularity="layer"))
    assert [layer.name for layer in pruner.prunable] == ["1"]


def test_looking_at_a_spectral_norm_does_not_move_it():
    net, _ = build("spectral_norm")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    Pruner(net, PruningConfig(sparsity=0.5)).scores()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net[0].parametrizations.weight.training


def test_a_spectral_norm_of_nothing_is_refused():
    net = nn.Sequential(parametrizations.spectral_norm(nn.Linear(2, 1)), nn.Linear(1, 40))
    with torch.no_grad():
        net[0].parametrizations.weight.original.mul_(1e-3)
    pruner = Pruner(net, PruningConfig(sparsity=0.5, distribution="global"))
    net[1].weight.data.fill_(100.0)
    with pytest.raises(RunError, match=r"No weight of '0' would be left"):
        pruner.prune_to(0.1)


@every_wrap
def test_copies_unmasking_and_baking_keep_what_is_computed(wrap):
    net, x = build(wrap)
    Pruner(net, PruningConfig(sparsity=0.5)).prune_to()
    net.eval()
    out = net(x)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x), out)
    bake(twin)
    assert type(twin[0]) is MaskedLinear
    assert torch.equal(twin[0].masks["weight"], twin[0].weight != 0)
    assert torch.equal(twin(x), out)
    assert len(unmask(net)) == 2
    assert torch.equal(net(x), out)
    parametrize.remove_parametrizations(net[0], "weight")
    assert type(net[0]) is nn.Linear


def test_a_removed_parametrisation_leaves_a_maskable_layer():
    net, _ = build("weight_norm")
    make_maskable(net)
    parametrize.remove_parametrizations(net[0], "weight")
    assert type(net[0]) is MaskedLinear


def test_a_weight_normalised_lstm_has_masks_for_each_of_its_weights():
    layer = parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    pruner = Pruner(layer, PruningConfig(sparsity=0.5, granularity="neuron"))
    pruner.prune_to()
    rows = [mask.view(4, 4, -1).any(-1) for mask in pruner.masks.values()]
    assert len(rows) == 2
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(layer.bias_hh_l0.view(4, 4) != 0, rows[0])
    assert torch.isfinite(layer(torch.randn(5, 3))[0]).all()


def test_what_does_not_keep_zeros_is_left_alone_and_penalties_of_directions_are_refused():
    net = nn.Sequential(parametrizations.orthogonal(nn.Linear(3, 3)), nn.Linear(3, 2))
    assert list(maskable_layers(make_maskable(net))) == ["1"]
    net, _ = build("weight_norm")
    with pytest.raises(ConfigError, match=r"`pruning.penalty` can't shrink '0'"):
        Pruner(net, PruningConfig(sparsity=0.5, penalty={"kind": "l1", "strength": 0.1}))


def test_frozen_magnitudes_keep_their_directions():
    net, _ = build("weight_norm")
    net[0].parametrizations.weight.original0.requires_grad_(False)
    pruner = Pruner(net, PruningConfig(sparsity=0.5))
    assert list(pruner.parameters) == ["2.weight"]
