"""Random networks of convolutions, positions, bare weights and cells, with random masks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Made = tuple[nn.Module, tuple[int, ...]]
"""A network, and the shape of a batch of its inputs."""
Act = Callable[[Tensor], Tensor]

ACTIVATIONS: Sequence[Act] = (torch.relu, torch.tanh, torch.sigmoid, functional.silu, torch.clone)


class Net(nn.Module):
    """Layers, or bare weights, and a forward of them."""

    def __init__(self, parts: Sequence[nn.Module | Tensor], read: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))
        self.weights = nn.ParameterList(part for part in parts if isinstance(part, Tensor))
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x, *self.layers, *self.weights)


def drawn(seed: int) -> Made:
    """Return a network with 30 to 99 % of its weights, rows, columns or both dead."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    net, shape = draw.choice(FAMILIES)(draw, draw.choice(ACTIVATIONS))
    net.eval().requires_grad_(False)
    share, how = draw.uniform(0.3, 0.99), draw.choice(["rows", "columns", "both", "weights"])
    for weight in net.parameters():
        if weight.dim() == 1:
            weight *= torch.rand(weight.shape) >= 0.5
            continue
        if how == "weights":
            weight *= torch.rand(weight.shape) >= share
        for axis, name in enumerate(("rows", "columns")):
            if how in (name, "both"):
                dead = torch.rand(weight.shape[axis]) < share
                weight.index_fill_(axis, dead.nonzero()[:, 0], 0)
    return net, shape


def convolutional(draw: random.Random, act: Act) -> Made:
    dims, groups = draw.choice([1, 2, 3]), draw.choice([1, 2, 3, 4])
    conv = getattr(nn, f"Conv{dims}d")
    kind = getattr(nn, f"ConvTranspose{dims}d") if draw.random() < 0.4 else conv
    inner, outer = groups * draw.choice([1, 1, 2, 3]), groups * draw.randint(1, 3)
    after = draw.choice(["nothing", "interpolate", "max", "mean", "shuffle"])
    if after == "shuffle" and (dims != 2 or outer % 4):
        after = "nothing"
    layers = [
        conv(2, inner, 1, bias=draw.random() < 0.7),
        kind(inner, outer, draw.choice([1, 2]), groups=groups, bias=draw.random() < 0.6),
        conv(outer // 4 if after == "shuffle" else outer, 3, 1),
    ]
    steps: dict[str, Act] = {
        "nothing": torch.clone,
        "interpolate": lambda y: functional.interpolate(y, scale_factor=2),
        "max": lambda y: getattr(functional, f"adaptive_max_pool{dims}d")(y, 2),
        "mean": lambda y: getattr(functional, f"adaptive_avg_pool{dims}d")(y, 2),
        "shuffle": lambda y: functional.pixel_shuffle(y, 2),
    }
    return Net(layers, lambda x, a, b, c: c(steps[after](act(b(act(a(x))))))), (2, 2, *[4] * dims)


def positional(draw: random.Random, act: Act) -> Made:
    width = draw.choice([4, 6, 8, 12])
    half = width // 2
    cuts: Sequence[Act] = (
        lambda y: y[:, :half] * torch.sigmoid(y[:, half:]),
        lambda y: torch.cat(y.split(3, 1)[::-1], 1),
        lambda y: y.view(-1, 2, half).transpose(1, 2).reshape(-1, width),
        lambda y: act(y.view(-1, half, 2)).flatten(1),
        functional.glu,
        lambda y: y[:, torch.arange(width - 1, -1, -1)],
        lambda y: y.roll(1, 1) + y,
        lambda y: y.flip(1) * y,
        lambda y: y.chunk(3, 1)[0],
        lambda y: torch.stack([y[:, 0], y[:, -1], y[:, 1]], 1),
        lambda y: torch.mul(*y.view(-1, 2, half).unbind(1)),
        lambda y: y * torch.arange(width) + torch.ones(width),
    )
    cut = draw.choice(cuts)
    inner = cut(torch.zeros(1, width)).shape[1]
    layers = [
        nn.Linear(4, width, bias=draw.random() < 0.7),
        nn.Linear(inner, 5, bias=draw.random() < 0.7),
        nn.Linear(5, 2),
    ]
    return Net(layers, lambda x, a, b, c: c(act(b(cut(act(a(x))))))), (4, 4)


def bare(draw: random.Random, act: Act) -> Made:
    width = draw.randint(2, 7)
    reads: Sequence[Callable[..., Tensor]] = (
        lambda x, w, b, v, c: act(x @ w.T + b) @ v.T + c,
        lambda x, w, b, v, c: torch.einsum(
            "bh,oh->ob", act(torch.einsum("bi,hi->bh", x, w) * b), v
        ),
        lambda x, w, b, v, c: functional.linear(act(functional.linear(x, w, b)), w.T) @ w.T @ v.T,
        lambda x, w, b, v, c: (act(functional.linear(x, w)) * b) @ v.T,
        lambda x, w, b, v, c: (act(w @ x.T) + b[:, None]).T @ v.T,
        lambda x, w, b, v, c: torch.addmm(c, act(torch.addmm(b, x, w.T)), v.T),
    )
    weights = [torch.randn(*shape) for shape in ((width, 4), (width,), (5, width), (5,))]
    return Net(weights, draw.choice(reads)), (4, 4)


def multiplied(draw: random.Random, act: Act) -> Made:
    """Products of activations, most of them as attention has them."""
    heads, width = draw.choice([1, 2, 3]), draw.choice([1, 2, 4])
    both = draw.choice(["bqhd,bkhd->bhqk", "bqhd,bkhd->bqkh", "bkhd,bqhd->bqhk", "bqhd,bqhd->bqh"])
    result = both.partition(">")[2]
    last = f"{result},bkhd->bqhd" if "k" in result else "bqh,bqhd->bqhd"
    bias = draw.random() < 0.7
    layers = [nn.Linear(4, heads * width, bias=bias) for _ in range(3)]

    def read(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, o: nn.Module) -> Tensor:
        q, k, v = (act(part(x)).unflatten(-1, (heads, width)) for part in (a, b, c))
        scores = torch.einsum(both, q, k)
        return o(torch.einsum(last, act(scores), v).flatten(2))

    return Net([*layers, nn.Linear(heads * width, 2)], read), (2, 3, 4)


def recurrent(draw: random.Random, act: Act) -> Made:
    width, bias = draw.randint(2, 6), draw.random() < 0.7
    head = nn.Linear(width, 2)
    if draw.random() < 0.3:
        layer = nn.RNN(4, width, draw.choice([1, 2]), batch_first=True, bias=bias)
        return Net([layer, head], lambda x, a, b: b(a(x[:, None].expand(-1, 3, -1))[0])), (4, 4)
    cell = draw.choice([nn.GRUCell, nn.LSTMCell, nn.RNNCell])(4, width, bias=bias)
    return Net([cell, head], _steps), (4, 4)


def _steps(x: Tensor, cell: nn.Module, head: nn.Module) -> Tensor:
    state = None
    for _ in range(2):
        state = cell(x, state)
    return head(state[0] if isinstance(state, tuple) else state)


FAMILIES = (convolutional, positional, bare, multiplied, recurrent)
