import copy
import logging
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import CheckpointError, ConfigError, InputError

RAMP = {"kind": "linear", "begin": 100, "end": 500, "every": 100}
NAMES = ["pi.0", "pi.2", "vf.0", "vf.2"]


def net(seed=0):
    torch.manual_seed(seed)

    def column(out):
        return nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, out))

    return nn.ModuleDict({"pi": column(5), "vf": column(1)})


def group_of(name):
    return {"pi": "policy", "vf": "value"}[name.split(".")[0]]


def pruner_of(module=None, seed=0, exempt=(), groups=group_of, **config):
    config = {"sparsity": 0.8, "schedule": RAMP, **config}
    return Pruner(module or net(), PruningConfig(**config), groups=groups, seed=seed, exempt=exempt)


def assert_exact_zeros(pruner):
    assert pruner.violations() == {}
    for name, mask in pruner.masks.items():
        assert not bool(pruner.parameters[name][~mask].any())
        assert bool(pruner.parameters[name][mask].all())


def same_masks(one, other):
    assert one.masks.keys() == other.masks.keys()
    return all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())


# One shot


@pytest.mark.parametrize("distribution", ["uniform", "global", "erk"])
@pytest.mark.parametrize("criterion", ["l1", "random", "lamp"])
@given(sparsity=st.floats(0, 0.98))
def test_the_sparsity_is_met_and_pruned_weights_are_zero(distribution, criterion, sparsity):
    pruner = pruner_of(sparsity=sparsity, distribution=distribution, criterion=criterion)
    change = pruner.prune_to()
    total = sum(weight.numel() for weight in pruner.parameters.values())
    # Each layer rounds for itself; the global scope rounds once.
    slack = 0.51 if distribution == "global" else 0.51 * len(NAMES)
    assert abs(change.pruned - sparsity * total) <= slack
    assert change.sparsity == pruner.sparsity() == change.pruned / total == change.churn
    assert_exact_zeros(pruner)


@given(
    st.lists(st.floats(0, 0.98), min_size=2, max_size=4),
    st.sampled_from(["uniform", "global", "erk"]),
)
def test_masks_nest_as_sparsity_rises(sparsities, distribution):
    low, high = min(sparsities), max(sparsities)
    for criterion in ("l1", "random"):
        few = pruner_of(distribution=distribution, criterion=criterion)
        many = pruner_of(distribution=distribution, criterion=criterion)
        few.prune_to(high)
        many.prune_to(low)
        for name, mask in few.masks.items():
            assert not bool((mask & ~many.masks.get(name, torch.ones_like(mask))).any())


@given(st.lists(st.floats(0, 0.98), min_size=2, max_size=4))
def test_pruning_in_turns_never_brings_a_weight_back(sparsities):
    pruner = pruner_of(distribution="global", criterion="random")
    gone = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in pruner.parameters.items()}
    for sparsity in sparsities:
        pruner.prune_to(sparsity)
        for name, mask in pruner.held_masks.items():
            assert not bool((mask & gone[name]).any())
            gone[name] = ~mask
    total = sum(weight.numel() for weight in pruner.parameters.values())
    assert round(pruner.sparsity() * total) == round(max(sparsities) * total)


@pytest.mark.parametrize("distribution", ["uniform", "global", "erk"])
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_nothing_protected_is_touched_and_the_others_carry_its_share(distribution, granularity):
    module = net()
    before = module["pi"][2].weight.clone()
    pruner = pruner_of(module, distribution=distribution, granularity=granularity, protect=["pi.2"])
    pruner.prune_to(0.6)
    assert torch.equal(module["pi"][2].weight, before)
    assert "pi.2.weight" not in pruner.held_masks
    if granularity == "weight":
        assert pruner.sparsity() == pytest.approx(0.6, abs=2 / 520)
    units = {name: int((~mask.any(1)).sum()) for name, mask in pruner.held_masks.items()}
    if granularity == "neuron":
        assert sum(units.values()) == pytest.approx(0.6 * 46, abs=1.5)


def test_an_exempt_layer_is_outside_the_denominator():
    pruner = pruner_of(exempt=["*.2"], granularity="neuron")
    pruner.prune_to(0.5)
    assert set(pruner.held_masks) == {"pi.0.weight", "vf.0.weight"}
    assert pruner.sparsity() == 0.5
    exempt = {count.name: count.exempt for count in pruner.layer_counts()}
    assert exempt == {"pi.0": False, "pi.2": True, "vf.0": False, "vf.2": True}


def test_an_output_head_can_not_be_given_a_sparsity_by_unit():
    config = PruningConfig(granularity="neuron", distribution={"pi.2": 0.5}, schedule=RAMP)
    with pytest.raises(ConfigError, match=r"granularity 'neuron' removes nothing of 'pi\.2'"):
        Pruner(net(), config, heads=["*.2"])
    Pruner(net(), config)  # without heads it is a layer like any other


