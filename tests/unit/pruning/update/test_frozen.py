"""What is frozen is left alone; what a sparsity is not of is told."""

import logging

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError

RAMP = {"kind": "linear", "begin": 0, "end": 400, "every": 100}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    )


def freeze(*parts):
    for part in parts:
        part.requires_grad_(False)


def pruner_of(module, **config):
    return Pruner(module, PruningConfig(**{"sparsity": 0.5, "schedule": RAMP, **config}))


def zeros(weight):
    return int((weight == 0).sum())


# Masks from the start


def test_every_prunable_name_has_a_mask_from_the_start():
    pruner = pruner_of(net(), protect=["0"])
    assert list(pruner.masks) == list(pruner.parameters) == ["0.weight", "2.weight", "4.weight"]
    for name, mask in pruner.masks.items():
        assert mask.dtype == torch.bool
        assert mask.shape == pruner.parameters[name].shape
        assert bool(mask.all())
    assert pruner.held_masks == {}


def test_a_mask_that_keeps_all_takes_no_memory_and_costs_no_multiply():
    pruner = pruner_of(net())
    assert all(mask.untyped_storage().nbytes() == 1 for mask in pruner.masks.values())
    pruner.mask_weights()
    assert pruner.members[0]._store._multipliers == {}
    assert pruner.state_dict()["masks"] == {}


def test_masks_of_what_is_pruned_are_the_live_ones():
    pruner = pruner_of(net(), distribution={"0": 0.5, "2": 0.0, "4": 0.0})
    pruner.prune_to()
    assert list(pruner.held_masks) == ["0.weight"]
    assert pruner.masks["0.weight"] is pruner.held_masks["0.weight"]
    assert bool(pruner.masks["2.weight"].all())


# Frozen from the start


@pytest.mark.parametrize("distribution", ["uniform", "erk", "global"])
@pytest.mark.parametrize("schedule", [RAMP, {"kind": "static"}])
def test_a_frozen_layer_keeps_every_weight_and_counts_nowhere(distribution, schedule):
    module = net()
    freeze(module[2])
    pruner = pruner_of(module, distribution=distribution, schedule=schedule)
    pruner.start()
    pruner.update(400)
    assert zeros(module[2].weight) == 0
    assert zeros(module[0].weight) + zeros(module[4].weight) == (128 + 64) // 2
    assert pruner.sparsity() == 0.5
    assert list(pruner.masks) == ["0.weight", "4.weight"]
    (row,) = [layer for layer in pruner.layer_counts() if layer.name == "2"]
    assert row.exempt
    assert row.frozen


def test_asked_for_what_is_frozen_is_pruned():
    module = net()
    freeze(module)
    pruner = pruner_of(module, frozen="prune")
    pruner.update(400)
    assert pruner.sparsity() == 0.5
    assert zeros(module[2].weight) == 128
    assert not pruner.uncovered


def test_a_gradient_that_a_frozen_layer_doesnt_have_is_told():
    module = net()
    freeze(module[0])
    pruner = pruner_of(module, frozen="prune", criterion="snip")
    with pytest.raises(
        Exception, match=r"'0.weight', which the batches never reached, or which is"
    ):
        pruner.prune_to(0.5, batch=torch.randn(4, 8), loss=lambda m, x: m(x).square().mean())


@pytest.mark.parametrize("criterion", ["snip", "taylor", "fisher", "wanda"])
def test_criteria_from_data_work_beside_a_frozen_layer(criterion):
    module = net()
    freeze(module[0])
    pruner = pruner_of(module, criterion=criterion)
    pruner.prune_to(0.5, batch=torch.randn(16, 8), loss=lambda m, x: m(x).square().mean())
    assert zeros(module[0].weight) == 0
    assert pruner.sparsity() == 0.5


def test_a_frozen_bias_doesnt_keep_a_layer_from_being_pruned():
    module = net()
    for layer in (module[0], module[2], module[4]):
        freeze(layer.bias)
    for granularity in ("weight", "neuron"):
        pruner = pruner_of(module, granularity=granularity)
        pruner.prune_to(0.5)
        assert pruner.sparsity() >= 0.5
    assert zeros(module[0].bias) == 0


def test_a_recurrent_layer_may_be_frozen_in_part():
    lstm = nn.LSTM(4, 8)
    freeze(lstm.weight_ih_l0)
    pruner = pruner_of(nn.ModuleDict({"lstm": lstm, "pi": nn.Linear(8, 4)}))
    pruner.update(400)
    assert zeros(lstm.weight_ih_l0) == 0
    assert zeros(lstm.weight_hh_l0) == 128
    assert pruner.sparsity() == 0.5
    (row, _) = pruner.layer_counts()
    assert (row.total, row.sparsity, row.parameters) == (256, 0.5, ("lstm.weight_hh_l0",))
    assert pruner.uncovered.frozen == {"lstm.weight_ih_l0": 128}


