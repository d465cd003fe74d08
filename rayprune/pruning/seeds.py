"""Random numbers that are the same on every rank and device."""

from __future__ import annotations

import hashlib

import torch


def generator_for(seed: int, name: str, index: int) -> torch.Generator:
    """Return a CPU generator that depends on nothing else: the same on each rank and device.

    Args:
        seed: the run's.
        name: the parameter's full name.
        index: of the mask update.
    """
    digest = hashlib.blake2b(f"{seed}/{index}/{name}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
