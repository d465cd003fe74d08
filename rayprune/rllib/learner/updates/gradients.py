"""From losses to an optimizer step: what RLlib's Learner does, with one look at each gradient."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor
from torch.optim import Optimizer

from rayprune.rllib.settings.foreign_code import rllibs_own

_LIMIT: Final = 10e8
"""What RLlib takes for an infinite norm."""
_FAR: Final = 1e-2
"""From a norm this far within a limit nothing is scaled, whatever is added to it or rounded."""


class Clipped(NamedTuple):
    """What is known of gradients once they are clipped."""

    norm: Tensor
    """Of all together, before."""
    were_finite: bool
    """Whether none held a NaN or an infinity."""


@functools.cache
def come_from_sum(learner_class: type) -> bool:
    """Whether a Learner's gradients are those of the sum of its losses, as TorchLearner's are."""
    own = rllibs_own(learner_class, "compute_gradients")
    return own is TorchLearner.compute_gradients


def forget(optimizers: Iterable[Optimizer]) -> None:
    """Let all gradients go that optimizers would step with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


def backward(losses: Mapping[str, Any]) -> bool:
    """Compute the gradients of a sum of losses; return whether there are any."""
    found = list(losses.values())
    total = found[0] if len(found) == 1 else sum(found)
    if not isinstance(total, Tensor) or total.grad_fn is None:
        return False
    torch.autograd.backward(total)
    return True


def all_finite(gradients: list[Tensor]) -> bool:
    """Whether no gradient holds a NaN or an infinity; also false for norms beyond a float."""
    return not gradients or math.isfinite(_total(torch._foreach_norm(gradients)).item())


def clip_by_global_norm(gradients: list[Tensor], limit: float) -> Clipped:
    """Scale gradients in place to a norm of at most a limit, to the bit as RLlib does.

    Args:
        gradients: on one device.
        limit: on the norm of all together.
    """
    if not gradients:
        return Clipped(torch.tensor(0.0), were_finite=True)
    # On a GPU the norms of many at once are summed up in another order.
    on_cpu = gradients[0].device.type == "cpu"
    norms: Any = (
        torch._foreach_norm(gradients) if on_cpu else [torch.norm(g, 2.0) for g in gradients]
    )
    total = _total(norms)
    number = total.item()
    if not math.isfinite(number):
        total = _bounded(torch.norm(_bounded(torch.stack(norms)), 2.0))
        torch._foreach_mul_(gradients, _scale(total, limit))
        return Clipped(total, were_finite=all(math.isfinite(norm.item()) for norm in norms))
    is_far = number < limit - _FAR * max(1.0, limit)
    scale = _scale_within(limit, total.dtype, total.device) if is_far else _scale(total, limit)
    if not on_cpu or scale.item() != 1.0:
        torch._foreach_mul_(gradients, scale)
    return Clipped(total, were_finite=True)


def _total(norms: Iterable[Tensor]) -> Tensor:
    """Return the norm of norms; it is no finite number if one of these is none."""
    # Not every optimizer's parameters share a device; norms are scalars, cheap to bring together.
    found = list(norms)
    device = found[0].device
    if any(norm.device != device for norm in found):
        found = [norm.to(device) for norm in found]
    total: Tensor = torch.linalg.vector_norm(torch.stack(found))
    return total


def _bounded(norms: Tensor) -> Tensor:
    return norms.nan_to_num(neginf=-_LIMIT, posinf=_LIMIT)


def _scale(total: Tensor, limit: float) -> Tensor:
    """Return what gradients are multiplied by, of which the norm is given."""
    return torch.clamp(limit / torch.clamp(total + 1e-6, min=limit), max=1.0)


@functools.cache
def _scale_within(limit: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return `_scale` of all norms that are far below the limit: one, or the next to it."""
    return _scale(torch.zeros((), dtype=dtype, device=device), limit)
