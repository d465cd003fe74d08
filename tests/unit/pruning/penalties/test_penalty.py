import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.pruning.penalties import Penalty, register_penalty
from rayprune.pruning.penalties.group_lasso import unit_factors
from rayprune.pruning.penalties.l1 import soft_threshold

LINEAR = {"kind": "linear", "begin": 100, "end": 500, "every": 100}


def pruner_of(module, kind="l1", strength=1.0, **config):
    config = {"sparsity": 0.5, "schedule": LINEAR, **config}
    penalty = {"kind": kind, "strength": strength}
    return Pruner(module, PruningConfig(**config, penalty=penalty))


def penalise(pruner, lr=0.5, clock=0):
    pruner.penalise(clock, dict.fromkeys(pruner.parameters.values(), lr))


def set_weights(layer, rows):
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))


# By hand


def test_l1_moves_every_weight_towards_zero_and_no_further():
    layer = nn.Linear(3, 1)
    set_weights(layer, [[1.0, -0.75, 0.25]])
    penalise(pruner_of(layer, strength=1.0), lr=0.5)
    assert layer.weight.tolist() == [[0.5, -0.25, 0.0]]


def test_group_lasso_shrinks_units_by_the_root_of_their_size():
    layer = nn.Linear(4, 3)
    set_weights(layer, [[4.0, 0.0, 0.0, 3.0], [0.5, 0.5, 0.5, 0.5], [0.0] * 4])
    penalise(pruner_of(layer, kind="group_lasso", granularity="neuron"), lr=0.5)
    # lr * strength * sqrt(4) = 1: norms 5, 1 and 0 become 4, 0 and 0.
    expected = torch.tensor([[3.2, 0.0, 0.0, 2.4], [0.0] * 4, [0.0] * 4])
    assert torch.allclose(layer.weight, expected)
    assert not bool(layer.weight[1:].any())


def test_a_hidden_unit_of_an_lstm_is_one_group_over_all_gates():
    lstm = nn.LSTM(2, 3)
    with torch.no_grad():
        for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0):
            weight.fill_(0.1)
            weight[[1, 4, 7, 10]] = 1.0  # unit 1, in each of four gates
    penalise(pruner_of(lstm, kind="group_lasso", granularity="neuron"), lr=0.2)
    for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0):
        kept = weight[[1, 4, 7, 10]]
        assert bool((kept > 0).all())
        assert int(torch.count_nonzero(weight)) == kept.numel()


# Oracles


@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=12),
    st.floats(0.01, 1.0),
)
def test_an_l1_step_satisfies_the_optimality_of_its_proximal_problem(values, amount):
    start = torch.tensor(values, dtype=torch.float64)
    after = start.clone()
    soft_threshold(after, amount)
    moved = (start - after) / amount
    # Where the result isn't zero the gradient of the penalty, by autograd, balances the move;
    # where it is, the move is a subgradient.
    point = after.clone().requires_grad_()
    point.abs().sum().backward()
    on = after != 0
    assert torch.allclose(moved[on], point.grad[on], atol=1e-9)
    assert bool((moved[~on].abs() <= 1 + 1e-9).all())


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 5), st.floats(0.01, 0.5))
def test_a_group_lasso_step_satisfies_the_optimality_of_its_proximal_problem(
    seed, units, size, amount
):
    torch.manual_seed(seed)
    start = torch.randn(units, size, dtype=torch.float64)
    after = start * unit_factors(start.norm(dim=1), size, amount).unsqueeze(1)
    point = after.clone().requires_grad_()
    (math.sqrt(size) * point.norm(dim=1)).sum().backward()
    moved = (start - after) / amount
    on = after.any(dim=1)
    assert torch.allclose(moved[on], point.grad[on], atol=1e-9)
    assert bool((moved[~on].norm(dim=1) <= math.sqrt(size) + 1e-9).all())


# Laws


