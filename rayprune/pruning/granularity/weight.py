"""Granularity ``weight``: single weights, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from rayprune.pruning.granularity.base import Part, WeightPart


def weight_parts(layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
    """Make each parameter a part in which each weight competes for itself."""
    return [WeightPart({name: weight.shape}) for name, weight in parameters.items()]
