"""A policy whose forward has sizes written into it is exported smaller, in every format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.formats import format_named, open_artifact
from rayprune.deploy.formats.c.compiler import find_compiler
from rayprune.deploy.policy.agreement import agreement
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.runs import module_run
from tests.doubles import policies


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.out = nn.Linear(4, 32), nn.Linear(16, 3)
        dead = torch.arange(0, 16, 2)
        with torch.no_grad():
            for rows in (dead, dead + 16):
                self.both.weight[rows] = self.both.bias[rows] = 0

    def forward(self, x: Tensor) -> Tensor:
        both = self.both(x)
        return self.out(both[:, :16] * torch.sigmoid(both[:, 16:]) + 0.1 * torch.arange(16))


COMPILED = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
KINDS = [
    "torch",
    pytest.param("c", marks=COMPILED),
    pytest.param("onnx", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_acts_as_the_policy_with_half_of_its_units(kind, tmp_path):
    torch.manual_seed(0)
    policy = policies.discrete(Halves())
    seen = [np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)]
    path = tmp_path / f"policy{format_named(kind).suffix}"
    told = export_policy(policy, path, kind, recorded=seen, about={})
    assert told["parameters"]["total"] == 16 * 5 + 3 * 9
    expected = module_run(plain_copy(policy))(seen)
    assert agreement(policy.interface, expected, open_artifact(path).run(seen)).holds
