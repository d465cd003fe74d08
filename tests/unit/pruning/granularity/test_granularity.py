"""What every granularity obeys, one that a user registers as well."""

import pytest
import torch
from torch import Size, nn

from rayprune import Pruner, PruningConfig, register_granularity
from rayprune.errors import ConfigError
from rayprune.pruning.granularity import GRANULARITIES, find_granularity
from rayprune.pruning.granularity.base import WithinLayers
from rayprune.pruning.granularity.neuron import UnitPart


class PairPart(UnitPart):
    """Pairs of neighbouring rows."""

    @property
    def count(self):
        return self.units // 2

    def pool(self, scores, pooling):
        return super().pool(scores, pooling).view(-1, 2).mean(dim=1)

    def expand(self, keep, scores):
        return super().expand(keep.repeat_interleave(2), scores)


class Pairs(WithinLayers):
    """Two neighbouring output units at once."""

    aliases = ("twins",)
    removes_units = True
    whole_rows = True

    def split(self, layer, parameters):
        return [PairPart({n: Size(w.shape)}, len(w), 1) for n, w in parameters.items()]


@pytest.fixture
def pairs():
    register_granularity("pairs", Pairs)


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def test_a_granularity_of_ones_own_prunes_what_it_says(pairs):
    module = net()
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].weight[2:4] = 0.5
    pruner = Pruner(module, PruningConfig(sparsity=0.25, granularity="twins"), heads=["2"])
    pruner.prune_to()
    assert pruner.config.granularity == "pairs"
    assert pruner.masks["0.weight"].all(dim=1).tolist() == [True, True, False, False, *[True] * 4]


def test_a_granularity_of_ones_own_may_have_what_units_may_have(pairs):
    values = {"sparsity": 0.5, "granularity": "pairs"}
    lasso = {"kind": "group_lasso", "strength": 0.1}
    assert PruningConfig.faults_of({**values, "penalty": lasso, "compact_every": 1000}) == []
    assert PruningConfig.faults_of({**values, "criterion": "shapley"}) == []


def test_a_granularity_of_ones_own_has_the_faults_of_units(pairs):
    values = {"sparsity": 0.5, "granularity": "pairs"}
    (fault,) = PruningConfig.faults_of({**values, "on_clone": "regrow"})
    assert "grows single weights" in fault
    (fault,) = PruningConfig.faults_of({**values, "groups": {"a": {"neuron": 0.5, "weight": 0.5}}})
    assert "{sparsity: s} with granularity 'pairs'" in fault
    (fault,) = PruningConfig.faults_of({**values, "hybrid": {"neuron": 0.1, "weight": 0.2}})
    assert "only for granularity 'hybrid', but that is 'pairs'" in fault


def test_units_of_ones_own_leave_heads_and_tied_layers_alone(pairs):
    config = PruningConfig(sparsity=0.5, granularity="pairs")
    with pytest.raises(ConfigError, match="can't be 'pairs': the units of '0' are the network's"):
        Pruner(nn.Sequential(nn.Linear(4, 4)), config, heads=["0"])
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConfigError, match="'pairs' can't remove units of '0', whose"):
        Pruner(tied, config, heads=["2"])


def test_a_unit_that_is_frozen_in_part_stays_whole(pairs):
    units, weights = find_granularity("pairs"), find_granularity("weight")
    assert units.torn(["weight_ih_l0"])
    assert not units.torn(["bias_ih_l0"])
    assert not weights.torn(["weight_ih_l0"])


def test_a_name_is_taken_once(pairs):
    with pytest.raises(ConfigError, match="A granularity named 'pairs' exists already"):
        register_granularity("pairs", Pairs)
    with pytest.raises(TypeError):
        GRANULARITIES["mine"] = Pairs


def test_an_unknown_name_is_told_with_what_is_registered(pairs):
    (fault,) = PruningConfig.faults_of({"sparsity": 0.5, "granularity": "pair"})
    assert "'pairs'" in fault
    assert "Did you mean 'pairs'?" in fault


@pytest.mark.parametrize("name", ["weight", "neuron", "block", "2:4"])
def test_parts_within_a_layer_hold_each_parameter_once(name):
    module, granularity = nn.GRU(8, 16), find_granularity(name)
    weights = {n: w for n, w in module.named_parameters() if n.startswith("weight")}
    parts = granularity.split(module, weights)
    assert sorted(n for part in parts for n in part.parameters) == sorted(weights)
