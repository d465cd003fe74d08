"""How large fully connected nets are, and how wide or sparse one must be to be as large as another.

Layers are their widths from inputs to outputs, such as ``(8, 64, 64, 4)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

WIDE: Final = 256
"""Of the wide arm's hidden layers."""


def parameters(layers: Sequence[int]) -> int:
    """Return how many weights and biases a fully connected net has.

    >>> parameters((8, 64, 64, 4))
    4996
    """
    return sum((a + 1) * b for a, b in itertools.pairwise(layers))


def weights(layers: Sequence[int]) -> int:
    """Return how many weights it has.

    >>> weights((8, 64, 64, 4))
    4864
    """
    return sum(a * b for a, b in itertools.pairwise(layers))


def hiddens(layers: Sequence[int], width: int) -> tuple[int, ...]:
    """Return the net with hidden layers of another width."""
    return (layers[0], *(width for _ in layers[1:-1]), layers[-1])


def small_width(layers: Sequence[int], sparsity: float) -> int:
    """Return the width of the dense net with as many parameters as a sparse one keeps, or more.

    >>> small_width((8, 64, 64, 4), 0.9)
    19
    """
    kept = parameters(layers) - round(sparsity * weights(layers))
    return next(w for w in itertools.count(1) if parameters(hiddens(layers, w)) >= kept)


def unit_sparsity(layers: Sequence[int], sparsity: float) -> float:
    """Return the share of the hidden units that must go for so many of the weights to go.

    >>> unit_sparsity((8, 64, 64, 4), 0.9)
    0.75
    """
    width = layers[1]
    most = (1 - sparsity) * weights(layers)
    kept = max(w for w in range(1, width + 1) if w == 1 or weights(hiddens(layers, w)) <= most)
    return 1 - kept / width


def wide_sparsity(layers: Sequence[int], sparsity: float) -> float:
    """Return the sparsity at which a wide net keeps as many weights as the task's own does.

    >>> round(wide_sparsity((8, 64, 64, 4), 0.9), 4)
    0.9929
    """
    return 1 - (1 - sparsity) * weights(layers) / weights(hiddens(layers, WIDE))
