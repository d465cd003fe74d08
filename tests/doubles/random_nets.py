"""Random networks of every topology that compaction is to follow, and random masks over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "leaky": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "none": nn.Identity,
}
TRUNKS = ("mlp", "conv", "conv1d", "lstm", "gru")
LINEAR_BLOCKS = ("linear", "residual", "concat", "norm")
CONV_BLOCKS = ("conv", "residual", "pad", "pool")


@dataclass(frozen=True)
class Topology:
    trunk: str
    blocks: tuple[str, ...]
    tail: tuple[str, ...]
    heads: int
    width: int
    padding: int
    activation: str
    bias: bool
    depth: int
    bidirectional: bool


@dataclass(frozen=True)
class Cut:
    seed: int
    sparsity: float
    kind: str
    """``weights``, ``units`` (incoming rows), ``readers`` (outgoing columns) or ``mixed``."""


topologies = st.builds(
    Topology,
    trunk=st.sampled_from(TRUNKS),
    blocks=st.lists(st.sampled_from(CONV_BLOCKS), max_size=3).map(tuple),
    tail=st.lists(st.sampled_from(LINEAR_BLOCKS), max_size=3).map(tuple),
    heads=st.integers(1, 3),
    width=st.integers(1, 9),
    padding=st.integers(0, 1),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    bias=st.booleans(),
    depth=st.integers(1, 2),
    bidirectional=st.booleans(),
)
cuts = st.builds(
    Cut,
    seed=st.integers(0, 2**16),
    sparsity=st.sampled_from([0.3, 0.5, 0.7, 0.9, 0.97, 0.999]),
    kind=st.sampled_from(["weights", "units", "readers", "mixed"]),
)


class Sum(nn.Module):
    """A residual block: what comes in and what layers make of it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Beside(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], -1)


class Last(nn.Module):
    """A recurrent layer's outputs."""

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Net(nn.Module):
    """A trunk, and heads that share it."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        t = topology
        trunk, size = _trunk(t)
        self.trunk = nn.Sequential(*trunk)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(size, t.width), ACTIVATIONS[t.activation](), last)
            for last in (nn.Linear(t.width, head + 1) for head in range(t.heads))
        )
        self.log_std = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x)
        outputs = {str(place): head(x) for place, head in enumerate(self.heads)}
        value = outputs["0"]
        outputs["dueling"] = outputs[str(len(self.heads) - 1)] + value
        outputs["std"] = self.log_std.exp().expand_as(value)
        return outputs


def example(topology: Topology, batch: int = 3) -> Tensor:
    shape = {"conv": (2, 7, 7), "conv1d": (2, 33)}.get(topology.trunk, (4,))
    return torch.randn(batch, *((5,) if topology.trunk in ("lstm", "gru") else ()), *shape)


def build(topology: Topology, cut: Cut) -> nn.Module:
    """Return a network whose weights are cut; its biases are random, and some are zero."""
    torch.manual_seed(cut.seed)
    net = Net(topology).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.dim() > 1:
                parameter *= _mask(parameter, cut)
            elif "bias" in name:
                parameter *= torch.rand(parameter.shape) < 0.7
        for cell in net.modules():
            if isinstance(cell, nn.RNNBase):
                _still(cell)
    return net


def _still(cell: nn.RNNBase) -> None:
    """Give some hidden units no new content, so that they stay at zero."""
    units = (torch.rand(cell.hidden_size) < 0.3).nonzero().flatten()
    for parameter in cell.parameters():
        parameter.unflatten(0, (-1, cell.hidden_size))[2, units] = 0


def _mask(weight: Tensor, cut: Cut) -> Tensor:
    kind = cut.kind
    if kind == "mixed":
        kind = ("weights", "units", "readers")[int(torch.randint(3, ()))]
    shape = {"weights": weight.shape, "units": weight.shape[:1], "readers": weight.shape[1:2]}[kind]
    mask = (torch.rand(shape) >= cut.sparsity).float()
    layout: Sequence[int] = [1] * weight.dim()
    if kind == "units":
        layout = [-1, *layout[1:]]
    if kind == "readers":
        layout = [1, -1, *layout[2:]]
    return mask.reshape(layout) if kind != "weights" else mask


def _trunk(t: Topology) -> tuple[list[nn.Module], int]:
    if t.trunk == "mlp":
        layers, size = [nn.Linear(4, t.width), ACTIVATIONS[t.activation]()], t.width
    elif t.trunk in ("lstm", "gru"):
        kind = nn.LSTM if t.trunk == "lstm" else nn.GRU
        cell = kind(
            t.width, t.width + 1, t.depth, batch_first=True, bias=t.bias,
            bidirectional=t.bidirectional,
        )  # fmt: skip
        layers = [nn.Linear(4, t.width), ACTIVATIONS[t.activation](), Last(cell)]
        size = (t.width + 1) * (2 if t.bidirectional else 1)
    else:
        layers, size = _convolutions(t)
    for block in t.tail:
        more, size = _linear_block(t, block, size)
        layers += more
    return layers, size


def _convolutions(t: Topology) -> tuple[list[nn.Module], int]:
    flat = t.trunk == "conv1d"
    conv = nn.Conv1d if flat else nn.Conv2d
    act = ACTIVATIONS[t.activation]
    layers: list[nn.Module] = [conv(2, t.width, 3, padding=t.padding), act()]
    for block in t.blocks:
        if block == "conv":
            layers += [conv(t.width, t.width, 2, padding=t.padding, bias=t.bias), act()]
        elif block == "residual":
            inner = conv(t.width, t.width + 1, 3, padding=1, bias=t.bias)
            layers.append(Sum(act(), inner, act(), conv(t.width + 1, t.width, 3, padding=1)))
        elif block == "pad":
            layers.append(nn.ConstantPad1d(1, 0.0) if flat else nn.ZeroPad2d((1, 0, 1, 1)))
        else:
            layers.append(nn.MaxPool1d(2) if flat else nn.AvgPool2d(2, stride=1, padding=0))
    layers.append(nn.Flatten())
    size = int(nn.Sequential(*layers)(example(t, 1)).shape[-1])
    return layers, size


def _linear_block(t: Topology, block: str, size: int) -> tuple[list[nn.Module], int]:
    act = ACTIVATIONS[t.activation]
    if block == "norm":
        return [nn.LayerNorm(size)], size
    if block == "concat":
        one, other = nn.Linear(size, t.width), nn.Linear(size, t.width + 2, bias=t.bias)
        return [Beside(nn.Sequential(one, act()), other)], 2 * t.width + 2
    if block == "residual":
        inner = nn.Linear(size, t.width, bias=t.bias)
        return [Sum(inner, act(), nn.Linear(t.width, size))], size
    return [nn.Linear(size, t.width, bias=t.bias), act()], t.width
