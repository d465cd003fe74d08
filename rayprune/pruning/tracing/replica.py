"""A copy of a module to run for its trace: its weights are the module's own, all else is apart."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

Holder = TypeVar("Holder")


def replica(holder: Holder, parts: Sequence[nn.Module]) -> Holder:
    """Return a copy whose parameters lie in the memory of the original's.

    Buffers, flags and all other attributes are copies, so that a forward of the replica leaves the
    original as it is, and a large network is not held twice. What can't be copied, such as a lock,
    is shared.

    Args:
        holder: a module, or whatever holds modules.
        parts: the module, or those that it holds.

    >>> net = nn.BatchNorm1d(2)
    >>> _ = replica(net, [net])(torch.rand(3, 2))
    >>> net.running_mean
    tensor([0., 0.])
    """
    memo = {id(p): _alias(p) for part in parts for p in part.parameters()}
    try:
        return copy.deepcopy(holder, dict(memo))
    # Whatever an attribute's own copying may raise.
    except Exception:
        memo.update(_shared([holder, *_inner(parts)], memo))
        return copy.deepcopy(holder, memo)


@contextmanager
def undisturbed(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put the global random generators back afterwards, and let no compiler see what runs.

    Args:
        tensors: on the devices whose generators may be used.
    """
    devices = sorted({t.device.index for t in tensors if t.device.type == "cuda"})
    held = random.getstate(), np.random.get_state()  # noqa: NPY002 - a forward may draw from it
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        # Importing it takes seconds; without it there is nothing compiled.
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            yield
        finally:
            random.setstate(held[0])
            np.random.set_state(held[1])  # noqa: NPY002


def _alias(parameter: nn.Parameter) -> nn.Parameter:
    """Return another parameter over the same memory: RLlib's SAC flips `requires_grad`."""
    if isinstance(parameter, UninitializedParameter):
        return parameter
    return nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)


def _inner(parts: Iterable[nn.Module]) -> Iterator[nn.Module]:
    return (inner for part in parts for inner in part.modules())


def _shared(objects: Iterable[Any], memo: dict[int, Any]) -> dict[int, Any]:
    """Return what stands for those attributes that can't be copied, by id."""
    stands: dict[int, Any] = {}
    for value in (value for held in objects for value in vars(held).values()):
        try:
            copy.deepcopy(value, dict(memo))
        # Whatever its own copying may raise.
        except Exception:
            if not _holds_modules(value):
                stands[id(value)] = _stand_in(value)
    return stands


def _stand_in(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.clone_state()
    # Part of an autograd graph, as the old `weight_norm` leaves its weight.
    return value.detach().clone() if isinstance(value, Tensor) else value


def _holds_modules(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, nn.Module) for v in value.values())
