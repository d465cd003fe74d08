import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError

RAMP = {"kind": "linear", "begin": 0, "end": 100, "every": 50}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 20), nn.Linear(20, 3))


def pruner_of(module=None, neuron=0.5, weight=0.8, heads=("3",), **config):
    hybrid = {"neuron": neuron, "weight": weight}
    config = PruningConfig(granularity="hybrid", hybrid=hybrid, schedule=RAMP, **config)
    return Pruner(module or net(), config, heads=heads)


def test_units_go_first_and_then_the_lowest_weights_of_those_left():
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.1, 0.1, 0.1, 9.0]]))
    # The second row has the lower mean, although it has the largest weight.
    pruner_of(layer, 0.5, 0.75, heads=()).prune_to()
    assert layer.weight.tolist() == [[0.0, 0.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]


@given(
    st.floats(0, 0.9),
    st.floats(0, 0.95),
    st.sampled_from(["uniform", "global", "erk"]),
    st.sampled_from(["l1", "random"]),
)
def test_each_has_its_own_sparsity_with_its_own_denominator(units, weights, distribution, crit):
    weights = max(units, weights)
    pruner = pruner_of(
        neuron=units, weight=weights, distribution=distribution, criterion=crit, pooling="sum"
    )
    pruner.prune_to()
    masks = {
        name: pruner.masks.get(name, torch.ones_like(w)) for name, w in pruner.parameters.items()
    }
    dead = sum(int((~masks[name].bool().any(1)).sum()) for name in ("0.weight", "2.weight"))
    # Of the 40 units that are not outputs; weights may empty a unit besides.
    assert dead >= round(units * 40) - 1
    total = sum(w.numel() for w in pruner.parameters.values())
    by_units = sum(
        int((~masks[f"{i}.weight"].bool().any(1)).sum()) * n for i, n in ((0, 10), (2, 20))
    )
    aimed = round(weights * total)
    pruned = sum(int((mask == 0).sum()) for mask in masks.values())
    assert aimed - 2 <= pruned <= max(aimed + 2, by_units + round(weights * total))


def test_the_weights_of_dead_units_count_among_the_pruned_ones():
    pruner = pruner_of()
    change = pruner.prune_to()
    assert change.sparsity == pytest.approx(0.8, abs=0.003)
    assert int((~pruner.masks["0.weight"].any(1)).sum()) >= 10


def test_both_follow_the_schedule():
    pruner = pruner_of()
    half = pruner.update(50)
    assert half.sparsity == pytest.approx(0.4, abs=0.003)
    assert int((~pruner.masks["0.weight"].any(1)).sum()) == 5
    assert pruner.update(100).sparsity == pytest.approx(0.8, abs=0.003)
    assert pruner.finished(100)
    assert pruner.update(150) is None


def test_an_output_unit_is_never_removed_but_its_weights_are_pruned():
    pruner = pruner_of(neuron=0.9, weight=0.9)
    pruner.prune_to()
    head = next(c for c in pruner.layer_counts() if c.name == "3")
    assert not head.exempt
    assert 0 < head.sparsity < 1


def test_stopping_and_going_on_equals_going_on():
    one, other = pruner_of(criterion="random"), pruner_of(criterion="random")
    one.update(50)
    one.update(100)
    other.update(50)
    resumed = pruner_of(other.module, criterion="random")
    resumed.load_state_dict(other.state_dict())
    resumed.update(100)
    for name, mask in one.masks.items():
        assert torch.equal(mask, resumed.masks[name])


def test_each_group_can_have_its_own_pair():
    groups = {"0": {"neuron": 0.25, "weight": 0.25}}
    config = PruningConfig(
        granularity="hybrid", hybrid={"neuron": 0.5, "weight": 0.8}, groups=groups, schedule=RAMP
    )
    pruner = Pruner(net(), config, groups=lambda name: name, heads=["3"])
    pruner.prune_to()
    assert pruner.sparsity("0") == 0.25
    assert int((~pruner.masks["0.weight"].any(1)).sum()) == 5


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"hybrid": None}, "`hybrid` must be {neuron: s, weight: s} with granularity 'hybrid'."),
        ({"hybrid": {"neuron": 0.5}}, "`hybrid` must be {neuron: s, weight: s} or {head: s,"),
        ({"hybrid": {"neuron": 0.5, "weight": 0.3}}, "`hybrid.weight` must not be less than"),
        ({"hybrid": {"neuron": 1.0, "weight": 0.3}}, "`hybrid.neuron` must be in [0, 1)"),
        ({"sparsity": 0.5}, "`sparsity` must be left out, or be `hybrid.weight` (0.8)"),
        ({"threshold": {"absolute": 1}}, "`threshold` must be left out with granularity 'hybrid'"),
        ({"distribution": {"0": 0.5}}, "`distribution` must be a name with granularity 'hybrid'"),
        ({"groups": {"all": {"sparsity": 0.3}}}, "`groups.all` must be {neuron: s, weight: s}"),
        ({"granularity": "weight", "sparsity": 0.5}, "`hybrid` is only for granularity 'hybrid'"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields, fault):
    given = {"granularity": "hybrid", "hybrid": {"neuron": 0.5, "weight": 0.8}, **fields}
    with pytest.raises(ConfigError) as caught:
        PruningConfig(**given)
    assert any(found.startswith(fault) for found in caught.value.faults), caught.value.faults


