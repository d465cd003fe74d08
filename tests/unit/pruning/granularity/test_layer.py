import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig, unmask
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.granularity.layer import without
from rayprune.pruning.layers.identity import identity_weight
from rayprune.pruning.layers.prunable import Unit

RAMP = {"kind": "linear", "begin": 0, "end": 100, "every": 50}


class Residual(nn.Module):
    residual_branch = ("one", "two")

    def __init__(self, width=6, bias=False):
        super().__init__()
        self.one = nn.Linear(width, 9, bias=bias)
        self.two = nn.Linear(9, width, bias=bias)

    def forward(self, x):
        return x + self.two(torch.relu(self.one(x)))


def net(activation=nn.ReLU):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6),
        activation(),
        nn.Linear(6, 6),
        activation(),
        Residual(),
        nn.Linear(6, 6),
        activation(),
        nn.Linear(6, 2),
    )


def pruner_of(module=None, sparsity=1 / 3, **config):
    config = {"criterion": "l1", "schedule": RAMP, **config}
    return Pruner(
        module or net(),
        PruningConfig(granularity="layer", sparsity=sparsity, **config),
        heads=["7"],
    )


def smallest(module, *layers):
    with torch.no_grad():
        for layer in layers:
            module.get_submodule(layer).weight.mul_(1e-3)


def test_a_residual_block_that_goes_is_exactly_the_identity():
    module = net()
    smallest(module, "4.one", "4.two")
    pruner_of(module).prune_to()
    x = torch.randn(5, 6)
    assert torch.equal(module[4](x), x)
    assert not module[4].one.weight.any()
    assert module[2].weight.all()


def test_a_linear_of_one_width_that_goes_is_exactly_the_identity_and_says_so():
    module = net()
    smallest(module, "2")
    pruner_of(module).prune_to()
    x = torch.randn(5, 6)
    assert torch.equal(module[2](x), x)
    assert "removed: the identity" in repr(module[2])
    hidden = module[1](module[0](torch.randn(5, 4)))
    assert torch.equal(module[3](module[2](hidden)), hidden)  # a ReLU after a ReLU


def test_a_convolution_that_keeps_channels_and_size_goes_by_its_kernels_centre():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, (3, 5), padding=(2, 2), dilation=(2, 1)),
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="circular", bias=False),
        nn.Flatten(),
        nn.Linear(4 * 6 * 7, 2),
    )
    smallest(module, "1", "2")
    pruner = Pruner(
        module,
        PruningConfig(granularity="layer", sparsity=0.99, criterion="l1", schedule=RAMP),
        heads=["4"],
    )
    pruner.prune_to()
    x = torch.randn(2, 4, 6, 7)
    assert torch.equal(module[1](x), x)
    assert torch.equal(module[2](x), x)
    assert int(pruner.masks["1.weight"].sum()) == 4
    assert "removed: the identity" in repr(module[1])
    assert "removed" not in repr(module[0])
    unit = Unit("1", ("1",), identity=True)
    held = {name: value.numpy() for name, value in module.state_dict().items()}
    held["1.weight"] = np.random.default_rng(0).normal(size=held["1.weight"].shape)
    assert torch.equal(torch.as_tensor(without(held, unit)["1.weight"]).float(), module[1].weight)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 2, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv1d(4, 4, 3, padding=1, dilation=2),
        nn.Conv1d(4, 4, 3, padding="valid"),
    ],
    ids=["shrinks", "strides", "even kernel", "groups", "widens", "dilation", "valid"],
)
def test_a_convolution_that_changes_its_inputs_shape_or_mixes_halves_stays(layer):
    with pytest.raises(ConfigError, match="no layer whose output is shaped like its input"):
        Pruner(layer, PruningConfig(granularity="layer", sparsity=0.5))


@given(st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]), st.integers(2, 5))
def test_the_identity_of_a_convolution_is_what_torch_calls_dirac(side, dimensions, width):
    shape = (width, width, *[side] * dimensions)
    expected = nn.init.dirac_(torch.empty(shape))
    assert torch.equal(identity_weight(shape).float(), expected)


def test_a_network_without_the_layer_computes_the_same():
    module = net(nn.Tanh)
    smallest(module, "5")
    pruner_of(module).prune_to()
    x = torch.randn(5, 4)
    shorter = nn.Sequential(*[part for name, part in module.named_children() if name != "5"])
    assert torch.equal(module(x), shorter(x))


