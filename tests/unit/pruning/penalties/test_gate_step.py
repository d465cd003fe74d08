"""Unit gates: against loops over floats, over states and compactions, and on units of no use."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import InputError
from rayprune.pruning.penalties.gate_step import AJAR, Gates, UnitGates

SCHEDULE = {"kind": "linear", "begin": 100, "end": 500, "every": 100}


def pruner_of(module: nn.Module, strength: float = 0.5, **config: Any) -> Pruner:
    given = {
        "granularity": "neuron",
        "threshold": {"absolute": 0.0},
        "schedule": SCHEDULE,
        "penalty": {"kind": "gates", "strength": strength},
        **config,
    }
    return Pruner(module, PruningConfig(**given), heads=["4"])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))


def gates_of(pruner: Pruner) -> dict[str, Tensor]:
    return pruner.members[0]._parts[UnitGates].values


def step(pruner: Pruner, gradients: dict[str, Tensor], lr: float = 0.05, clock: int = 0) -> None:
    pruner.observe_gradients(gradients)
    pruner.penalise(clock, dict.fromkeys(pruner.module.parameters(), lr))


def drawn(pruner: Pruner, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(w.shape, generator=generator) for n, w in pruner.parameters.items()}


def test_gates_move_as_a_loop_over_units_moves_them() -> None:
    pruner, lr, strength = pruner_of(net()), 0.02, 0.5
    sizes = {"0.weight": 3, "2.weight": 6}
    mean_size = (3 * 6 + 6 * 4) / 10
    gates = {n: [1.0] * pruner.parameters[n].shape[0] for n in sizes}
    means = {n: [0.0] * len(gates[n]) for n in sizes}
    squares = {n: [0.0] * len(gates[n]) for n in sizes}
    weights = {n: pruner.parameters[n].detach().tolist() for n in sizes}
    for number in range(1, 13):
        gradients = drawn(pruner, number)
        step(pruner, gradients, lr)
        for name, size in sizes.items():
            for unit, row in enumerate(weights[name]):
                products = zip(row, gradients[name][unit].tolist(), strict=True)
                before = gates[name][unit]
                slope = sum(w * g for w, g in products) / before if before > 0 else 0.0
                means[name][unit] += 0.1 * (slope - means[name][unit])
                squares[name][unit] += 0.001 * (slope**2 - squares[name][unit])
                unbiased = means[name][unit] / (1 - 0.9**number)
                spread = math.sqrt(squares[name][unit] / (1 - 0.999**number))
                pressure = strength * size / mean_size
                moved = before - lr * math.sqrt(size) * (unbiased / (spread + 1e-12) + pressure)
                gates[name][unit] = min(max(moved, 0.0), 1.0) if before > 0 else 0.0
                factor = gates[name][unit] / before if before > 0 else 0.0
                weights[name][unit] = [w * factor for w in row]
            assert gates_of(pruner)[name].tolist() == pytest.approx(gates[name], abs=2e-5)
            held = pruner.parameters[name].tolist()
            assert held == [pytest.approx(row, abs=2e-5) for row in weights[name]]
    assert any(0 < gate < 1 for gate in gates["2.weight"])
    assert "4.weight" not in gates_of(pruner)  # its units are the outputs


def test_a_closed_gate_holds_its_unit_at_zero_until_it_is_pruned_by_a_threshold_of_zero() -> None:
    pruner = pruner_of(net(), strength=30.0)
    weight = pruner.parameters["0.weight"]
    for number in range(8):
        step(pruner, drawn(pruner, number))
        with torch.no_grad():
            weight.add_(0.01)  # an optimizer that knows of no gates
    step(pruner, drawn(pruner, 9))
    closed = gates_of(pruner)["0.weight"] == 0
    assert closed.sum() == 5  # the most open one stays ajar
    assert gates_of(pruner)["0.weight"].max() == AJAR
    assert not weight[closed].any()
    pruner.update(500)
    assert torch.equal(pruner.masks["0.weight"].any(dim=1), ~closed)


def test_nothing_moves_after_the_schedules_end_or_without_gates() -> None:
    pruner = pruner_of(net())
    before = {n: w.detach().clone() for n, w in pruner.parameters.items()}
    step(pruner, drawn(pruner, 0), clock=500)
    assert all(torch.equal(before[n], w) for n, w in pruner.parameters.items())
    other = pruner_of(net(), penalty=None)
    step(other, drawn(other, 0))
    assert not gates_of(other)


def test_gates_go_on_from_a_state_as_they_were() -> None:
    pruner = pruner_of(net())
    for number in range(4):
        step(pruner, drawn(pruner, number))
    again = pruner_of(net())
    again.module.load_state_dict(pruner.module.state_dict())
    again.load_state_dict(pruner.state_dict())
    for one in (pruner, again):
        step(one, drawn(one, 7))
    for name, gates in gates_of(pruner).items():
        assert torch.equal(gates, gates_of(again)[name])
        assert torch.equal(pruner.parameters[name], again.parameters[name])


def test_gates_of_units_that_are_left_follow_a_compaction() -> None:
    lstm = nn.LSTM(2, 3)
    pruner = Pruner(
        lstm,
        {
            "sparsity": 0.5,
            "granularity": "neuron",
            "schedule": SCHEDULE,
            "penalty": {"kind": "gates", "strength": 0.5},
        },
    )
    step(pruner, drawn(pruner, 0))
    (gates,) = pruner.members[0]._parts[UnitGates]._gates.values()
    smaller = nn.LSTM(2, 2)
    part = type(gates.part)(
        {n: smaller.get_parameter(n).shape for n in gates.part.parameters}, units=2, gates=4
    )
    rows = torch.tensor([unit + 3 * gate for gate in range(4) for unit in (0, 2)])
    followed: Gates = gates.follow(part, lambda _name, whole: whole[rows])
    for key in ("values", "mean", "square"):
        assert torch.equal(getattr(followed, key), getattr(gates, key)[[0, 2]])


def test_units_of_no_use_go_and_the_others_stay() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    pruner = Pruner(
        module,
        {
            "granularity": "neuron",
            "threshold": {"absolute": 0.0},
            "schedule": {"kind": "linear", "begin": 2, "end": 600, "every": 100},
            "penalty": {"kind": "gates", "strength": 0.3},
            "plasticity": None,
        },
        heads=["2"],
    )
    with torch.no_grad():
        module[2].weight[:, 4:] = 0.0  # nobody reads the others
        module[2].weight[:, :4] = 1.0
    optimizer = torch.optim.Adam([module[0].weight, module[0].bias], lr=0.01)
    inputs = torch.randn(256, 4)
    targets = torch.tanh(inputs).sum(dim=1, keepdim=True)
    for clock in range(1, 601):
        optimizer.zero_grad()
        (module(inputs) - targets).square().mean().backward()
        gradients = {w: w.grad for w in module.parameters()}
        pruner.observe_gradients(gradients)
        pruner.mask_gradients(gradients)
        optimizer.step()
        pruner.mask_weights()
        pruner.penalise(clock, {module[0].weight: 0.01})
        pruner.update(clock)
    assert pruner.masks["0.weight"].any(dim=1).tolist() == [True] * 4 + [False] * 12
    with torch.no_grad():
        assert float((module(inputs) - targets).square().mean()) < 0.05


def test_what_does_not_go_with_gates_is_refused() -> None:
    given = {"sparsity": 0.5, "penalty": {"kind": "gates", "strength": 1.0}}
    (fault,) = PruningConfig.faults_of(given)
    assert "`pruning.penalty.kind` 'gates' shrinks output units" in fault
    pruner = pruner_of(net())
    pruner.observe_gradients(drawn(pruner, 0))
    with pytest.raises(InputError, match=r"learning rate of '0\.weight'"):
        pruner.penalise(0, {})
