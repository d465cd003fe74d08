"""Tensors as plain values of a state: copies on the CPU, masks packed to bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def copied(held: Any) -> Tensor:
    """Return a copy on the CPU that shares nothing with a tensor, or with a NumPy array."""
    if isinstance(held, Tensor):
        return held.detach().cpu().clone()
    return torch.from_numpy(np.array(held))  # copied first: Ray's arrays can't be written to


def packed(mask: Tensor) -> Tensor:
    """Pack a bool tensor to bits.

    >>> packed(torch.tensor([[True, False], [False, True]]))
    tensor([144], dtype=torch.uint8)
    """
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def unpacked(bits: Any, shape: Sequence[int]) -> Tensor:
    """Unpack what `packed` packed.

    Args:
        bits: a uint8 tensor, or a NumPy array: RLlib's checkpoints hold those.
        shape: the mask's.

    Raises:
        ValueError: there are too few or too many.

    >>> unpacked(torch.tensor([144], dtype=torch.uint8), (2, 2)).tolist()
    [[True, False], [False, True]]
    """
    count = math.prod(shape)
    held = np.asarray(bits, dtype=np.uint8)
    if held.shape != ((count + 7) // 8,):
        raise ValueError(f"a mask of {held.size} bytes for shape {tuple(shape)}")
    return torch.from_numpy(np.unpackbits(held, count=count).astype(bool).reshape(shape))
