"""Policies with attention: their dead heads go on the way to a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.formats.c.compiler import find_compiler
from tests.doubles import policies


class Tokens(nn.Module):
    """An encoder layer over three tokens, and a layer that gives its weights too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Linear(4, 24), nn.Linear(8, 3)
        self.first = nn.TransformerEncoderLayer(8, 4, 8, batch_first=True, dropout=0.0)
        self.second = nn.MultiheadAttention(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(self.embed(x).unflatten(1, (3, 8))).transpose(0, 1)
        return self.out(self.second(tokens, tokens, tokens)[0][-1])


@torch.no_grad()
def without_heads(layer: nn.MultiheadAttention) -> None:
    """Kill the first and the last of four heads of two rows, and a row of a third."""
    dead = torch.tensor([True, True, True, False, False, False, True, True])
    layer.in_proj_weight[dead.repeat(3)] = 0
    layer.in_proj_bias[dead.repeat(3)] = 0
    layer.out_proj.weight[:, dead] = 0


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        pytest.param("torch", ".pt2", marks=pytest.mark.slow),
        pytest.param("onnx", ".onnx", marks=pytest.mark.slow),
        pytest.param(
            "c", ".c", marks=pytest.mark.skipif(find_compiler() is None, reason="needs a compiler")
        ),
    ],
)
def test_a_file_of_a_policy_with_dead_heads_holds_those_that_are_left(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    network = Tokens()
    for layer in (network.first.self_attn, network.second):
        without_heads(layer)
    recorded = [np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)]
    told = export_policy(
        policies.discrete(network), tmp_path / f"policy{suffix}", kind, recorded=recorded, about={}
    )
    removed = told["compaction"]["removed"]
    heads = {r["layer"].rpartition(".")[2]: r["units"] for r in removed if r["kind"] == "head"}
    assert heads == {"self_attn": 2, "second": 2}
