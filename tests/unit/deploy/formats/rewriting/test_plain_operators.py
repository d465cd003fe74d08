from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from rayprune.deploy.formats.c.c_format import CFormat
from rayprune.deploy.formats.rewriting.plain_operators import in_plain_operators
from rayprune.deploy.policy.capture import capture, plain_copy
from rayprune.errors import InputError
from tests.doubles import policies


class Recalling(nn.Module):
    """A cell that sees an observation twice."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.out = cell, nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        once = self.cell(x)
        twice = self.cell(x, once)
        return self.out(twice[0] if isinstance(twice, tuple) else twice)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = torch.tanh(y)
        z += y
        return self.second(z.relu_())


NETWORKS = {
    "gru": lambda: Recalling(nn.GRUCell(4, 5)),
    "gru without biases": lambda: Recalling(nn.GRUCell(4, 5, bias=False)),
    "lstm": lambda: Recalling(nn.LSTMCell(4, 5)),
    "rnn": lambda: Recalling(nn.RNNCell(4, 5)),
    "relu rnn": lambda: Recalling(nn.RNNCell(4, 5, nonlinearity="relu")),
    "slopes": lambda: nn.Sequential(nn.Linear(4, 5), nn.PReLU(5), nn.Linear(5, 3), nn.PReLU()),
    "hardswish": lambda: nn.Sequential(nn.Linear(4, 5), nn.Hardswish(), nn.Linear(5, 3)),
    "in place": InPlace,
}


QUICK = {"lstm", "in place"}


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_what_is_written_out_is_the_same_and_c_takes_it(name):
    torch.manual_seed(0)
    policy = plain_copy(policies.discrete(NETWORKS[name]()))
    x = 3.0 * torch.randn(1, 4)
    expected = policy(x)[1]
    written = in_plain_operators(capture(policy, batch=1))
    torch.testing.assert_close(written.module()(x)[1], expected, rtol=0.0, atol=1e-6)
    assert written.module()(torch.full((1, 4), torch.nan))[1].isnan().all()
    CFormat().check_policy(policy)


def test_a_graph_that_needs_none_of_it_is_left_alone():
    captured = capture(plain_copy(policies.mlp()), batch=1)
    assert in_plain_operators(captured) is captured


def test_recurrent_layers_both_ways_are_refused_with_the_reason():
    class BothWays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5, batch_first=True, bidirectional=True)
            self.out = nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.gru(x.unsqueeze(1))[0][:, 0])

    told = "this use of `gru` (shape [1, 1, 10]): it must go one way"
    with pytest.raises(InputError, match=re.escape(told)):
        CFormat().check_policy(plain_copy(policies.discrete(BothWays())))
