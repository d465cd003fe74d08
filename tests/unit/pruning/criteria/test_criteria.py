import pickle

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from rayprune import Pruner, PruningConfig, register_criterion
from rayprune.errors import ConfigError, InputError, NonFiniteError
from rayprune.pruning.criteria import CRITERIA, INPUTS, Criterion, lookup
from rayprune.pruning.criteria.magnitude import lamp, normalised, relative


def net():
    return nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(20, 7), nn.Tanh(), nn.Linear(7, 3)
    )


LAYERS = ("0", "2", "4")


def pruned(module, sparsity, **config):
    pruner = Pruner(module, PruningConfig(sparsity=sparsity, **config))
    pruner.prune_to()
    return pruner


def test_the_hand_worked_magnitudes():
    weight = torch.tensor([[3.0, -1.0], [0.0, 4.0]])
    assert relative(weight).tolist() == [[0.375, 0.125], [0.0, 0.5]]
    assert normalised(weight).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert lamp(weight).flatten().tolist() == pytest.approx([9 / 25, 1 / 26, 0.0, 1.0])


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20))
@example([1e-20, 0.0])
def test_lamp_equals_its_formula_as_a_slow_loop(values):
    squares = torch.tensor(values).square().tolist()
    order = sorted(range(len(squares)), key=lambda i: (-squares[i], i))
    expected, total = [0.0] * len(squares), 0.0
    for index in order:
        total += squares[index]
        expected[index] = squares[index] / total if total else 0.0
    ours = lamp(torch.tensor(values)).tolist()
    assert ours == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["relative", "normalised", "lamp"])
def test_a_layer_of_zeros_scores_zero_and_not_nan(name):
    assert CRITERIA[name](torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("criterion", ["l1", "l2", "relative", "normalised", "lamp"])
def test_layerwise_masks_equal_torch_l1_unstructured(sparsity, criterion):
    module, theirs = net(), net()
    theirs.load_state_dict(module.state_dict())
    pruner = pruned(module, sparsity, criterion=criterion)
    for name in LAYERS:
        layer = theirs.get_submodule(name)
        torch_prune.l1_unstructured(layer, "weight", round(sparsity * layer.weight.numel()))
        assert torch.equal(pruner.masks[f"{name}.weight"], layer.weight_mask.bool())
        torch_prune.remove(layer, "weight")
        assert torch.equal(module.get_submodule(name).weight, layer.weight)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_global_masks_equal_torch_global_unstructured(sparsity, criterion):
    module, theirs = net(), net()
    theirs.load_state_dict(module.state_dict())
    layers = [theirs.get_submodule(name) for name in LAYERS]
    pruner = pruned(module, sparsity, distribution="global", criterion=criterion)
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in layers], torch_prune.L1Unstructured, amount=sparsity
    )
    for name, layer in zip(LAYERS, layers, strict=True):
        assert torch.equal(pruner.masks[f"{name}.weight"], layer.weight_mask.bool())


@pytest.mark.parametrize(("norm", "pooling"), [(1, "sum"), (1, "mean"), (2, "l2")])
@pytest.mark.parametrize("sparsity", [0.3, 0.6])
def test_neuron_masks_equal_torch_ln_structured(norm, pooling, sparsity):
    module, theirs = net(), net()
    theirs.load_state_dict(module.state_dict())
    pruner = pruned(module, sparsity, granularity="neuron", pooling=pooling)
    for name in LAYERS:
        layer = theirs.get_submodule(name)
        units = round(sparsity * layer.weight.shape[0])
        torch_prune.ln_structured(layer, "weight", units, n=norm, dim=0)
        assert torch.equal(pruner.masks[f"{name}.weight"], layer.weight_mask.bool())


def test_random_scores_applied_as_torch_applies_importance_scores():
    module, theirs = net(), net()
    theirs.load_state_dict(module.state_dict())
    pruner = Pruner(module, PruningConfig(sparsity=0.5, criterion="random"), seed=7)
    scores = pruner.scores()
    pruner.prune_to()
    for name in LAYERS:
        layer = theirs.get_submodule(name)
        amount = round(0.5 * layer.weight.numel())
        torch_prune.l1_unstructured(
            layer, "weight", amount, importance_scores=scores[f"{name}.weight"]
        )
        assert torch.equal(pruner.masks[f"{name}.weight"], layer.weight_mask.bool())


