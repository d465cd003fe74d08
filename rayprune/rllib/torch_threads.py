"""How many threads torch computes with, in a process that steps small networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn

SMALL: Final = 500_000
"""Parameters of a policy. Below it a second core makes an update at most 1.6 times as fast."""


@contextmanager
def fitting_threads(module: nn.Module) -> Iterator[None]:
    """Compute with one thread where ``module`` is small.

    Torch takes a thread for every core. For a small network that gains little on an idle machine,
    and on a busy one every step waits for the slowest thread, and burns what others could use: 15
    times as long, measured with 20 environments on two cores. What `OMP_NUM_THREADS` allows is
    never exceeded.
    """
    before = torch.get_num_threads()
    small = sum(parameter.numel() for parameter in module.parameters()) < SMALL
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