@given(st.lists(st.floats(0, 0.98), min_size=2, max_size=4), st.sampled_from(["l1", "random"]))
def test_masks_nest_and_an_exact_number_of_units_goes(sparsities, criterion):
    module = net()
    pruner = pruner_of(module, criterion=criterion)
    before = {name: torch.ones_like(w, dtype=torch.bool) for name, w in pruner.parameters.items()}
    for sparsity in sparsities:
        pruner.prune_to(sparsity)
        for name, mask in pruner.masks.items():
            assert not bool((mask & ~before[name]).any())
            before[name] = mask.clone()
    x = torch.randn(3, 6)
    gone = sum(torch.equal(module[i](x), x) for i in (2, 4, 5))
    assert gone == round(max(sparsities) * 3)
    assert pruner.violations() == {}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_the_identity_holds_through_training_with_weight_decay(optimizer):
    module = net()
    smallest(module, "2")
    pruner = pruner_of(module)
    pruner.prune_to()
    steps = optimizer(module.parameters(), lr=0.1, weight_decay=0.5)
    before = module[0].weight.clone()
    for _ in range(3):
        steps.zero_grad()
        module(torch.randn(8, 4)).square().sum().backward()
        pruner.mask_gradients({p: p.grad for p in module.parameters()})
        assert not module[2].weight.grad.any()
        assert not module[2].bias.grad.any()
        steps.step()
        pruner.mask_weights()
    assert torch.equal(module[2].weight, torch.eye(6))
    assert not module[2].bias.any()
    assert not torch.equal(module[0].weight, before)


def test_the_state_brings_the_identity_back_and_pickles_and_copies_keep_it():
    pruner = pruner_of(sparsity=0.9)
    pruner.prune_to()
    fresh = pruner_of(net())
    fresh.load_state_dict(pruner.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(fresh.module[2](x), x)
    assert "removed" in repr(copy.deepcopy(fresh.module)[2])
    fresh.load_state_dict(pruner_of(net()).state_dict())
    assert "removed" not in repr(fresh.module[2])
    unmask(pruner.module)
    assert type(pruner.module[2]) is nn.Linear
    assert "bypassed" not in vars(pruner.module[2])


def test_a_diagonal_mask_of_another_granularity_is_no_identity():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.1], [0.1, 3.0]]))
    Pruner(layer, PruningConfig(sparsity=0.5)).prune_to()
    assert layer.weight.tolist() == [[3.0, 0.0], [0.0, 3.0]]


def test_fading_ends_in_the_identity():
    module = net()
    smallest(module, "5")
    pruner = pruner_of(module, operation={"scale": 0.5, "steps": 3})
    for step in range(50, 500, 50):
        pruner.update(step)
    assert torch.equal(module[5].weight, torch.eye(6))
    assert pruner.finished(500)


def test_a_protected_layer_keeps_its_whole_block():
    module = net()
    smallest(module, "4.one", "4.two")
    pruner_of(module, protect=["4.one"]).prune_to()
    assert module[4].two.weight.all()
    with pytest.raises(ConfigError, match="cannot be met"):
        pruner_of(net(), sparsity=0.9, protect=["4.one"])


# The return lost


def test_an_update_waits_for_the_returns_and_then_removes_what_loses_least():
    pruner = pruner_of(criterion="return")
    assert pruner.awaited_units(0) == []
    assert pruner.update(100) is None
    assert not pruner.finished(100)
    assert [unit.name for unit in pruner.awaited_units(100)] == ["2", "4", "5"]
    pruner.returns = {"2": 5.0, "4": 80.0, "5": -1.0}
    assert pruner.update(110) is not None
    assert torch.equal(pruner.module[5].weight, torch.eye(6))
    assert pruner.module[2].weight.all()
    assert pruner.returns == {}
    assert pruner.finished(110)


def test_returns_that_wait_to_be_used_are_in_the_state():
    pruner = pruner_of(criterion="return")
    pruner.returns = {"2": 5.0, "4": 80.0, "5": -1.0}
    resumed = pruner_of(criterion="return")
    resumed.load_state_dict(pruner.state_dict())
    resumed.update(100)
    assert torch.equal(resumed.module[5].weight, torch.eye(6))


def test_a_threshold_removes_every_layer_that_loses_no_more():
    config = PruningConfig(
        granularity="layer", criterion="return", threshold={"absolute": 10}, schedule=RAMP
    )
    pruner = Pruner(net(), config, heads=["7"])
    assert pruner.update(100) is None
    pruner.returns = {"2": 5.0, "4": 80.0, "5": -1.0}
    pruner.update(100)
    x = torch.randn(3, 6)
    assert [torch.equal(pruner.module[i](x), x) for i in (2, 4, 5)] == [True, False, True]


