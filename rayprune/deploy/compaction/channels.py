"""Channels: which units of a network can only go together, and which can't go at all."""

from __future__ import annotations

import torch
from torch import Tensor

PINNED = 0
"""The channel of what must stay: inputs, outputs, and all that nothing is known of."""
FREE = -1
"""The channel of constants that the forward makes itself, sized like what they meet."""


class Channels:
    """A forest of sets of units (union-find); a set goes whole or not at all.

    >>> channels = Channels()
    >>> a, b = channels.new(2), channels.new(2)
    >>> channels.tie(a, b)
    >>> channels.pin(a[:1])
    >>> channels.sets(torch.cat([a, b])).tolist()
    [0, 2, 0, 2]
    """

    def __init__(self) -> None:
        self._parents = [PINNED]
        self._roots: Tensor | None = None

    def __len__(self) -> int:
        return len(self._parents)

    def new(self, count: int) -> Tensor:
        """Return ``count`` channels that nothing is tied to yet, shape ``(count,)``."""
        first, self._roots = len(self._parents), None
        self._parents.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Make channels go together, element by element; both broadcast to one shape."""
        one, other = torch.broadcast_tensors(one, other)
        meets = (one != FREE) & (other != FREE) & (one != other)
        pairs = torch.stack([one[meets], other[meets]])
        if pairs.numel():
            self._roots = None
        for a, b in torch.unique(pairs, dim=1).T.tolist():
            a, b = self._root(a), self._root(b)
            # The lower one leads, so that PINNED leads whatever it is tied to.
            self._parents[max(a, b)] = min(a, b)

    def pin(self, channels: Tensor) -> None:
        """Say that these must stay."""
        self.tie(channels, torch.tensor(PINNED))

    def sets(self, channels: Tensor) -> Tensor:
        """Return each channel's set, named by its lowest member; ``FREE`` counts as pinned."""
        if self._roots is None:
            self._roots = torch.tensor([self._root(c) for c in range(len(self._parents))])
        return self._roots[channels.clamp(min=PINNED)]

    def _root(self, channel: int) -> int:
        while self._parents[channel] != channel:
            self._parents[channel] = self._parents[self._parents[channel]]
            channel = self._parents[channel]
        return channel