def random_masks(seed, steps=(0.3, 0.6)):
    pruner = Pruner(net(), PruningConfig(sparsity=0.5, criterion="random"), seed=seed)
    for sparsity in steps:
        pruner.prune_to(sparsity)
    return pruner.masks


def test_two_equal_seeds_agree_whatever_the_global_generator_is_at():
    torch.manual_seed(1)
    one = random_masks(seed=5)
    torch.manual_seed(2)
    two, other = random_masks(seed=5), random_masks(seed=6)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_each_parameter_and_each_update_draws_its_own_random_scores():
    twins = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    pruner = Pruner(twins, PruningConfig(sparsity=0.5, criterion="random"))
    before = pruner.scores()
    pruner.prune_to(0.1)
    after = pruner.scores()
    assert not torch.equal(before["0.weight"], before["1.weight"])
    assert not torch.equal(before["0.weight"], after["0.weight"])


def test_a_criterion_is_registered_in_one_line_and_ranks():
    register_criterion("signed", lambda weight: weight)
    module = nn.Linear(4, 1, bias=False)
    module.weight.data = torch.tensor([[-5.0, 1.0, 2.0, -1.0]])
    pruned(module, 0.5, criterion="signed")
    assert module.weight.tolist() == [[-0.0, 1.0, 2.0, -0.0]]


def test_a_registered_criterion_that_returns_the_weight_itself_leaves_it_alone():
    register_criterion("itself", lambda weight: weight)
    module = nn.Linear(8, 8)
    pruner = pruned(module, 0.5, criterion="itself", threshold=None)
    kept = module.weight[pruner.masks["weight"]].clone()
    pruner.prune_to(0.75)
    assert set(module.weight[pruner.masks["weight"]].tolist()) <= set(kept.tolist())


def test_a_taken_name_and_an_unknown_input_are_refused():
    with pytest.raises(ConfigError, match="'l1' exists already"):
        register_criterion("l1", lambda weight: weight)
    with pytest.raises(ConfigError, match=r"one is 'wieght'\. Did you mean 'weight'"):
        register_criterion("typo", lambda wieght: wieght)
    with pytest.raises(ConfigError, match="Did you mean 'random'"):
        lookup("randon")
    with pytest.raises(TypeError):
        CRITERIA["mine"] = abs
    assert {"weight", "generator", "gradient"} < set(INPUTS)


@pytest.mark.parametrize(
    ("name", "function", "complaint"),
    [
        ("short", lambda weight: weight[:1], "shape"),
        ("booleans", lambda weight: weight > 0, "float tensor"),
        ("number", lambda weight: 1.0, "float tensor"),
    ],
)
def test_scores_of_the_wrong_form_are_refused(name, function, complaint):
    register_criterion(name, function)
    with pytest.raises(InputError, match=complaint):
        pruned(nn.Linear(3, 3), 0.5, criterion=name)


@pytest.mark.parametrize("distribution", ["uniform", "global"])
def test_a_nan_weight_is_named_and_nothing_changes(distribution):
    module = net()
    module[2].weight.data[0, 0] = float("nan")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    pruner = Pruner(module, PruningConfig(sparsity=0.5, distribution=distribution))
    with pytest.raises(NonFiniteError, match=r"'2\.weight'"):
        pruner.prune_to()
    assert pruner.held_masks == {}
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) or name == "2.weight"


def test_a_registered_criterion_can_say_that_it_scores_each_weight_by_itself():
    register_criterion("mine", Criterion(lambda weight: weight.abs(), elementwise=True))
    assert CRITERIA["mine"].elementwise
    assert not CRITERIA["random"].elementwise


def test_a_config_travels_without_its_choices():
    register_criterion("mine", lambda weight: weight.abs())
    config = PruningConfig(sparsity=0.5, criterion="mine")
    assert config.chosen is config.chosen
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.chosen.criterion is CRITERIA["mine"]


def test_a_registered_criterion_that_asks_for_the_return_obeys_the_rules_of_return():
    register_criterion("mine", lambda lost_return: lost_return)
    for granularity in ("weight", "layer"):
        block = {"sparsity": 0.5, "granularity": granularity, "schedule": {"kind": "gated"}}
        mine = PruningConfig.faults_of({**block, "criterion": "mine"})
        built_in = PruningConfig.faults_of({**block, "criterion": "return"})
        assert [fault.replace("'mine'", "'return'") for fault in mine] == built_in != []