def test_units_of_a_recurrent_layer_that_is_frozen_in_part_stay():
    lstm = nn.LSTM(4, 8)
    freeze(lstm.weight_ih_l0)
    pruner = pruner_of(nn.ModuleDict({"lstm": lstm, "l": nn.Linear(8, 8)}), granularity="neuron")
    pruner.prune_to(0.5)
    assert zeros(lstm.weight_hh_l0) == zeros(lstm.weight_ih_l0) == 0
    assert list(pruner.parameters) == ["l.weight"]


def test_frozen_biases_of_a_silent_unit_are_left_alone():
    gru = nn.GRU(2, 4)
    freeze(gru.bias_ih_l0)
    pruner = pruner_of(nn.ModuleDict({"gru": gru, "pi": nn.Linear(4, 2)}), granularity="neuron")
    pruner.prune_to(0.5)
    pruner.mask_weights()
    assert zeros(gru.bias_ih_l0) == 0
    assert zeros(gru.bias_hh_l0) > 0


def test_a_block_with_a_frozen_layer_stays_whole():
    class Block(nn.Module):
        residual_branch = ("a", "b")

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8, bias=False), nn.Linear(8, 4, bias=False)

    blocks = nn.ModuleList([Block(), Block()])
    freeze(blocks[0].a)
    pruner = pruner_of(blocks, granularity="layer", distribution="global", sparsity=0.4)
    pruner.prune_to(0.9)
    assert zeros(blocks[0].a.weight) == zeros(blocks[0].b.weight) == 0
    assert zeros(blocks[1].b.weight) == 32


@pytest.mark.parametrize(
    ("frozen", "config", "told"),
    [
        (
            [0, 2, 4],
            {},
            "Everything that could be pruned is frozen (requires_grad=False): '0', '2'",
        ),
        ([0], {"distribution": {"0": 0.5}}, "`pruning.distribution.0` can't be given: '0' is froz"),
    ],
)
def test_what_freezing_makes_impossible_is_refused(frozen, config, told):
    module = net()
    freeze(*(module[index] for index in frozen))
    with pytest.raises(ConfigError) as caught:
        pruner_of(module, **config)
    assert str(caught.value).startswith(told)
    assert "set `pruning.frozen` to 'prune'" in str(caught.value)
    pruner_of(module, frozen="prune", **config)


def test_a_budget_of_a_frozen_group_is_refused():
    module = net()
    freeze(module[0])
    config = PruningConfig(sparsity=0.5, groups={"first": {"sparsity": 0.9}})
    told = "`pruning.groups.first` can't be given: all layers of group 'first' are frozen"
    with pytest.raises(ConfigError) as caught:
        Pruner(module, config, groups=lambda name: "first" if name == "0" else "rest")
    assert str(caught.value).startswith(told)


def test_a_state_from_when_more_was_frozen_has_the_rest_pruned_at_once():
    module, twin = net(), net()
    freeze(module[2])
    pruner = pruner_of(module)
    pruner.update(400)
    other = pruner_of(twin)
    other.load_state_dict(pruner.state_dict())
    assert zeros(twin[2].weight) == 0
    other.update(400)
    assert zeros(twin[2].weight) == 128


def test_the_choice_is_checked():
    with pytest.raises(ConfigError, match="`frozen` must be one of"):
        PruningConfig(sparsity=0.5, frozen="leave")


# Frozen and unfrozen in mid-run


def test_what_is_frozen_later_keeps_its_masks_and_loses_no_more():
    module = net()
    pruner = pruner_of(module, sparsity=0.8)
    pruner.update(200)
    before = zeros(module[0].weight)
    assert before == round(0.4 * 128)
    freeze(module[0])
    pruner.update(400)
    pruner.mask_weights()
    assert zeros(module[0].weight) == before
    assert pruner.violations() == {}
    assert zeros(module[2].weight) == round(0.8 * 256)
    assert pruner.sparsity() == pytest.approx(0.8, abs=0.01)
    assert "0.weight" in pruner.masks


def test_what_is_unfrozen_is_pruned_as_far_as_the_schedule_is_at_once_even_after_its_end():
    module = net()
    freeze(module[2])
    pruner = pruner_of(module, sparsity=0.75)
    pruner.update(400)
    assert pruner.finished(401)
    module[2].requires_grad_(True)
    assert pruner.update(410) is not None
    assert zeros(module[2].weight) == 192
    assert pruner.update(420) is None


