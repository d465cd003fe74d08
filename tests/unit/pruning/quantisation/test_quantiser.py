"""Quantised layers: phases, ranges, masks, and what they are refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.ao.quantization import MovingAverageMinMaxObserver

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError
from rayprune.pruning.layers.attach import unmask
from rayprune.pruning.quantisation.config import QuantisationConfig
from rayprune.pruning.quantisation.layers import FROZEN, OBSERVING, OFF, QuantisedLinear
from rayprune.pruning.quantisation.quantiser import (
    Quantiser,
    fix,
    quantised_layers,
    without_quantisation,
)
from rayprune.pruning.quantisation.rounding import rounded, weight_grid

AT_ONCE = QuantisationConfig(start=0, freeze=100)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def test_a_layer_computes_as_before_until_its_time_comes() -> None:
    module, given = net(), torch.randn(5, 3)
    before = module(given)
    quantiser = Quantiser(module, QuantisationConfig(start=10, freeze=20))
    names = [name for name, _ in module.named_parameters()]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [quantiser.phase_at(clock) for clock in (9, 10, 20)] == [OFF, OBSERVING, FROZEN]
    assert not quantiser.update(9)
    assert torch.equal(module(given), before)
    assert quantiser.update(10)
    assert not torch.equal(module(given), before)


def test_ranges_follow_as_torch_s_observer_does_and_then_stay() -> None:
    module = net()
    quantiser = Quantiser(module, AT_ONCE)
    quantiser.update(0)
    observer = MovingAverageMinMaxObserver(averaging_constant=0.01)
    for seed in range(4):
        given = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
        module(given), observer(given)
    wanted = torch.stack([observer.min_val, observer.max_val])
    torch.testing.assert_close(module[0].activation_range, wanted)
    held = module[0].activation_range.clone()
    module.eval()(10 * given)
    quantiser.update(100)
    module.train()(10 * given)
    assert torch.equal(module[0].activation_range, held)


def test_a_config_that_is_assigned_says_how_fast_ranges_follow() -> None:
    module = net()
    quantiser = Quantiser(module, QuantisationConfig(start=0, freeze=100))
    quantiser.config = QuantisationConfig(start=0, freeze=100, follow=0.5)
    quantiser.update(0)
    assert {layer.follow for layer in quantised_layers(module).values()} == {0.5}


def test_a_weight_that_was_written_through_data_is_rounded_anew_where_one_acts() -> None:
    module, given = net(), torch.randn(4, 3)
    Quantiser(module, QuantisationConfig(start=0, activations=None)).update(0)
    with torch.no_grad():
        before = module.eval()(given)
        module.train()[0].weight.data.mul_(2)  # as many loops have it
        assert not torch.equal(module.eval()(given), before)


def test_observations_of_no_bits_are_read_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    Quantiser(module, QuantisationConfig(start=0, observations=None)).update(0)
    assert [module[n].precision.activations for n in (0, 2)] == [0, 8]


def test_the_first_layer_reads_observations_in_their_own_bits() -> None:
    module = net()
    Quantiser(module, QuantisationConfig(start=0, activations=8, observations=16)).update(0)
    assert [layer.precision.activations for layer in quantised_layers(module).values()] == [16, 8]


@pytest.mark.parametrize("pruned_first", [True, False])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_masked_weights_are_exactly_zero_and_the_optimizer_sees_full_precision(
    pruned_first: bool, bits: int
) -> None:
    module = net()
    config = QuantisationConfig(weights=bits, start=0, freeze=100)
    quantiser = None if pruned_first else Quantiser(module, config)
    pruner = Pruner(module, PruningConfig(sparsity=0.5))
    pruner.prune_to(0.5)
    (quantiser or Quantiser(module, config)).update(0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        module(torch.randn(16, 3)).square().mean().backward()
        pruner.mask_gradients({p: p.grad for p in module.parameters()})
        optimizer.step()
        pruner.mask_weights()
    for name, mask in pruner.masks.items():
        weight = module.get_parameter(name)
        seen = rounded(weight, weight_grid(weight, bits))
        assert not seen[~mask].any()
        assert not weight[~mask].any()
        assert not torch.equal(seen, weight)
    assert "sparsity=" in repr(module[0])
    assert isinstance(module[0], QuantisedLinear)
    unmask(module)
    assert type(module[0]) is QuantisedLinear


def test_a_state_dict_carries_what_layers_are_told() -> None:
    module, given = net(), torch.randn(5, 3)
    quantiser = Quantiser(module, AT_ONCE)
    quantiser.update(0)
    module(given)
    quantiser.update(100)
    other = net()
    Quantiser(other, AT_ONCE)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(given), module(given))
    assert torch.equal(pickle.loads(pickle.dumps(module))(given), module(given))
    assert torch.equal(copy.deepcopy(module)(given), module(given))
    # Weights of full precision leave what was told as it is.
    other.load_state_dict(without_quantisation(module.state_dict()))
    assert torch.equal(other(given), module(given))


def test_a_fixed_module_computes_the_same_of_weights_on_the_grid() -> None:
    module, given = net(), torch.randn(5, 3)
    quantiser = Quantiser(module, AT_ONCE)
    quantiser.update(0)
    module(given)
    quantiser.update(100)
    fixed = fix(copy.deepcopy(module).requires_grad_(False))
    assert torch.equal(fixed(given), module(given))
    assert torch.equal(fixed[0].weight, module[0].weight) is False
    assert type(fix(net())[0]) is nn.Linear


def test_what_can_t_be_quantised_is_named_with_a_way_out() -> None:
    module = nn.ModuleDict({"memory": nn.LSTM(2, 2), "head": nn.Linear(2, 1)})
    with pytest.raises(ConfigError, match=r"`quantise` can't be done to 'memory' \(LSTM\)"):
        Quantiser(module, QuantisationConfig())
    assert list(Quantiser(module, QuantisationConfig(skip=("mem*",))).layers) == ["head"]
    with pytest.raises(ConfigError, match=r"`quantise\.skip` names 'tail', which matches no layer"):
        Quantiser(net(), QuantisationConfig(skip=("tail",)))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"weights": 7}, "`quantise.weights` must be one of [8, 4, 2] bits, but is 7."),
        (
            {"activations": 4},
            "`quantise.activations` must be one of [8, 16] bits or null (as they are), but is 4.",
        ),
        ({"start": -1}, "`quantise.start` must be at least 0.0, but is -1."),
        (
            {"start": 0.8, "freeze": 0.5},
            "`quantise` must freeze ranges after they are observed, but `freeze` is 0.5 and "
            "`start` 0.8. Raise `freeze`, or lower `start`.",
        ),
        ({"weight": 8}, "`quantise.weight` is not a known key. Did you mean 'weights'?"),
    ],
)
def test_faults_name_the_field_the_constraint_and_the_value(given: object, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        QuantisationConfig.from_dict(given)
    assert list(caught.value.faults) == [fault]
