"""What the tests of compaction ask of a compacted network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rayprune.deploy.compaction.compact import Compacted
from rayprune.deploy.compaction.trace import tensors_in


def zero(*weights: Tensor) -> None:
    for weight in weights:
        nn.init.zeros_(weight)


def removed(small: Compacted) -> dict[str, int]:
    return {item.layer: item.units for item in small.removed}


def reasons(small: Compacted) -> str:
    return " ".join(f"{item.layer}: {item.reason};" for item in small.left)


def assert_same(module: nn.Module, small: Compacted, example: object, **options: object) -> None:
    """Compare on inputs that `compact` has not seen, in double precision, by our own hand."""
    masked = copy.deepcopy(module).double().eval()
    given = example if isinstance(example, tuple) else (example,)
    drawn = tuple(torch.randn(t.shape, dtype=torch.float64) for t in given)
    ours = tensors_in(masked(*drawn))
    theirs = tensors_in(copy.deepcopy(small.module).double().eval()(*drawn))
    assert [t.shape for t in ours] == [t.shape for t in theirs]
    # The smaller one's biases were rounded to single precision before.
    assert all(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(ours, theirs, strict=True))
    assert small.certificate["errors"]["f64"] <= 1e-12
