from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim

from rayprune.deploy.formats.rewriting.single_step import (
    gru_step,
    lstm_step,
    sees_single_steps,
    written_out,
)
from rayprune.deploy.policy.capture import quiet, recapture


class Policy(nn.Module):
    """An LSTM between two linear layers, as RLlib's recurrent modules are built."""

    def __init__(self, layers=1, bias=True, bidirectional=False):
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Linear(5, 7)
        self.lstm = nn.LSTM(7, 6, layers, bias, batch_first=True, bidirectional=bidirectional)
        self.after = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x, h, c):
        x = torch.tanh(self.before(x)).unsqueeze(1)
        y, (h, c) = self.lstm(x, (h.transpose(0, 1), c.transpose(0, 1)))
        return self.after(y).squeeze(1), h.transpose(0, 1), c.transpose(0, 1)


def captured_of(policy, layers=1):
    inputs = (torch.randn(3, 5), torch.randn(3, layers, 6), torch.randn(3, layers, 6))
    shapes = tuple({0: Dim("batch")} for _ in inputs)
    with quiet(), torch.no_grad():
        return torch.export.export(policy.eval(), inputs, dynamic_shapes=shapes)


def names(program):
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans(), st.data()
)
@settings(max_examples=30, deadline=None)
def test_a_step_is_what_torchs_lstm_computes(layers, batch, units, bias, batch_first, data):
    torch.manual_seed(data.draw(st.integers(0, 100)))
    lstm = nn.LSTM(3, units, layers, bias, batch_first=batch_first).double().eval()
    shape = (batch, 1, 3) if batch_first else (1, batch, 3)
    x = torch.randn(shape, dtype=torch.float64)
    states = [torch.randn(layers, batch, units, dtype=torch.float64) for _ in range(2)]
    weights = [weight for held in lstm.all_weights for weight in held]
    found = lstm_step(x, states, weights, bias, layers, 0.0, False, False, batch_first)
    y, (h, c) = lstm(x, tuple(states))
    for one, other in zip(found, (y, h, c), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("layers", "bias", "batch_first"), [(1, True, True), (2, False, False)])
def test_a_step_is_what_torchs_gru_computes(layers, bias, batch_first):
    torch.manual_seed(0)
    gru = nn.GRU(3, 5, layers, bias, batch_first=batch_first).double().eval()
    x = torch.randn((4, 1, 3) if batch_first else (1, 4, 3), dtype=torch.float64)
    state = torch.randn(layers, 4, 5, dtype=torch.float64)
    weights = [weight for held in gru.all_weights for weight in held]
    found = gru_step(x, state, weights, bias, layers, 0.0, False, False, batch_first)
    for one, other in zip(found, gru(x, state), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN, partial(nn.RNN, nonlinearity="relu")])
def test_layers_whose_only_state_is_the_hidden_one_are_written_out_too(kind):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.after = kind(5, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, x, h):
            y, h = self.cell(x.unsqueeze(1), h.transpose(0, 1))
            return self.after(y).squeeze(1), h.transpose(0, 1)

    policy = Hidden().eval()
    inputs = (torch.randn(3, 5), torch.randn(3, 1, 6))
    shapes = tuple({0: Dim("batch")} for _ in inputs)
    with quiet(), torch.no_grad():
        captured = torch.export.export(policy, inputs, dynamic_shapes=shapes)
    assert sees_single_steps(captured)
    plain = recapture(written_out(captured), captured)
    assert not any("gru" in name or "rnn" in name for name in names(plain))
    given = (torch.randn(4, 5), torch.randn(4, 1, 6))
    for one, other in zip(policy(*given), plain.module()(*given), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("layers", "bias"), [(1, True), (2, False)])
def test_a_policy_written_out_acts_the_same_at_any_batch_size(layers, bias):
    policy = Policy(layers, bias)
    captured = captured_of(policy, layers)
    assert sees_single_steps(captured)
    plain = recapture(written_out(captured), captured)
    for batch in (1, 4):
        inputs = (
            torch.randn(batch, 5),
            torch.randn(batch, layers, 6),
            torch.randn(batch, layers, 6),
        )
        expected, found = policy(*inputs), plain.module()(*inputs)
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_no_sequence_is_left_where_states_have_no_axis_for_layers():
    class Flat(Policy):
        def forward(self, x, h, c):
            x = torch.tanh(self.before(x)).unsqueeze(1)
            y, (h, c) = self.lstm(x, (h.unsqueeze(0), c.unsqueeze(0)))
            return self.after(y).squeeze(1), h.squeeze(0), c.squeeze(0)

    inputs = (torch.randn(3, 5), torch.randn(3, 6), torch.randn(3, 6))
    shapes = tuple({0: Dim("batch")} for _ in inputs)
    with quiet(), torch.no_grad():
        captured = torch.export.export(Flat().eval(), inputs, dynamic_shapes=shapes)
    found = names(recapture(written_out(captured), captured))
    assert "aten.linear.default" in found
    moves = ("lstm", "squeeze", "select", "transpose")
    assert [name for name in found if any(move in name for move in moves)] == []


def test_two_directions_projections_and_longer_sequences_stay_as_they_are():
    class Longer(Policy):
        def forward(self, x, h, c):
            x = torch.tanh(self.before(x)).unsqueeze(1).expand(-1, 2, -1)
            return self.lstm(x, (h.transpose(0, 1), c.transpose(0, 1)))[0]

    assert not sees_single_steps(captured_of(Longer()))
    projected = Policy()
    projected.lstm = nn.LSTM(7, 9, proj_size=6, batch_first=True)
    with quiet(), torch.no_grad():
        inputs = (torch.randn(3, 5), torch.randn(3, 1, 6), torch.randn(3, 1, 9))
        assert not sees_single_steps(torch.export.export(projected.eval(), inputs))
    both = Policy(bidirectional=True)
    both.after = nn.Linear(12, 3)
    assert not sees_single_steps(captured_of(both, layers=2))


def test_a_network_without_an_lstm_has_no_steps_to_write_out():
    linear = nn.Linear(5, 2)
    captured = torch.export.export(linear, (torch.randn(3, 5),))
    assert not sees_single_steps(captured)