def test_a_flag_that_is_flipped_and_flipped_back_within_a_forward_is_no_freezing():
    module = net()
    pruner = pruner_of(module)
    freeze(module)  # SAC does so with its critics, while it computes the policy's loss
    assert pruner.sparsity() == 0
    assert len(pruner.masks) == 3
    assert len(pruner.layer_counts()) == 3
    module.requires_grad_(True)
    pruner.update(400)
    assert pruner.sparsity() == 0.5


def test_pruning_pauses_while_all_is_frozen_and_says_so_once(caplog):
    module = net()
    pruner = pruner_of(module)
    pruner.update(100)
    held = pruner.sparsity()
    freeze(module)
    with caplog.at_level(logging.WARNING):
        assert pruner.update(200) is None
        assert pruner.update(300) is None
    assert len([r for r in caplog.records if "Nothing more is pruned" in r.message]) == 1
    assert pruner.sparsity() == held
    module.requires_grad_(True)
    pruner.update(400)
    assert pruner.sparsity() == 0.5


def test_what_fades_stops_when_it_is_frozen():
    module = net()
    pruner = pruner_of(module, operation={"scale": 0.5, "steps": 3})
    pruner.update(100)
    freeze(module[0])
    before = module[0].weight.clone()
    for step in (200, 300, 400):
        pruner.update(step)
    assert torch.equal(module[0].weight, before)


# What is not covered


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.ParameterDict({"key": torch.randn(48, 16), "out": torch.randn(16, 16)})
        self.pi = nn.Linear(4, 13)
        self.own = nn.Parameter(torch.randn(3, 5))
        self.log_std = nn.Parameter(torch.zeros(1, 7))
        self.norm = nn.LayerNorm([4, 4])


def test_a_line_says_what_the_sparsity_is_of(caplog):
    with caplog.at_level(logging.WARNING):
        pruner = pruner_of(Odd())
    line = (
        "sparsity is of 52 of 1,091 weights; not covered: attn.key (768), attn.out (256), own (15)"
    )
    assert pruner.uncovered.line() == line
    assert [record.message for record in caplog.records] == [f"S{line[1:]}"]


@pytest.mark.parametrize(
    ("layer", "counts"),
    [
        (nn.LSTM(3, 4, proj_size=2), {"x.weight_hr_l0": 8}),
        (nn.EmbeddingBag(5, 4), {"x.weight": 20}),
        (nn.Embedding(5, 4, sparse=True), {"x.weight": 20}),
        (orthogonal(nn.Linear(3, 3)), {"x.parametrizations.weight.original": 9}),
        (nn.LazyLinear(4), {"x.weight": 0}),
        (nn.BatchNorm2d(4), {}),
        (nn.PReLU(4), {}),
    ],
)
def test_what_has_no_masks_is_told_by_name_and_count(layer, counts):
    pruner = pruner_of(nn.ModuleDict({"pi": nn.Linear(4, 13), "x": layer}))
    assert dict(pruner.uncovered.not_maskable) == counts
    assert bool(pruner.uncovered) == bool(counts)


def test_nothing_is_told_where_only_biases_and_norms_are_left(caplog):
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    with caplog.at_level(logging.WARNING):
        pruner = pruner_of(module, protect=["2"])
        neurons = pruner_of(module, granularity="neuron", sparsity=0.25)
    assert pruner.uncovered.line() is None
    assert neurons.uncovered.line() is None
    assert caplog.records == []


def test_what_is_excluded_or_tied_to_something_prunable_is_not_left_out():
    module = nn.ModuleDict({"e": nn.Embedding(6, 4), "out": nn.Linear(4, 6), "t": nn.RNN(2, 2)})
    module["out"].weight = module["e"].weight
    pruner = Pruner(module, PruningConfig(sparsity=0.5), exclude=["t"])
    assert pruner.uncovered.line() is None
    assert pruner.uncovered.total == 24


def test_a_long_list_is_shortened_and_the_numbers_add_up():
    module = nn.ModuleDict({f"e{k}": nn.EmbeddingBag(2 + k, 4) for k in range(9)})
    module["pi"] = nn.Linear(4, 4)
    module["frozen"] = nn.Linear(4, 5)
    freeze(module["frozen"])
    uncovered = pruner_of(module).uncovered
    assert uncovered.line() == (
        "sparsity is of 16 of 252 weights; not covered: e8.weight (40), e7.weight (36), e6.weight "
        "(32), e5.weight (28), e4.weight (24) and 4 more (56); frozen: frozen.weight (20)"
    )
    held = uncovered.to_dict()
    left = sum(sum(held[key].values()) for key in ("not_maskable", "frozen", "exempt"))
    assert held["weights"] == held["covered"] + left == 252
