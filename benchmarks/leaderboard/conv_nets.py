"""Actors of convolutions, counted: how narrow a dense one is with as many parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rayprune.pruning.masks.topk import kept_count


@dataclass(frozen=True, slots=True)
class ConvNet:
    """Convolutions, padded to keep the image's size, and a hidden layer on all that they make.

    >>> net = ConvNet(4, 10, ((16, 3, 1), (16, 3, 2)), 128, 3)
    >>> net.weights, net.parameters
    (54464, 54627)
    >>> small = net.small(0.9)
    >>> small.filters, small.hidden, small.parameters
    (((5, 3, 1), (5, 3, 2)), 41, 5707)
    >>> net.unit_sparsity(0.9)
    0.6953125
    """

    channels: int
    """Of the image."""
    size: int
    """The image's height, and its width."""
    filters: tuple[tuple[int, int, int], ...]
    """Of each convolution: how many, their height as width, stride."""
    hidden: int
    outputs: int

    @property
    def weights(self) -> int:
        """How many weights it has."""
        return sum(inputs * units for inputs, units in self._layers())

    @property
    def parameters(self) -> int:
        """How many weights and biases it has."""
        return sum((inputs + 1) * units for inputs, units in self._layers())

    def of_hidden(self, hidden: int) -> ConvNet:
        """Return the net with another hidden layer, and filters in proportion, one at least."""
        share = hidden / self.hidden
        filters = tuple((max(1, round(n * share)), *rest) for n, *rest in self.filters)
        return replace(self, hidden=hidden, filters=filters)

    def small(self, sparsity: float) -> ConvNet:
        """Return the dense net with as many parameters as a sparse one keeps, or more."""
        kept = self.parameters - round(sparsity * self.weights)
        narrow = map(self.of_hidden, itertools.count(1))
        return next(net for net in narrow if net.parameters >= kept)

    def unit_sparsity(self, sparsity: float) -> float:
        """Return the share of its units, in every layer, that must go for so many weights to go."""
        most = (1 - sparsity) * self.weights
        shares = (gone / self.hidden for gone in range(self.hidden))
        return next(share for share in shares if self._without(share).weights <= most)

    def _without(self, share: float) -> ConvNet:
        filters = tuple((kept_count(n, share), *rest) for n, *rest in self.filters)
        return replace(self, hidden=kept_count(self.hidden, share), filters=filters)

    def _layers(self) -> Iterator[tuple[int, int]]:
        """Yield inputs of a unit, and units."""
        channels, size = self.channels, self.size
        for units, kernel, stride in self.filters:
            yield channels * kernel**2, units
            channels, size = units, -(-size // stride)
        yield channels * size**2, self.hidden
        yield self.hidden, self.outputs