def test_heads_are_exempt_only_while_units_are_pruned():
    pruner = Pruner(net(), PruningConfig(sparsity=0.5, schedule=RAMP), heads=["*.2"])
    assert not any(count.exempt for count in pruner.layer_counts())
    pruner.config = PruningConfig(sparsity=0.5, granularity="neuron", schedule=RAMP)
    assert {c.name for c in pruner.layer_counts() if c.exempt} == {"pi.2", "vf.2"}


def test_a_sparsity_out_of_reach_names_the_largest_feasible():
    with pytest.raises(ConfigError) as caught:
        pruner_of(sparsity=0.95, protect=["pi.2", "vf.2"])
    assert caught.value.faults == (
        "`pruning.sparsity` 0.95 cannot be met: 'pi.2' and 'vf.2' are protected, "
        "so at most 0.769 is reachable. Lower it, or unprotect a layer.",
    )
    pruner = pruner_of(sparsity=0.769, protect=["pi.2", "vf.2"])
    with pytest.raises(ConfigError, match=r"`sparsity` 0\.8 cannot be met"):
        pruner.prune_to(0.8)
    with pytest.raises(ConfigError, match=r"in \[0, 1\)"):
        pruner.prune_to(1.0)
    assert pruner.held_masks == {}


def test_names_that_match_nothing_are_faults_and_all_come_at_once():
    with pytest.raises(ConfigError) as caught:
        pruner_of(
            protect=["pi.1"],
            groups=group_of,
            distribution={"pi.0": 0.5, "vf.9": 0.1, "pi.2": 0.2},
        )
    assert len(caught.value.faults) == 2
    assert "matches no layer. Did you mean 'pi.2'?" in caught.value.faults[0]
    assert (
        "must be one of ['pi.0', 'pi.2', 'vf.0', 'vf.2'], but is 'vf.9'" in caught.value.faults[1]
    )
    with pytest.raises(InputError, match="`exempt` pattern 'x' matches no layer"):
        pruner_of(exempt=["x"])


def test_an_unknown_group_is_refused_with_the_nearest():
    config = PruningConfig(sparsity=0.5, groups={"polisy": {"sparsity": 0.9}})
    with pytest.raises(ConfigError, match="Did you mean 'policy'"):
        Pruner(net(), config, groups=group_of)
    with pytest.raises(InputError, match="Did you mean 'value'"):
        pruner_of().sparsity("valu")


def test_groups_have_budgets_of_their_own():
    groups = {"policy": {"sparsity": 0.9}}
    config = PruningConfig(sparsity=0.3, groups=groups, distribution="global")
    pruner = Pruner(net(), config, groups=group_of)
    pruner.prune_to()
    assert pruner.sparsity("policy") == 0.9
    assert pruner.sparsity("value") == pytest.approx(0.3, abs=1 / 220)
    with pytest.raises(ConfigError, match=r"`pruning.groups.policy.sparsity` 0.9 cannot be met"):
        pruner.config = config.replace(protect=["pi.*"])
    assert pruner.config is config


def test_layers_may_have_their_own_sparsity():
    pruner = pruner_of(sparsity=0.5, distribution={"pi.0": 0.9}, protect=["vf.2"])
    pruner.prune_to()
    sparsities = {count.name: count.sparsity for count in pruner.layer_counts()}
    assert sparsities == {"pi.0": 0.9, "pi.2": 0.5, "vf.0": 0.5, "vf.2": 0.0}


def test_counts_describe_each_layer():
    pruner = pruner_of(protect=["vf.2"])
    pruner.prune_to(0.5)
    first = pruner.layer_counts()[0]
    assert (first.name, first.parameters, first.shape) == ("pi.0", ("pi.0.weight",), (20, 10))
    assert (first.total, first.group, first.protected) == (200, "policy", False)
    assert first.nonzero == 200 - round(200 * first.sparsity)
    assert pruner.layer_counts()[3].protected


def test_a_module_without_layers_is_refused():
    with pytest.raises(InputError, match="no layer to prune"):
        Pruner(nn.ReLU(), PruningConfig(sparsity=0.5))


# The schedule


def test_updates_are_due_at_ticks_and_follow_the_ramp():
    pruner = pruner_of(distribution="global")
    seen = {}
    for step in range(0, 900, 30):
        change = pruner.update(step)
        if change is not None:
            seen[step] = round(change.sparsity, 2)
        assert pruner.finished(step) is (step >= 500)
        assert_exact_zeros(pruner)
    assert seen == {120: 0.0, 210: 0.2, 300: 0.4, 420: 0.6, 510: 0.8}


