"""2:4 weights as torch's semi-structured sparse tensors, which some GPUs multiply faster.

Mishra et al. 2021 (arXiv:2104.08378): of each four neighbouring inputs of an output two are zero.
Files keep such weights dense: the packed layout depends on the GPU and on torch's version, so what
a file holds is packed where it runs.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.sparse import SparseSemiStructuredTensor, to_sparse_semi_structured

from rayprune.errors import InputError

_CAPABILITY: Final = (8, 0)
"""Ampere, the first with sparse tensor cores."""
_ROWS, _COLUMNS = 32, 64
"""Sizes come in multiples of these, for torch's CUTLASS kernels and cuSPARSELt alike."""
_MOST_LEFT, _GROUP = 2, 4
_ROUNDS, _CALLS = 20, 20


@dataclass(frozen=True, slots=True)
class Fit:
    """Which weights of a module can be packed."""

    packed: tuple[str, ...] = ()
    """Names of parameters."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Name -> why it stays dense."""


def missing_gpu() -> str | None:
    """Return why this machine can't run packed weights; None if it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA GPU here"
    capability = torch.cuda.get_device_capability()
    if capability < _CAPABILITY:
        held = ".".join(map(str, capability))
        return f"the GPU's compute capability is {held}, and 8.0 is needed"
    return None


def fitting(module: nn.Module) -> Fit:
    """Return which weights of Linear layers are 2:4, of sizes that torch packs.

    Args:
        module: any, or the graph of an exported policy (``torch.export.load(path).module()``).
    """
    packed, left = [], {}
    for name, weight in _linear_weights(module):
        reason = _in_the_way(weight)
        if reason is None:
            packed.append(name)
        else:
            left[name] = reason
    return Fit(tuple(packed), left)


@torch.no_grad()
def pack(module: nn.Module) -> Fit:
    """Pack the weights that fit, in place; the module is for inference from then on.

    Args:
        module: in half precision, on a GPU.

    Raises:
        InputError: this machine can't run it; says why.

    >>> policy = torch.export.load("policy.pt2").module()  # doctest: +SKIP
    >>> pack(policy.half().cuda()).packed  # doctest: +SKIP
    ('policy.net.2.weight',)
    """
    reason = missing_gpu()
    if reason is not None:
        raise InputError(
            f"2:4 weights can't be packed: {reason}. The dense weights compute the same."
        )
    found = fitting(module)
    for name in found.packed:
        owner, _, attribute = name.rpartition(".")
        parent = module.get_submodule(owner)
        weight = getattr(parent, attribute).detach()
        sparse: Tensor = to_sparse_semi_structured(weight)
        setattr(parent, attribute, nn.Parameter(sparse, requires_grad=False))
    return found


def report(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Say what packing a module's weights gives on this machine, measured here or not at all.

    Args:
        module: in float32, on the CPU; left as it is.
        inputs: a batch for it.

    Returns:
        ``packed`` and ``left`` as in `Fit`, and ``measured``: None with ``why``, or the largest
        difference between packed and dense weights in half precision, and medians in milliseconds.
    """
    found = fitting(module)
    told: dict[str, Any] = {"packed": list(found.packed), "left": dict(found.left)}
    none = "no weight of a Linear layer is 2:4 and of a size for it"
    why = missing_gpu() if found.packed else none
    if why is not None:
        return {**told, "measured": None, "why": why}
    return {**told, "measured": _measured(module, inputs)}


def _measured(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Any]:
    given = [x.cuda().half() if x.is_floating_point() else x.cuda() for x in inputs]
    dense = copy.deepcopy(module).half().cuda()
    sparse = copy.deepcopy(dense)
    pack(sparse)
    with torch.inference_mode():
        expected, found = _floats(dense(*given)), _floats(sparse(*given))
        times: dict[str, list[float]] = {"dense": [], "packed": []}
        for _ in range(_ROUNDS):
            times["dense"].append(_milliseconds(dense, given))
            times["packed"].append(_milliseconds(sparse, given))
    return {
        "device": torch.cuda.get_device_name(),
        "batch": len(given[0]),
        "max_error": float((expected - found).abs().max()),
        **{f"{kind}_ms": statistics.median(taken) for kind, taken in times.items()},
    }


def _milliseconds(module: nn.Module, given: Sequence[Tensor]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(_CALLS):
        module(*given)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / _CALLS


def _floats(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the first output that rounding can change: an action may be a number of a choice."""
    several = [outputs] if isinstance(outputs, Tensor) else outputs
    return next(output for output in several if output.is_floating_point()).float()


def _linear_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module, GraphModule):
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear):
                yield f"{name}.weight".removeprefix("."), layer.weight
        return
    parameters = dict(module.named_parameters())
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.linear.default:
            name = str(node.args[1].target)
            if name in parameters:
                yield name, parameters.pop(name)


def _in_the_way(weight: Tensor) -> str | None:
    if isinstance(weight, SparseSemiStructuredTensor):
        return "it is packed already"
    rows, columns = weight.shape
    if rows % _ROWS or columns % _COLUMNS:
        return f"its size {rows}x{columns} is no multiple of {_ROWS}x{_COLUMNS}"
    kept = (weight.detach().reshape(rows, -1, _GROUP) != 0).sum(dim=2)
    if bool((kept > _MOST_LEFT).any()):
        return "more than two of four neighbouring inputs are left"
    return None
