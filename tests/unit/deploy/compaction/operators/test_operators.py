"""What a hand reaches through each operator, and the same outputs under any mask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune import compact
from rayprune.deploy.compaction.live import TrainedNetwork, plan_live
from rayprune.pruning.measures.counting import count_parameters
from tests.unit.deploy.compaction.operators.operator_nets import Net

DEAD = torch.arange(0, 16, 2)
HALF = torch.arange(8)


def without_rows(layer: nn.Module, rows: Tensor, axis: int = 0) -> nn.Module:
    with torch.no_grad():
        layer.weight.index_fill_(axis, rows, 0)
        if layer.bias is not None:
            layer.bias[rows] = 0
    return layer


def without_units(cell: nn.RNNCellBase | nn.RNNBase) -> nn.Module:
    with torch.no_grad():
        for weight in cell.parameters():
            weight.view(-1, 16, *weight.shape[1:])[:, DEAD] = 0
    return cell


def weight(*shape: int, dead: int | None = None) -> Tensor:
    made = torch.randn(*shape)
    return made if dead is None else made.index_fill_(dead, DEAD, 0)


def in_line(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers[:-1]:
        x = torch.relu(layer(x))
    return layers[-1](x)


def steps(x: Tensor, cell: nn.Module, head: nn.Module) -> Tensor:
    state = None
    for _ in range(3):
        state = cell(x, state)
    return head(state[0] if isinstance(state, tuple) else state)


def convolutions(kind: type, inner: nn.Module, dead: Tensor, given: int) -> list[nn.Module]:
    return [without_rows(kind(2, 16, 1), dead), inner, kind(given, 3, 1)]


L = nn.Linear
X, IMAGE = (4, 6), (2, 2, 5, 5)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "depthwise": (
        lambda: Net(
            convolutions(
                nn.Conv2d,
                without_rows(nn.Conv2d(16, 16, 3, padding=1, groups=16), DEAD),
                DEAD,
                16,
            ),
            in_line,
        ),
        IMAGE,
        8 * 3 + 8 * 10 + 3 * 9,
    ),
    "two of four groups": (
        lambda: Net(
            convolutions(nn.Conv1d, without_rows(nn.Conv1d(16, 16, 3, groups=4), HALF), HALF, 16),
            in_line,
        ),
        (2, 2, 5),
        8 * 3 + 8 * 13 + 3 * 9,
    ),
    "the same of each group": (
        lambda: Net(convolutions(nn.Conv1d, nn.Conv1d(16, 8, 3, groups=4), DEAD, 8), in_line),
        (2, 2, 5),
        8 * 3 + 8 * 7 + 3 * 9,
    ),
    "transposed": (
        lambda: Net(
            convolutions(
                nn.Conv2d,
                without_rows(nn.ConvTranspose2d(16, 16, 3, stride=2), DEAD, 1),
                DEAD,
                16,
            ),
            in_line,
        ),
        IMAGE,
        8 * 3 + 8 * 8 * 9 + 8 + 3 * 9,
    ),
    "transposed in groups": (
        lambda: Net(
            convolutions(
                nn.Conv1d,
                without_rows(nn.ConvTranspose1d(16, 16, 3, groups=16), DEAD, 0),
                DEAD,
                16,
            ),
            in_line,
        ),
        (2, 2, 5),
        8 * 3 + 8 * 4 + 3 * 9,
    ),
    "volumes": (
        lambda: Net(
            convolutions(nn.Conv3d, without_rows(nn.Conv3d(16, 16, 2), DEAD), DEAD, 16), in_line
        ),
        (2, 2, 3, 3, 3),
        8 * 3 + 8 * 8 * 8 + 8 + 3 * 9,
    ),
    "x @ w.T + b": (
        lambda: Net(
            [weight(16, 6, dead=0), weight(16, dead=0), weight(3, 16)],
            lambda x, w, b, v: torch.relu(x @ w.T + b) @ v.T,
        ),
        X,
        8 * 7 + 24,
    ),
    "w @ x, addmm": (
        lambda: Net(
            [weight(16, 6, dead=0), weight(16, 3), weight(3)],
            lambda x, w, v, b: torch.addmm(b, torch.tanh(w @ x.T).T, v),
        ),
        X,
        8 * 6 + 24 + 3,
    ),
    "einsum": (
        lambda: Net(
            [weight(6, 16, dead=1), weight(3, 16)],
            lambda x, w, v: torch.einsum("bh,oh->bo", torch.einsum("bi,ih->bh", x, w).tanh(), v),
        ),
        X,
        8 * 6 + 24,
    ),
    "a weight read both ways": (
        lambda: Net(
            [weight(16, 6, dead=0)],
            lambda x, w: functional.linear(torch.relu(functional.linear(x, w)), w.T),
        ),
        X,
        8 * 6,
    ),
    "a scale and an embedding": (
        lambda: Net(
            [nn.Embedding(5, 16), L(16, 3), weight(16, dead=0)],
            lambda x, table, head, scale: head(table(x.abs().long() % 5) * scale),
        ),
        X,
        8 * 5 + 8 + 27,
    ),
    "RNN": (
        lambda: Net(
            [without_units(nn.RNN(6, 16, 2, batch_first=True)), L(16, 3)],
            lambda x, cell, head: head(cell(x[:, None])[0]),
        ),
        X,
        8 * (6 + 8 + 2) + 8 * (8 + 8 + 2) + 27,
    ),
    **{
        kind.__name__: (
            lambda kind=kind: Net([without_units(kind(6, 16)), L(16, 3)], steps),
            X,
            gates * 8 * (6 + 8 + 2) + 27,
        )
        for kind, gates in ((nn.RNNCell, 1), (nn.GRUCell, 3), (nn.LSTMCell, 4))
    },
}


@pytest.mark.parametrize("name", CASES)
def test_as_much_goes_as_by_hand(name):
    make, shape, count = CASES[name]
    torch.manual_seed(0)
    small = compact(make().eval(), torch.randn(shape))
    assert count_parameters(small.module).total == count, small.left
    assert small.max_error <= 1e-5
    assert not small.left


@pytest.mark.parametrize("name", CASES)
def test_any_mask_leaves_the_outputs_as_they_are(name):
    make, shape, _ = CASES[name]
    torch.manual_seed(1)
    for sparsity in (0.5, 0.9):
        net = make().eval().requires_grad_(False)
        for parameter in net.parameters():
            if parameter.dim() > 1:
                rows, columns = (torch.rand(n) >= sparsity for n in parameter.shape[:2])
                mask = rows[:, None] & columns if sparsity < 0.9 else rows[:, None]
                parameter *= mask.reshape(*mask.shape, *[1] * (parameter.dim() - 2))
            else:
                parameter *= torch.rand(parameter.shape) >= 0.5
        small, x = compact(net, torch.randn(shape)), torch.randn(shape)
        assert (net(x) - small.module(x)).abs().max() <= 1e-5


def test_a_scale_that_is_zero_but_not_masked_may_learn_again():
    net = Net([L(6, 16), L(16, 3), torch.ones(16)], lambda x, a, b, scale: b(a(x) * scale))
    net.weights[0].data[DEAD] = 0
    masks = {"layers.0.weight": torch.ones(16, 6, dtype=torch.bool)}
    given = TrainedNetwork(net, torch.randn(4, 6), lambda m, x: m(x), masks)
    assert not plan_live(given).removed
    assert compact(net, torch.randn(4, 6)).module.layers[0].out_features == 8