def test_the_masks_at_the_end_do_not_depend_on_how_often_it_is_asked():
    often, once = pruner_of(), pruner_of()
    for step in range(0, 600, 7):
        often.update(step)
    once.update(10_000)
    assert same_masks(often, once)


def test_updates_are_the_clock_where_no_steps_are_sampled():
    pruner = pruner_of()
    assert pruner.update(0, updates=99) is None
    assert pruner.update(0, updates=500).sparsity == pytest.approx(0.8, abs=0.01)
    assert pruner.finished(0, updates=500)


def test_a_raised_target_acts_at_the_next_call_and_a_lowered_one_holds():
    pruner = pruner_of(distribution="global")
    pruner.update(600)
    config = pruner.config
    pruner.config = config.replace(sparsity=0.5)
    assert pruner.update(601) is None
    assert pruner.sparsity() == 0.8
    pruner.config = config.replace(sparsity=0.9)
    assert not pruner.finished(602)
    assert pruner.update(602).sparsity == pytest.approx(0.9, abs=1e-3)
    assert pruner.finished(602)
    assert pruner.update(603) is None


def test_a_raised_layer_or_group_target_acts_too():
    pruner = pruner_of(distribution={"pi.0": 0.5}, groups=group_of)
    pruner.update(600)
    pruner.config = pruner.config.replace(distribution={"pi.0": 0.9})
    assert pruner.update(601).changed == ("pi.0.weight",)
    pruner.config = pruner.config.replace(groups={"value": {"sparsity": 0.95}})
    assert set(pruner.update(602).changed) == {"vf.0.weight", "vf.2.weight"}


def test_a_fraction_without_a_horizon_warns_once(caplog):
    pruner = pruner_of(schedule={"begin": 0.5, "end": 1000_000, "every": 10})
    with caplog.at_level(logging.WARNING):
        pruner.update(99_999)
        pruner.update(100_000)
    assert [record.message.count("200_000") for record in caplog.records] == [1]
    assert "horizon" in caplog.text


# Scale


FADE = {"scale": 0.5, "steps": 3}


def test_scaled_weights_decay_at_each_update_and_end_exactly_zero():
    module = nn.Linear(4, 1, bias=False)
    module.weight.data = torch.tensor([[8.0, 1.0, 16.0, 2.0]])
    schedule = {"kind": "one_shot", "begin": 10, "every": 10}
    pruner = Pruner(module, PruningConfig(sparsity=0.5, operation=FADE, schedule=schedule))
    seen = []
    for step in range(0, 80, 5):
        change = pruner.update(step)
        if change:
            seen.append((step, module.weight.tolist()[0], change.pruned, pruner.finished(step)))
    assert seen == [
        (10, [8.0, 0.5, 16.0, 1.0], 0, False),
        (20, [8.0, 0.25, 16.0, 0.5], 0, False),
        (30, [8.0, 0.0, 16.0, 0.0], 2, True),
    ]
    assert pruner.sparsity() == 0.5


def test_a_fading_weight_learns_but_stays_chosen_and_is_not_chosen_twice():
    pruner = pruner_of(operation=FADE, distribution="global")
    pruner.update(200)
    chosen = pruner.state_dict()["ages"]
    with torch.no_grad():
        for weight in pruner.parameters.values():
            weight.add_(torch.sign(weight) * 5)
    for step in range(300, 1200, 100):
        pruner.update(step)
    for name, ages in chosen.items():
        assert not bool(pruner.masks[name].numpy()[ages > 0].any())
    assert pruner.sparsity() == 0.8
    assert pruner.finished(1100)
    assert_exact_zeros(pruner)


def test_prune_to_zeroes_at_once_whatever_the_operation():
    pruner = pruner_of(operation=FADE)
    pruner.update(200)
    change = pruner.prune_to(0.8)
    assert change.sparsity == pytest.approx(0.8, abs=0.01)
    assert pruner.state_dict()["ages"] == {}


# Enforcing


def test_gradients_weights_and_other_tensors_are_masked_in_place():
    module = net()
    pruner = pruner_of(module)
    gradients = {p: torch.ones_like(p) for p in module.parameters()}
    gradients[module["vf"][0].weight] = None
    pruner.mask_gradients(gradients)
    assert all(bool(g.all()) for g in gradients.values() if g is not None)
    pruner.prune_to()
    pruner.mask_gradients(gradients)
    mask = pruner.masks["pi.0.weight"]
    assert torch.equal(gradients[module["pi"][0].weight], mask.float())
    assert bool(gradients[module["pi"][0].bias].all())
    with torch.no_grad():
        module["pi"][0].weight.add_(1)
    assert pruner.violations() == {"pi.0.weight": int((~mask).sum())}
    pruner.mask_weights()
    assert pruner.violations() == {}
    others = {"pi.0.weight": torch.ones(20, 10, dtype=torch.float64), "pi.0.bias": torch.ones(20)}
    pruner.mask_tensors(others)
    assert torch.equal(others["pi.0.weight"], mask.double())
    assert bool(others["pi.0.bias"].all())


