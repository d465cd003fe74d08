"""Compaction of networks with a memory: hidden units, gates, and states that come in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rayprune import compact
from tests.unit.deploy.compaction.compacted import assert_same, reasons, removed, zero


class Memory(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **options: object) -> None:
        super().__init__()
        self.embed, self.cell = nn.Linear(3, 4), kind(4, 6, batch_first=True, **options)
        self.head = nn.Linear(6 * (2 if options.get("bidirectional") else 1), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(torch.relu(self.embed(x)))[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_hidden_unit_that_nothing_reads_goes_with_all_its_gates(kind):
    net = Memory(kind)
    # What only it reads of itself does not keep it alive.
    keep = [0, 1, 3, 4, 5]
    hidden = net.cell.weight_hh_l0.detach().unflatten(0, (-1, 6))
    hidden[:, keep, 2] = 0
    zero(net.head.weight[:, 2])
    small = compact(net, torch.randn(2, 4, 3))
    assert removed(small) == {"cell": 1}
    assert small.module.cell.hidden_size == 5
    shrunk = small.module.cell.weight_hh_l0.unflatten(0, (-1, 5))
    assert torch.equal(shrunk, hidden[:, keep][:, :, keep])
    assert_same(net, small, torch.zeros(2, 7, 3))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_stacked_and_bidirectional_layers_lose_the_same_units(kind):
    net = Memory(kind, num_layers=2, bidirectional=True)
    for name, weight in net.cell.named_parameters():
        if name.startswith(("weight_hh", "weight_ih_l1")):
            zero(*(weight[:, unit] for unit in range(3, weight.shape[1], 6)))
    zero(net.head.weight[:, 3], net.head.weight[:, 9])
    zero(net.embed.weight[1])
    small = compact(net, torch.randn(2, 4, 3))
    assert removed(small) == {"embed": 1, "cell": 1}
    assert_same(net, small, torch.zeros(2, 7, 3))


def test_a_hidden_unit_that_nothing_reaches_still_moves_and_stays():
    net = Memory()
    for weight in (net.cell.weight_ih_l0, net.cell.weight_hh_l0):
        zero(weight.detach().unflatten(0, (4, 6))[:, 2])
    small = compact(net, torch.randn(2, 4, 3))
    assert removed(small) == {}
    assert "cell: nothing comes in, but biases move them from step to step" in reasons(small)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_a_hidden_unit_whose_content_is_zero_goes_although_it_is_read(kind, options):
    net = Memory(kind, **options)
    with torch.no_grad():
        for parameter in net.cell.parameters():
            # Only the gate of new content; the others may say what they like.
            parameter[12 + 2 : 12 + 4] = 0
    small = compact(net, torch.randn(2, 4, 3))
    assert removed(small) == {"cell": 2}
    assert small.certificate["zero_states"] == 0  # it starts from its own zeros
    assert_same(net, small, torch.zeros(2, 7, 3))


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        start = (batch["h"].unsqueeze(0), batch["c"].unsqueeze(0))
        out, (h, c) = self.cell(batch["obs"], start)
        return {"logits": self.head(out), "h": h.squeeze(0), "c": c.squeeze(0)}


def a_stateful_net() -> tuple[Stateful, dict[str, Tensor]]:
    net = Stateful()
    zero(net.cell.weight_hh_l0[:, 1:3], net.head.weight[:, 1:3])
    return net, {"obs": torch.randn(2, 4, 3), "h": torch.zeros(2, 5), "c": torch.zeros(2, 5)}


def test_a_state_that_comes_in_keeps_its_shape_unless_it_may_shrink():
    net, batch = a_stateful_net()
    whole = compact(net, batch)
    assert removed(whole) == {}
    assert "shrink_states" in reasons(whole)
    small = compact(net, batch, shrink_states=True)
    assert removed(small) == {"cell": 2}
    assert small.example_input["h"].shape == (2, 3)
    outputs = small.module(small.example_input)
    assert outputs["c"].shape == (2, 3)
    assert torch.allclose(outputs["logits"], net(batch)["logits"], atol=1e-6)
    assert torch.allclose(outputs["h"], net(batch)["h"][:, [0, 3, 4]], atol=1e-6)


def test_a_state_that_comes_in_is_taken_to_start_at_zero():
    net = Stateful()
    with torch.no_grad():
        for parameter in net.cell.parameters():
            parameter.unflatten(0, (4, 5))[2, 1:3] = 0
    batch = {"obs": torch.randn(2, 4, 3), "h": torch.zeros(2, 5), "c": torch.zeros(2, 5)}
    assert removed(compact(net, batch)) == {}
    small = compact(net, batch, shrink_states=True)
    assert removed(small) == {"cell": 2}
    assert small.certificate["zero_states"] == 4
    state = {"h": torch.randn(2, 5), "c": torch.randn(2, 5)}
    (given,) = small.plan.ground(({**batch, **state},))
    assert given["h"][:, 1:3].abs().sum() == 0
    assert torch.equal(given["c"][:, 3:], state["c"][:, 3:])
    (adapted,) = small.plan.adapt((given,))
    assert torch.allclose(small.module(adapted)["logits"], net(given)["logits"], atol=1e-6)


class Stepping(nn.Module):
    """A cell with a state that comes in and goes out, some steps at once."""

    def __init__(self, kind: type[nn.RNNCellBase], steps: int, *, twice: bool = False) -> None:
        super().__init__()
        self.cell, self.head = kind(3, 5), nn.Linear(5, 2)
        self.steps, self.twice = steps, twice

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        state: Any = (batch["h"], batch["c"]) if isinstance(self.cell, nn.LSTMCell) else batch["h"]
        for step in range(self.steps):
            state = self.cell(batch["obs"][:, step], state)
        given = dict(zip("hc", state if isinstance(state, tuple) else [state], strict=False))
        features = {"features": given["h"]} if self.twice else {}
        return {"logits": self.head(given["h"]), **given, **features}


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_cells_state_shrinks_where_it_may(kind: type[nn.RNNCellBase], steps: int):
    torch.manual_seed(0)
    net = Stepping(kind, steps)
    zero(net.cell.weight_hh[:, 1:3], net.head.weight[:, 1:3])
    batch = {"obs": torch.randn(2, 3, 3), "h": torch.zeros(2, 5)}
    batch |= {"c": torch.zeros(2, 5)} if kind is nn.LSTMCell else {}
    whole = compact(net, batch)
    assert removed(whole) == {}
    assert "shrink_states" in reasons(whole)
    small = compact(net, batch, shrink_states=True)
    assert removed(small) == {"cell": 2}
    assert small.example_input["h"].shape == (2, 3)
    state = {name: torch.randn(2, 5) for name in batch if name != "obs"}
    (adapted,) = small.plan.adapt(({**batch, **state},))
    ours, theirs = small.module(adapted), net({**batch, **state})
    assert torch.allclose(ours["logits"], theirs["logits"], atol=1e-6)
    assert torch.allclose(ours["h"], theirs["h"][:, [0, 3, 4]], atol=1e-6)


def test_a_cells_state_that_is_an_output_besides_keeps_its_size():
    net = Stepping(nn.GRUCell, 1, twice=True)
    zero(net.cell.weight_hh[:, 1:3], net.head.weight[:, 1:3])
    small = compact(net, {"obs": torch.randn(2, 3, 3), "h": torch.zeros(2, 5)}, shrink_states=True)
    assert removed(small) == {}
    assert small.module(small.example_input)["features"].shape == (2, 5)
