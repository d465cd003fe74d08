"""The operators that read parameters, and how each reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rayprune.deploy.compaction.abstract_values import AbstractValue
from rayprune.deploy.compaction.findings import Arguments, Findings, Shapes
from rayprune.deploy.compaction.operators.linear_and_convolution import (
    read_convolution,
    read_linear,
)
from rayprune.deploy.compaction.operators.multihead_attention import read_attention
from rayprune.deploy.compaction.operators.norms import read_layer_norm, read_rms_norm
from rayprune.deploy.compaction.operators.recurrent import read_recurrent

READERS: Final[Mapping[str, Callable[[Findings, Arguments, Shapes], list[AbstractValue]]]] = {
    "linear": read_linear,
    "conv1d": read_convolution,
    "conv2d": read_convolution,
    "lstm": read_recurrent,
    "gru": read_recurrent,
    "multihead_attention": read_attention,
    "layer_norm": read_layer_norm,
    "rms_norm": read_rms_norm,
}
"""By operator."""
