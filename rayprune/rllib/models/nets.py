"""The layers that the modules are built of: plain ``torch.nn``, with names that pruning reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import torch
from ray.rllib.core.models.base import ENCODER_OUT
from torch import Tensor, nn

from rayprune.errors import ConfigError

_ACTIVATIONS: Final[Mapping[str, type[nn.Module]]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

NamedLayer = tuple[str, nn.Module]


def chain(layers: Iterable[NamedLayer]) -> nn.Sequential:
    """Return a Sequential whose layers have the given names; without layers, the identity."""
    return nn.Sequential(OrderedDict(layers))


def hidden_layers(size: int, widths: Sequence[int], activation: str) -> Iterator[NamedLayer]:
    """Yield ``hidden0``, ``act0``, ``hidden1``, ...: Linear layers from ``size`` inputs on."""
    for index, width in enumerate(widths):
        yield f"hidden{index}", nn.Linear(size, width)
        yield f"act{index}", _ACTIVATIONS[activation]()
        size = width


def activation(name: str, kind: str) -> Iterator[NamedLayer]:
    """Yield one activation under the name ``name``."""
    yield name, _ACTIVATIONS[kind]()


def convolutions(
    channels: int, filters: Sequence[int], kernels: Sequence[tuple[int, int]], activation: str
) -> Iterator[NamedLayer]:
    """Yield ``conv0``, ``conv_act0``, ``conv1``, ...: Conv2d layers without padding.

    Without padding on purpose: a dead filter's constant output can then be folded into the next
    layer's bias exactly. Padding would surround the constant with zeros that no bias can express.
    """
    for index, (width, (kernel, stride)) in enumerate(zip(filters, kernels, strict=True)):
        yield f"conv{index}", nn.Conv2d(channels, width, kernel, stride)
        yield f"conv_act{index}", _ACTIVATIONS[activation]()
        channels = width


class Block(nn.Module):
    """A pre-activation residual block, ``x + conv1(act(conv0(act(x))))``.

    It must pad to keep the size, so its convolutions have no bias: a dead filter is then exactly
    zero, border included, and can go; and a block that is all zeros is exactly the identity, so it
    can be dropped whole. The stage's first convolution has the bias of the stream.
    """

    residual_branch = ("conv0", "conv1")
    """What goes whole under granularity ``layer``."""

    def __init__(self, channels: int, inner: int, activation: str) -> None:
        super().__init__()
        self.act0 = _ACTIVATIONS[activation]()
        self.conv0 = nn.Conv2d(channels, inner, 3, padding=1, bias=False)
        self.act1 = _ACTIVATIONS[activation]()
        self.conv1 = nn.Conv2d(inner, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to the same shape."""
        update: Tensor = self.conv1(self.act1(self.conv0(self.act0(x))))
        return x + update


class FeedForward(nn.Module):
    """A pre-norm residual block, ``x + fc1(act(fc0(norm(x))))``.

    Without biases: a dead unit inside is exactly zero, and a block that is all zeros is exactly the
    identity, so it can be dropped whole. The norm has the bias that ``fc0`` reads.
    """

    residual_branch = ("fc0", "fc1")
    """What goes whole under granularity ``layer``."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc0 = nn.Linear(width, inner, bias=False)
        self.act = _ACTIVATIONS[activation]()
        self.fc1 = nn.Linear(inner, width, bias=False)
        for layer in (self.fc0, self.fc1):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., width)`` to the same shape."""
        update: Tensor = self.fc1(self.act(self.fc0(self.norm(x))))
        return x + update


class Attention(nn.Module):
    """A pre-norm residual block of tokens that look at each other, ``x + attention(norm(x))``.

    Without biases, for the reasons of `FeedForward`: a head of zeros is exactly nothing.

    Args:
        width: of a token.
        heads: which share the width.
        newest: let the last token alone look, and return it alone: ``(batch, width)``.
    """

    residual_branch = ("attention",)
    """What goes whole under granularity ``layer``."""

    def __init__(self, width: int, heads: int, *, newest: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
        self._newest = newest

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, tokens, width)`` to the same shape, or to the last token's."""
        keys = self.norm(x)
        queries = keys[:, -1:] if self._newest else keys
        update: Tensor = self.attention(queries, keys, keys, need_weights=False)[0]
        return x[:, -1] + update.squeeze(1) if self._newest else x + update