@given(st.sampled_from(["l1", "group_lasso"]), st.integers(0, 100))
def test_what_may_not_be_pruned_is_not_shrunk(kind, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    config = PruningConfig(
        sparsity=0.1, granularity="neuron", protect=["0"], penalty={"kind": kind, "strength": 1.0}
    )
    penalise(Pruner(net, config, exempt=["4"]), lr=0.01)
    for index, (old, new) in enumerate(zip(before, net.parameters(), strict=True)):
        # Protected, penalised, exempt; biases never.
        assert torch.equal(old, new) is (index != 2)


def test_group_lasso_spares_the_units_of_heads():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    head = net[2].weight.detach().clone()
    config = PruningConfig(
        granularity="hybrid",
        hybrid={"neuron": 0.2, "weight": 0.5},
        penalty={"kind": "group_lasso", "strength": 1.0},
    )
    penalise(Pruner(net, config, heads=["2"]), lr=0.01)
    assert torch.equal(net[2].weight, head)


def test_pruned_weights_stay_zero_and_the_penalty_ends_with_the_schedule():
    layer = nn.Linear(6, 4)
    pruner = pruner_of(layer)
    pruner.update(500)
    penalise(pruner, lr=1e-3, clock=400)
    assert pruner.violations() == {}
    held = layer.weight.detach().clone()
    penalise(pruner, lr=1e-3, clock=500)
    assert torch.equal(held, layer.weight)


@pytest.mark.parametrize(
    ("kind", "granularity", "pooling"),
    [("l1", "weight", "mean"), ("group_lasso", "neuron", "l2")],
)
def test_what_a_penalty_brings_to_zero_is_masked_by_a_threshold(kind, granularity, pooling):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    config = PruningConfig(
        threshold={"absolute": 0.02},
        granularity=granularity,
        pooling=pooling,
        schedule=LINEAR,
        penalty={"kind": kind, "strength": 0.3},
    )
    pruner = Pruner(net, config, exempt=["2"] if granularity == "neuron" else ())
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    x = torch.randn(256, 8)
    y = torch.tanh(x[:, :1] - x[:, 1:2])
    for step in range(1, 601):
        loss = (net(x) - y).square().mean()
        adam.zero_grad()
        loss.backward()
        pruner.mask_gradients({p: p.grad for p in net.parameters()})
        adam.step()
        pruner.mask_weights()
        pruner.penalise(step, dict.fromkeys(net.parameters(), 1e-2))
        pruner.update(step)
    assert 0.3 < pruner.sparsity() < 1.0
    assert loss.item() < 0.05
    assert pruner.violations() == {}


# Bad input


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"penalty": {"kind": "l1", "strength": -0.1}}, "`penalty.strength` must be a number of"),
        (
            {"penalty": {"kind": "l2", "strength": 0.1}},
            "`penalty.kind` must be one of ['gates', 'group_l",
        ),
        ({"penalty": {"kind": "l1"}}, "`penalty` must be {kind: k, strength: x} or null"),
        (
            {"penalty": {"kind": "group_lasso", "strength": 0.1}},
            "For single weights take kind 'l1'",
        ),
        (
            {"penalty": {"kind": "l1", "strength": 0.1}, "schedule": {"kind": "static"}},
            "a static mask never changes",
        ),
    ],
)
def test_a_wrong_penalty_is_refused_with_the_way_out(values, message):
    (fault,) = PruningConfig.faults_of({"sparsity": 0.5, **values}, prefix="")
    assert message in fault


def test_a_registered_penalty_shrinks_weights_and_obeys_the_rules_of_all():
    class Halve(Penalty):
        """Every step takes a share of each weight."""

        @classmethod
        def shrink(cls, layer, amounts):
            for weight in layer.parameters.values():
                weight.data.mul_(1 - amounts(weight))

    register_penalty("halve", Halve)
    layer = nn.Linear(2, 1, bias=False)
    set_weights(layer, [[4.0, -2.0]])
    penalise(pruner_of(layer, "halve"))
    assert layer.weight.tolist() == [[2.0, -1.0]]
    static = {"sparsity": 0.5, "schedule": {"kind": "static"}}
    wrong = {"kind": "halve", "strength": -1}
    assert len(PruningConfig.faults_of({**static, "penalty": wrong})) == 2
