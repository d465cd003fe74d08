"""Distribution ``global``: what scores lowest in the whole budget goes, whatever its layer."""

from __future__ import annotations

from collections.abc import Mapping

from rayprune.pruning.distributions.base import Shape


def global_(
    shapes: Mapping[str, Shape], sparsity: float, protected: frozenset[str] = frozenset()
) -> None:
    """Let all weights of the budget that are not protected compete in one scope."""
    del shapes, sparsity, protected  # one scope, whatever they are
