import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError, NonFiniteError
from rayprune.pruning.measures.counting import count_flops

PATTERNS = [(2, 4), (1, 4), (1, 8), (3, 4)]
RAMP = {"kind": "linear", "begin": 0, "end": 100, "every": 10}


def column(kind):
    torch.manual_seed(0)
    return {
        "linear": lambda: nn.Linear(16, 5),
        "conv": lambda: nn.Conv2d(8, 6, 3),
        "conv1d": lambda: nn.Conv1d(8, 6, 3),
        "lstm": lambda: nn.LSTM(8, 16, num_layers=2),
        "gru": lambda: nn.GRU(8, 16),
    }[kind]()


def pruner_of(module, granularity, **config):
    return Pruner(module, PruningConfig(granularity=granularity, schedule=RAMP, **config))


def groups_by_loop(mask, m):
    """Every M consecutive inputs, found by an obvious loop."""
    found = []
    for row in range(mask.shape[0]):
        for place in (
            torch.cartesian_prod(*map(torch.arange, mask.shape[2:])) if mask.dim() > 2 else [()]
        ):
            inputs = mask[(row, slice(None), *(int(i) for i in torch.as_tensor(place).reshape(-1)))]
            found += list(inputs.split(m))
    return found


def test_two_of_four_keep_the_two_largest_of_each_four():
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, -0.9, 0.2, 0.5, 4.0, 3.0, -5.0, 0.0]]))
    pruner_of(layer, "2:4").prune_to()
    assert layer.weight.tolist() == [pytest.approx([0.0, -0.9, 0.0, 0.5, 4.0, 0.0, -5.0, 0.0])]


def test_ties_within_a_group_go_to_the_lower_index():
    layer = nn.Linear(4, 1)
    nn.init.ones_(layer.weight)
    pruner = pruner_of(layer, "2:4")
    pruner.prune_to()
    assert pruner.masks["weight"].tolist() == [[True, True, False, False]]


def test_the_group_that_loses_least_is_cut_first():
    layer = nn.Linear(8, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 3.0, 9.0, 9.0, 2.0, 2.0, 2.0, 2.0]]))
    pruner = pruner_of(layer, "2:4")
    pruner.prune_to(0.25)
    assert layer.weight.tolist() == [[3.0, 3.0, 9.0, 9.0, 2.0, 2.0, 0.0, 0.0]]
    pruner.prune_to(0.5)
    assert layer.weight.tolist() == [[0.0, 0.0, 9.0, 9.0, 2.0, 2.0, 0.0, 0.0]]


@pytest.mark.parametrize("pattern", PATTERNS, ids="{0[0]}:{0[1]}".format)
@pytest.mark.parametrize("kind", ["linear", "conv", "conv1d", "lstm", "gru"])
def test_exactly_n_of_every_m_consecutive_inputs_stay(kind, pattern):
    n, m = pattern
    pruner = pruner_of(column(kind), f"{n}:{m}", criterion="random")
    pruner.prune_to()
    assert pruner.masks.keys() == pruner.parameters.keys()
    for name, mask in pruner.masks.items():
        assert all(int(group.sum()) == n for group in groups_by_loop(mask, m)), name
        assert torch.equal(pruner.parameters[name] != 0, mask)
    assert pruner.sparsity() == 1 - n / m


def test_a_two_of_four_mask_is_one_that_sparse_tensor_cores_take():
    layer = nn.Linear(64, 32, bias=False)
    pruner_of(layer, "2:4").prune_to()
    weight = layer.weight.detach().half()
    kept, _ = sparse_semi_structured_from_dense_cutlass(weight)
    # torch's own conversion drops what does not fit the pattern: here that is nothing.
    assert kept.shape == (32, 32)
    assert int(torch.count_nonzero(kept)) == int(torch.count_nonzero(weight)) == 32 * 32
    assert float(kept.float().abs().sum()) == float(weight.float().abs().sum())


@given(
    st.lists(st.floats(0, 0.5), min_size=2, max_size=5),
    st.sampled_from(["uniform", "global"]),
    st.sampled_from(["l1", "random"]),
)
def test_masks_nest_and_the_share_of_cut_groups_is_exact(sparsities, distribution, criterion):
    module = nn.Sequential(nn.Linear(8, 6), nn.Linear(8, 12))
    pruner = pruner_of(module, "2:4", distribution=distribution, criterion=criterion)
    before = {name: torch.ones_like(w, dtype=torch.bool) for name, w in pruner.parameters.items()}
    highest = 0.0
    for sparsity in sparsities:
        pruner.prune_to(sparsity)
        highest = max(highest, sparsity)
        for name, mask in pruner.masks.items():
            assert not bool((mask & ~before[name]).any())
            before[name] = mask.clone()
            assert {int(group.sum()) for group in groups_by_loop(mask, 4)} <= {2, 4}
        sizes = [12, 24] if distribution == "uniform" else [36]
        cut = sum(round(highest / 0.5 * size) for size in sizes)
        assert round(pruner.sparsity() * 144) == 2 * cut