def test_without_returns_one_shot_pruning_says_what_to_do():
    with pytest.raises(InputError, match="which was not measured"):
        pruner_of(criterion="return").prune_to()


def test_weights_without_a_unit_are_those_that_its_removal_leaves():
    module = net()
    held = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    block = without(held, Unit("4", ("4.one", "4.two"), identity=False))
    assert not block["4.one.weight"].any()
    linear = without(held, Unit("2", ("2",), identity=True))
    assert np.array_equal(linear["2.weight"], np.eye(6, dtype=np.float32))
    assert not linear["2.bias"].any()
    assert np.array_equal(held["2.weight"], module[2].weight.detach().numpy())
    module.load_state_dict({name: torch.as_tensor(value) for name, value in linear.items()})
    x = torch.randn(3, 6)
    assert torch.equal(module[2](x), x)


def test_what_is_no_layer_to_remove_is_refused():
    with pytest.raises(
        ConfigError, match="has no residual block and no layer whose output is shaped"
    ):
        Pruner(nn.Linear(3, 2), PruningConfig(granularity="layer", sparsity=0.5))
    with pytest.raises(ConfigError, match=r"'0\.one' in its `residual_branch` has a bias"):
        Pruner(nn.Sequential(Residual(bias=True)), PruningConfig(granularity="layer", sparsity=0.5))
    with pytest.raises(ConfigError, match="`criterion` 'return' scores whole layers"):
        PruningConfig(criterion="return", sparsity=0.5)
    with pytest.raises(ConfigError, match="can't be 'gated' with criterion 'return'"):
        PruningConfig(criterion="return", granularity="layer", schedule={"kind": "gated"})


def test_the_value_net_is_left_out_where_the_return_scores():
    module = nn.ModuleDict({"policy": nn.Linear(4, 4), "value": nn.Linear(4, 4)})
    for criterion, units in (("return", {"policy"}), ("l1", {"policy", "value"})):
        config = PruningConfig(granularity="layer", criterion=criterion, sparsity=0.5)
        pruner = Pruner(module, config, groups=lambda name: name)
        assert {c.name for c in pruner.layer_counts() if not c.exempt} == units


def test_a_share_of_few_units_that_is_rounded_far_off_is_told_once(caplog):
    pruner = pruner_of(sparsity=0.5)  # of three units, two

    for step in (50, 100):
        pruner.update(step)

    told = [x.getMessage() for x in caplog.records if "rounded to" in x.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("`pruning.sparsity` 0.5 of 3 units of granularity 'layer'")
    assert "rounded to 67 %" in told[0]


def test_a_share_that_units_can_meet_is_not_told(caplog):
    pruner_of(sparsity=1 / 3).update(100)

    assert "rounded" not in caplog.text


class TwoNets(nn.Module):
    """Two small blocks that act and a large one that judges."""

    def __init__(self):
        super().__init__()
        self.policy = nn.Sequential(Residual(4), Residual(4))
        self.value = nn.Sequential(Residual(40))

    def forward(self, x):
        return self.policy(x), self.value(x.repeat(1, 10))


def told_of_two_nets(caplog, least, **config):
    torch.manual_seed(0)
    module = TwoNets()
    smallest(module, f"{least}.one", f"{least}.two")
    config = PruningConfig(granularity="layer", schedule=RAMP, **config)
    pruner = Pruner(module, config, groups=lambda name: name.split(".")[0])
    for step in (50, 100, 100):
        pruner.update(step)
    return [x.getMessage() for x in caplog.records if "whatever their size" in x.getMessage()]


def test_a_large_block_that_overshoots_the_target_is_told_once(caplog):
    told = told_of_two_nets(caplog, "value.0", sparsity=0.3)
    assert len(told) == 1
    assert told[0].startswith("`pruning.sparsity` 0.3 counts units of granularity 'layer'")
    # 2 x 9 x 40 of 2 x 9 x 48 weights.
    assert "'value.0', 1 of 3, had 83% of their weights" in told[0]
    assert "group 'value' has no unit left" in told[0]


def test_small_blocks_that_fall_short_of_the_target_are_told_when_all_are_gone(caplog):
    told = told_of_two_nets(caplog, "policy.1", sparsity=0.3)
    assert len(told) == 1
    assert "'policy.1', 1 of 3, had 8% of their weights. " in told[0]


def test_blocks_that_are_as_much_of_the_weights_as_of_the_units_are_not_told(caplog):
    groups = {"policy": {"sparsity": 0.5}, "value": {"sparsity": 0}}
    assert told_of_two_nets(caplog, "policy.1", groups=groups) == []
