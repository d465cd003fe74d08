"""What the Learner's optimizers need: fused Adam, and moments that are as sparse as the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

# Fused kernels exist for these devices and floats (torch.optim.Optimizer checks both at each step).
_FUSED_DEVICES = frozenset({"cpu", "cuda"})


def fuse_adam(optimizers: Iterable[Optimizer]) -> None:
    """Let plain Adam and AdamW step in one fused kernel.

    torch's for-loop Adam on a CPU runs several times slower than the fused one, and slower still
    over moments that are mostly zero. The results agree up to rounding. A user who chose
    ``foreach``, ``capturable`` or ``differentiable`` keeps that choice.
    """
    for optimizer in optimizers:
        if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
            continue
        for group in optimizer.param_groups:
            if _may_fuse(group):
                group["fused"] = True


def _may_fuse(group: dict[str, object]) -> bool:
    if any(group.get(key) for key in ("foreach", "capturable", "differentiable")):
        return False
    if group.get("fused") is False:
        return False
    parameters = group["params"]
    assert isinstance(parameters, list)
    return all(p.device.type in _FUSED_DEVICES and torch.is_floating_point(p) for p in parameters)


def moments(optimizers: Iterable[Optimizer], parameter: torch.nn.Parameter) -> Iterator[Tensor]:
    """Yield the optimizer state tensors shaped like ``parameter`` (Adam's moments, momentum)."""
    for optimizer in optimizers:
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                yield value
