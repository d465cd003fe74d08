"""Which precision scores are computed in."""

from __future__ import annotations

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def scored(tensor: Tensor) -> Tensor:
    """Return a tensor in the precision of scores: half precision as float32, others as they are.

    In float16 a square below 6e-8 is zero; in bfloat16 a sum stops growing after 256 terms.

    >>> scored(torch.zeros(1, dtype=torch.bfloat16)).dtype, scored(torch.zeros(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return tensor.float() if tensor.dtype in HALVES else tensor