def attention_layers(
    size: int, width: int, heads: int, inners: Sequence[int], activation: str
) -> Iterator[NamedLayer]:
    """Yield ``embed``, ``attention0``, ``block0``, ..., ``norm``, from tokens to one output.

    Args:
        size: of a token that goes in; shape ``(batch, tokens, size)``.
        width: of the residual stream, and of what comes out, ``(batch, width)``.
        heads: of each attention layer.
        inners: units in the feed-forward part of each block; 0 leaves that part out.
        activation: inside the feed-forward parts.
    """
    yield "embed", nn.Linear(size, width)
    for place, inner in enumerate(inners):
        # What other tokens become in the last block nobody reads.
        newest = place == len(inners) - 1
        yield f"attention{place}", Attention(width, heads, newest=newest)
        if inner:
            yield f"block{place}", FeedForward(width, inner, activation)
    yield "norm", nn.LayerNorm(width)


def residual_layers(
    size: int, width: int, inners: Sequence[int], activation: str
) -> Iterator[NamedLayer]:
    """Yield ``embed``, ``block0``, ``block1``, ..., ``norm``: SimBa, arXiv:2410.09754.

    Args:
        size: inputs.
        width: of the residual stream, and of what comes out.
        inners: units inside each block; with 0 there is none, and the others keep their names.
        activation: inside the blocks.
    """
    embed = nn.Linear(size, width)
    nn.init.orthogonal_(embed.weight)
    nn.init.zeros_(embed.bias)
    yield "embed", embed
    for place, inner in enumerate(inners):
        if inner:
            yield f"block{place}", FeedForward(width, inner, activation)
    yield "norm", nn.LayerNorm(width)


def stages(
    channels: int, widths: Sequence[int], blocks: Sequence[Sequence[int]], activation: str
) -> Iterator[NamedLayer]:
    """Yield ``stage0``, ``stage1``, ...: each a convolution, a pooling that halves, and blocks.

    Blocks are named by their place in ``blocks``, so that dropping one (a width of 0) leaves the
    others' names, and with them their masks and checkpoints, as they are.
    """
    for index, (width, inners) in enumerate(zip(widths, blocks, strict=True)):
        layers: list[NamedLayer] = [
            ("conv", nn.Conv2d(channels, width, 3, padding=1)),
            ("pool", nn.MaxPool2d(3, stride=2, padding=1)),
        ]
        layers += [
            (f"block{place}", Block(width, inner, activation))
            for place, inner in enumerate(inners)
            if inner
        ]
        yield f"stage{index}", chain(layers)
        channels = width


def output_shape(layers: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the ``(channels, height, width)`` that ``layers`` make of an image of ``shape``."""
    try:
        with torch.no_grad():
            channels, height, width = layers(torch.zeros(1, *shape)).shape[1:]
    except RuntimeError as error:
        raise ConfigError(
            f"`model_config.kernels` don't fit into images of {shape[1]}x{shape[2]} pixels: "
            f"{error}. Take smaller kernels or strides, or larger images."
        ) from error
    return channels, height, width


class FreeLogStd(nn.Module):
    """Appends a log-std that depends on no observation to a policy's means."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(size))

    def forward(self, mean: Tensor) -> Tensor:
        """Map ``(..., size)`` to ``(..., 2 * size)``."""
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=-1)


class ColumnEncoder(nn.Module):
    """A net over columns of a batch, as RLlib's modules with Q-networks call their encoders.

    Args:
        layers: of the net.
        columns: what it reads, side by side.
    """

    def __init__(self, layers: Iterable[NamedLayer], columns: Sequence[str]) -> None:
        super().__init__()
        self.net = chain(layers)
        self._columns = tuple(columns)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``{ENCODER_OUT: (batch, width)}``."""
        columns = [batch[column] for column in self._columns]
        whole = columns[0] if len(columns) == 1 else torch.cat(columns, dim=-1)
        return {ENCODER_OUT: self.net(whole)}
