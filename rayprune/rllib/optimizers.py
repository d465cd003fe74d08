"""What the Learner's optimizers need: fused Adam, fewer checks, moments as sparse as weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
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


@contextmanager
def checks_spared(
    config: AlgorithmConfig, gradients: Mapping[Any, Tensor | None]
) -> Iterator[None]:
    """Spare RLlib two checks of every gradient for NaN when one look at their norms will do.

    RLlib's ``apply_gradients`` asks ``isfinite().all()`` of each gradient twice: several kernels
    and, on a GPU, two waits for each parameter. Finite norms say the same of all at once. Where a
    norm is not finite (or too large for a float) nothing is spared, and RLlib does what it does.

    Args:
        config: the Learner's own; its ``torch_skip_nan_gradients`` switches the checks off.
        gradients: what is about to be applied.
    """
    found = [gradient for gradient in gradients.values() if gradient is not None]
    if config.torch_skip_nan_gradients or not found or not _all_finite(found):
        yield
        return
    # Not by assignment, which a frozen config refuses; and put back whatever happens.
    vars(config)["torch_skip_nan_gradients"] = True
    try:
        yield
    finally:
        vars(config)["torch_skip_nan_gradients"] = False


def _all_finite(gradients: list[Tensor]) -> bool:
    # Not every optimizer's parameters share a device; norms are scalars, cheap to bring together.
    norms = torch._foreach_norm(gradients)
    return bool(torch.isfinite(torch.stack([norm.to(norms[0].device) for norm in norms])).all())


def learning_rates(optimizers: Iterable[Optimizer]) -> dict[torch.nn.Parameter, float]:
    """Return the learning rate that each parameter is stepped with now."""
    return {
        parameter: float(group["lr"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def moments(optimizers: Iterable[Optimizer], parameter: torch.nn.Parameter) -> Iterator[Tensor]:
    """Yield the optimizer state tensors shaped like ``parameter`` (Adam's moments, momentum)."""
    for optimizer in optimizers:
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                yield value