def test_a_sparsity_that_agrees_and_a_dense_run_are_taken():
    same = {"granularity": "hybrid", "hybrid": {"neuron": 0.5, "weight": 0.8}}
    assert PruningConfig(**same, sparsity=0.8).target == 0.8
    dense = Pruner(net(), PruningConfig(**same, sparsity=0, schedule=RAMP))
    assert dense.prune_to().pruned == 0


def test_faults_of_reach_name_the_hybrid_fields():
    with pytest.raises(ConfigError, match=r"`pruning\.hybrid\.neuron` 0\.8 cannot be met: '0' is"):
        pruner_of(neuron=0.8, weight=0.9, protect=["0"])


@pytest.mark.parametrize("granularity", ["neuron", "hybrid"])
def test_units_of_tied_layers_are_refused_and_protecting_one_is_no_way_around(granularity):
    module = net()
    module.append(nn.Linear(20, 20))
    module[4].weight = module[2].weight
    fields = (
        {"hybrid": {"neuron": 0.5, "weight": 0.8}} if granularity == "hybrid" else {"sparsity": 0.5}
    )
    with pytest.raises(ConfigError, match="can't remove units of '2', whose weights are tied"):
        Pruner(module, PruningConfig(granularity=granularity, **fields))
    fields = {"neuron": 0.2, "weight": 0.2} if granularity == "hybrid" else {"sparsity": 0.2}
    fields = {"hybrid": fields} if granularity == "hybrid" else fields
    pruner = Pruner(module, PruningConfig(granularity=granularity, protect=["2"], **fields))
    pruner.prune_to()
    assert "2.weight" not in pruner.held_masks


def test_a_criterion_of_units_chooses_units_and_magnitude_the_weights_in_them():
    batch = torch.randn(64, 10)
    pruner = pruner_of(neuron=0.5, weight=0.8, criterion="information_gain")
    change = pruner.prune_to(batch=batch)
    assert change.sparsity == pytest.approx(0.8, abs=0.003)
    assert int((~pruner.masks["0.weight"].any(1)).sum()) >= 10


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True, bias=False)

    def forward(self, x):
        tokens = self.embed(x)
        return self.out(self.attention(tokens, tokens, tokens)[0])


def test_heads_go_first_and_then_weights_everywhere():
    config = PruningConfig(granularity="hybrid", hybrid={"head": 0.5, "weight": 0.8})
    pruner = Pruner(Attending(), config, heads=("out",))
    pruner.prune_to()
    dead = ~pruner.masks["attention.out_proj.weight"].bool().any(0).view(4, 2).any(1)
    assert int(dead.sum()) >= 2
    rows = pruner.masks["attention.in_proj_weight"].bool().view(3, 4, 2, 8)
    assert not rows[:, dead].any()
    assert pruner.sparsity() == pytest.approx(0.8, abs=0.02)
    assert not pruner.masks["embed.weight"].all()


def test_heads_need_attention_and_one_budget():
    hybrid = {"head": 0.5, "weight": 0.8}
    with pytest.raises(ConfigError, match="`hybrid` can't have heads: the network has no"):
        Pruner(net(), PruningConfig(granularity="hybrid", hybrid=hybrid))
    with pytest.raises(ConfigError, match="`groups` must be left out where `hybrid` has heads"):
        PruningConfig(granularity="hybrid", hybrid=hybrid, groups={"policy": {"sparsity": 0.5}})
