"""The operators that read parameters, and how each reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rayprune.deploy.compaction.abstract_values import AbstractValue
from rayprune.deploy.compaction.findings import Arguments, Findings, Shapes
from rayprune.deploy.compaction.operators.linear_and_convolution import (
    read_convolution,
    read_embedding,
    read_linear,
    read_transposed,
)
from rayprune.deploy.compaction.operators.multihead_attention import read_attention
from rayprune.deploy.compaction.operators.norms import read_layer_norm, read_rms_norm
from rayprune.deploy.compaction.operators.recurrent import read_cell, read_recurrent

READERS: Final[Mapping[str, Callable[[Findings, Arguments, Shapes], list[AbstractValue]]]] = {
    "linear": read_linear,
    "conv1d": read_convolution,
    "conv2d": read_convolution,
    "conv3d": read_convolution,
    "conv_transpose1d": read_transposed,
    "conv_transpose2d": read_transposed,
    "conv_transpose3d": read_transposed,
    "embedding": read_embedding,
    "lstm": read_recurrent,
    "gru": read_recurrent,
    "rnn_tanh": read_recurrent,
    "rnn_relu": read_recurrent,
    "lstm_cell": read_cell,
    "gru_cell": read_cell,
    "rnn_tanh_cell": read_cell,
    "rnn_relu_cell": read_cell,
    "multihead_attention": read_attention,
    "layer_norm": read_layer_norm,
    "rms_norm": read_rms_norm,
}
"""By operator."""
