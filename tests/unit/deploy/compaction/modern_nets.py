"""Random networks of what policies are made of today, and random masks over their units."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Rng = torch.Generator


def _int(draw: Rng, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=draw))


def _norm(draw: Rng, size: int) -> nn.Module:
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.LayerNorm(size),
        lambda: nn.RMSNorm(size),
        lambda: nn.LayerNorm(size, elementwise_affine=False),
        lambda: nn.RMSNorm(size, eps=1e-6),
        nn.Identity,
    ]
    return kinds[_int(draw, 0, len(kinds) - 1)]()


class SimBa(nn.Module):
    """Residual blocks behind norms, a norm at the end, and two heads."""

    def __init__(self, draw: Rng) -> None:
        super().__init__()
        size, hidden = _int(draw, 2, 9), _int(draw, 2, 12)
        self.first = nn.Linear(4, size)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                _norm(draw, size), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, size)
            )
            for _ in range(_int(draw, 1, 3))
        )
        self.last = nn.LayerNorm(size)
        self.heads = nn.ModuleList([nn.Linear(size, 2), nn.Linear(size, 1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        x = self.last(x)
        return [head(x) for head in self.heads]


class Gated(nn.Module):
    """Products of two branches, of layers of their own or of one that is split."""

    def __init__(self, draw: Rng) -> None:
        super().__init__()
        size, hidden = _int(draw, 2, 8), _int(draw, 2, 9)
        self.kind = ("apart", "chunk", "glu")[_int(draw, 0, 2)]
        self.first, self.norm = nn.Linear(4, size), _norm(draw, size)
        self.gate = nn.Linear(size, hidden if self.kind == "apart" else 2 * hidden)
        self.up = nn.Linear(size, hidden) if self.kind == "apart" else None
        self.down, self.out = nn.Linear(hidden, size), nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.first(x)
        y = self.norm(stream)
        gate = self.gate(y)
        if self.up is not None:
            y = functional.silu(gate) * self.up(y)
        elif self.kind == "chunk":
            one, other = gate.chunk(2, dim=-1)
            y = torch.sigmoid(one) * other
        else:
            y = functional.glu(gate)
        return self.out(stream + self.down(y))


class MobileNet(nn.Module):
    """Pointwise and depthwise convolutions with norms between, some with a residual."""

    def __init__(self, draw: Rng) -> None:
        super().__init__()
        groups, each = _int(draw, 1, 3), _int(draw, 1, 3)
        size, hidden = _int(draw, 2, 6), groups * each
        norms = [
            lambda: nn.BatchNorm2d(hidden),
            lambda: nn.GroupNorm(groups, hidden),
            lambda: nn.InstanceNorm2d(hidden, affine=True),
            lambda: nn.BatchNorm2d(hidden, affine=False),
        ]
        norm = norms[_int(draw, 0, len(norms) - 1)]
        self.first, self.start = nn.Conv2d(2, size, 3, bias=False), nn.BatchNorm2d(size)
        depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.block = nn.Sequential(
            nn.Conv2d(size, hidden, 1, bias=False), norm(), nn.ReLU6(), depthwise, norm(),
            nn.ReLU6(), nn.Conv2d(hidden, size, 1), nn.BatchNorm2d(size),
        )  # fmt: skip
        self.out = nn.Linear(size, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.start(self.first(x)))
        return self.out((x + self.block(x)).mean((2, 3)))


class Transformer(nn.Module):
    """Attention of several heads, by hand or torch's, and a feed-forward part, both residual."""

    def __init__(self, draw: Rng) -> None:
        super().__init__()
        self.heads = _int(draw, 1, 3)
        size = self.heads * _int(draw, 1, 3)
        self.first = nn.Linear(4, size)
        self.one, self.other = _norm(draw, size), nn.LayerNorm(size)
        self.own = bool(_int(draw, 0, 1))
        if self.own:
            self.attention = nn.MultiheadAttention(size, self.heads, batch_first=True)
        else:
            self.q, self.k, self.v, self.o = (nn.Linear(size, size) for _ in range(4))
        hidden = _int(draw, 2, 9)
        self.inner = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))
        self.out = nn.Linear(size, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self._attend(self.one(x))
        return self.out((x + self.inner(self.other(x)))[:, -1])

    def _attend(self, x: Tensor) -> Tensor:
        if self.own:
            attended: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return attended
        batch, time, size = x.shape
        q, k, v = (
            layer(x).view(batch, time, self.heads, size // self.heads).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        joined: Tensor = self.o(y.transpose(1, 2).reshape(batch, time, size))
        return joined


FAMILIES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "simba": (SimBa, (4,)),
    "gated": (Gated, (4,)),
    "mobilenet": (MobileNet, (2, 6, 6)),
    "transformer": (Transformer, (3, 4)),
}
"""By name: the network, and the shape of one of its inputs."""


@torch.no_grad()
def drawn(family: str, seed: int) -> nn.Module:
    """Return a network with a share of 30 to 99 % of its units dead.

    Units die by their rows, by the columns that read them, or by both in all layers that are as
    wide (as those of a residual stream are); biases stay, go or are mixed.
    """
    torch.manual_seed(seed)
    draw = Rng().manual_seed(seed)
    net = FAMILIES[family][0](draw).eval()
    for tensor in [*net.parameters(), *net.buffers()]:
        if tensor.dim() == 1 and tensor.is_floating_point():
            tensor.uniform_(0.2, 1.5)  # norms' weights and statistics, and biases
    share = 0.3 + 0.69 * float(torch.rand((), generator=draw))
    how = ("rows", "columns", "both", "weights")[_int(draw, 0, 3)]
    dead: dict[int, Tensor] = {}
    for parameter in net.parameters():
        if parameter.dim() < 2:
            continue
        for axis in (0, 1):
            size = parameter.shape[axis]
            same = dead.setdefault(size, torch.rand(size, generator=draw) < share)
            own = torch.rand(size, generator=draw) < share
            if how == "both" or how == ("rows", "columns")[axis]:
                parameter.index_fill_(axis, (same if how == "both" else own).nonzero()[:, 0], 0)
        if how == "weights":
            parameter *= torch.rand(parameter.shape, generator=draw) >= share
    for name, parameter in net.named_parameters():
        if name.endswith("bias") and _int(draw, 0, 1):
            parameter *= torch.rand(parameter.shape, generator=draw) >= share
    return net


def inputs(family: str, batch: int = 3) -> Tensor:
    """Return random inputs."""
    return torch.randn(batch, *FAMILIES[family][1])