def test_a_schedule_ramps_to_the_implied_sparsity_and_ends_there():
    module = nn.Linear(80, 1)
    pruner = pruner_of(module, "1:4")
    reached = [pruner.update(step).sparsity for step in (20, 50, 100)]
    assert reached == pytest.approx([0.15, 0.375, 0.75], abs=0.02)
    assert reached[-1] == 0.75
    assert pruner.finished(100)


def test_a_weight_that_is_gone_already_is_the_first_to_go():
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[9.0, 1.0, 2.0, 3.0]]))
    layer_pruner = pruner_of(layer, "2:4")
    state = layer_pruner.state_dict()
    state["masks"]["weight"] = np.packbits(np.array([False, True, True, True]))
    layer_pruner.load_state_dict(state)
    layer_pruner.prune_to()
    assert layer.weight.tolist() == [[0.0, 0.0, 2.0, 3.0]]


def test_scaling_fades_a_cut_group_and_then_keeps_n_of_m():
    layer = nn.Linear(16, 4)
    pruner = pruner_of(layer, "2:4", operation={"scale": 0.5, "steps": 3})
    steps = range(10, 200, 10)
    faded = [int((layer.weight == 0).sum()) for step in steps if pruner.update(step)]
    assert faded == sorted(faded)
    assert pruner.sparsity() == 0.5
    assert all(int(group.sum()) == 2 for group in groups_by_loop(pruner.masks["weight"], 4))


def test_the_flops_of_two_of_four_are_half():
    net = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))
    pruner_of(net, "2:4").prune_to()
    flops = count_flops(net, lambda: net(torch.zeros(1, 16)))
    assert flops.sparse * 2 == flops.dense


def test_a_protected_layer_stays_dense_and_no_other_carries_its_share():
    net = nn.Sequential(nn.Linear(11, 8), nn.Linear(8, 8))
    pruner = pruner_of(net, "2:4", protect=["0"])
    pruner.prune_to()
    assert {c.name: c.sparsity for c in pruner.layer_counts()} == {"0": 0.0, "1": 0.5}


def test_inputs_that_m_does_not_divide_are_refused_by_name_with_the_way_out():
    net = nn.Sequential(nn.Linear(11, 8), nn.Conv2d(6, 2, 3), nn.Linear(8, 2))
    with pytest.raises(ConfigError) as caught:
        pruner_of(net, "2:4")
    assert str(caught.value) == (
        "`pruning.granularity` '2:4' needs layers whose inputs 4 divides, but '0' has 11 inputs; "
        "'1' has 6 inputs. List them under `pruning.protect`, or take another M."
    )


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"sparsity": 0.9}, "`sparsity` must be left out with granularity '2:4', which implies"),
        ({"threshold": {"absolute": 1}}, "`threshold` must be left out with granularity '2:4'"),
        ({"distribution": "erk"}, "`distribution` must be 'uniform' or 'global' with granularity"),
        ({"groups": {"all": {"sparsity": 0.3}}}, "`groups.all.sparsity` must be 0 or 0.5"),
        ({"groups": {"all": {"neuron": 0.3, "weight": 0.5}}}, "`groups.all` must be {sparsity: s}"),
    ],
)
def test_what_the_pattern_implies_can_not_be_given_otherwise(fields, fault):
    with pytest.raises(ConfigError, match=fault.replace("{", r"\{").split(" (")[0]):
        PruningConfig(granularity="2:4", **fields)


def test_a_sparsity_beyond_the_pattern_is_refused():
    with pytest.raises(ConfigError, match=r"at most 0\.5, which granularity '2:4' reaches"):
        pruner_of(nn.Linear(4, 4), "2:4").prune_to(0.6)


def test_a_group_of_layers_can_be_left_dense():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    config = PruningConfig(granularity="2:4", groups={"1": {"sparsity": 0}}, schedule=RAMP)
    pruner = Pruner(net, config, groups=lambda name: name)
    pruner.prune_to()
    assert (pruner.sparsity("0"), pruner.sparsity("1")) == (0.5, 0.0)


def test_a_nan_score_in_the_kept_half_of_a_group_is_an_error():
    layer = nn.Linear(8, 1)
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        pruner_of(layer, "2:4").prune_to(0.25)