def test_multipliers_follow_the_weights_type_and_mask_tensors_stay_the_same_objects():
    module = net()
    pruner = pruner_of(module)
    pruner.prune_to(0.3)
    pruner.mask_weights()
    masks = {name: mask.data_ptr() for name, mask in pruner.masks.items()}
    module.double()
    pruner.prune_to(0.6)
    pruner.mask_gradients({p: torch.ones_like(p) for p in module.parameters()})
    assert {name: mask.data_ptr() for name, mask in pruner.masks.items()} == masks
    assert_exact_zeros(pruner)


def test_training_with_adam_keeps_exact_zeros():
    module = net()["pi"]
    pruner = Pruner(module, PruningConfig(sparsity=0.8))
    pruner.prune_to(0.5)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        module(torch.randn(8, 10)).square().sum().backward()
        pruner.mask_gradients({p: p.grad for p in module.parameters()})
        optimizer.step()
        assert pruner.violations() == {}


# State


def advance(pruner, *steps):
    for step in steps:
        pruner.update(step)
    return pruner


@pytest.mark.parametrize("operation", ["zero", FADE])
@pytest.mark.parametrize("criterion", ["l1", "random"])
def test_resuming_gives_the_masks_of_not_stopping(operation, criterion):
    options = {"operation": operation, "criterion": criterion, "distribution": "global"}
    straight = advance(pruner_of(**options), 100, 200, 300)
    module = copy.deepcopy(straight.module)
    state = pickle.loads(pickle.dumps(straight.state_dict()))
    resumed = pruner_of(module, **options)
    resumed.load_state_dict(state)
    assert same_masks(straight, resumed)
    assert resumed.update(350) is None
    for pruner in (straight, resumed):
        advance(pruner, 400, 500, 600, 700, 800)
    assert same_masks(straight, resumed)
    for one, other in zip(straight.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_holds_no_target_so_that_a_clone_keeps_its_own():
    donor = advance(pruner_of(sparsity=0.8, distribution="global"), 600)
    sparser = pruner_of(sparsity=0.9, distribution="global")
    sparser.load_state_dict(donor.state_dict())
    assert sparser.update(601).sparsity == pytest.approx(0.9, abs=1e-3)
    denser = pruner_of(sparsity=0.5, distribution="global")
    denser.load_state_dict(donor.state_dict())
    assert denser.update(601) is None
    assert denser.sparsity() == 0.8


def test_loading_replaces_what_was_there_and_zeroes_the_weights():
    donor = advance(pruner_of(), 200)
    pruner = advance(pruner_of(net(seed=1)), 600)
    pruner.load_state_dict(donor.state_dict())
    assert same_masks(donor, pruner)
    assert pruner.violations() == {}
    pruner.load_state_dict(pruner_of().state_dict())
    assert pruner.held_masks == {}


def test_a_state_is_plain():
    state = advance(pruner_of(operation=FADE), 200, 300).state_dict()

    def leaves(value):
        if isinstance(value, dict):
            return [leaf for item in value.values() for leaf in leaves(item)]
        return (
            [leaf for item in value for leaf in leaves(item)]
            if isinstance(value, list)
            else [value]
        )

    assert {type(leaf) for leaf in leaves(state)} <= {torch.Tensor, int, float, str, type(None)}


def test_the_state_of_another_network_is_refused_by_its_first_differences():
    pruner = pruner_of()
    state = pruner_of(nn.ModuleDict({"pi": nn.Sequential(nn.Linear(9, 20))})).state_dict()
    with pytest.raises(CheckpointError) as caught:
        pruner.load_state_dict(state)
    message = str(caught.value)
    assert (
        "'pi.0.weight' is of shape (20, 9) in the checkpoint and of shape (20, 10) here" in message
    )
    assert "'pi.2.weight' is absent in the checkpoint" in message
    assert "(1 more)" in message


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("masks"),
        lambda state: state.update(shapes=None),
        lambda state: state["masks"].update({"pi.0.weight": np.zeros(3, dtype=np.uint8)}),
        lambda state: state["progress"].update(unknown=1),
        lambda state: state["masks"].update({"nowhere": np.zeros(3, dtype=np.uint8)}),
    ],
)
def test_a_broken_state_is_refused_and_changes_nothing(spoil):
    pruner = advance(pruner_of(), 200)
    state = advance(pruner_of(), 600).state_dict()
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    spoil(state)
    with pytest.raises(CheckpointError):
        pruner.load_state_dict(state)
    assert all(torch.equal(mask, before[name]) for name, mask in pruner.masks.items())
