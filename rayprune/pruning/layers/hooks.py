"""Forward hooks: what layers are called with and give, and what the activation of a unit is.

One definition for all who look: criteria, plasticity, counters, the search for sensors, the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from rayprune.pruning.layers.kinds import is_of_known_kind, kind_of

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm, _NormBase)
"""Modules that norm a layer's output before its activation function."""


def hook_all(
    layers: Iterable[nn.Module], hook: Callable[..., Any], *, with_kwargs: bool = False
) -> list[RemovableHandle]:
    """Put one hook on some layers; it is for the caller to remove it. See `hooked`."""
    return [layer.register_forward_hook(hook, with_kwargs=with_kwargs) for layer in layers]


@contextmanager
def hooked(
    layers: Iterable[nn.Module], hook: Callable[..., Any], *, with_kwargs: bool = False
) -> Iterator[None]:
    """Call a hook after each forward of some layers, for a while.

    Args:
        layers: each once.
        hook: ``f(layer, inputs, output)``; what it returns takes the output's place.
        with_kwargs: call it as ``f(layer, inputs, named inputs, output)``.

    >>> net, shapes = nn.Linear(2, 3), []
    >>> with hooked([net], lambda layer, inputs, output: shapes.append(tuple(output.shape))):
    ...     _ = net(torch.zeros(4, 2))
    >>> shapes, len(net._forward_hooks)
    ([(4, 3)], 0)
    """
    handles = hook_all(layers, hook, with_kwargs=with_kwargs)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Keep = Callable[[Tensor], None]


class UnitActivations:
    """Follows the outputs of layers to the activations of their units.

    A layer's activation is what comes out of the module without parameters that takes its output
    next (ReLU, Tanh, ...; PReLU has some), with a norm in between or not; else it is the output
    itself. A norm that comes after the activation belongs to no unit any more: it mixes them.
    """

    def __init__(self) -> None:
        # Outputs whose next module is waited for. With the tensor itself: an id may be used again
        # once its object is gone.
        self._awaited: dict[int, tuple[Tensor, int, bool, Keep]] = {}

    def follow(self, output: Tensor, axis: int, keep: Keep) -> None:
        """Take a layer's output.

        Args:
            output: as the layer gave it.
            axis: of its units.
            keep: called with what is the activation so far, once or more.
        """
        self._await(output, axis, False, keep)

    def passed(self, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Take what a module of `followers` has made of its inputs."""
        held = self._awaited.pop(id(inputs[0]), None) if inputs else None
        if held is None:
            return
        before, axis, activated, keep = held
        result, norms = first_tensor(output), _is_norm(part)
        # What reshapes units, or halves them as a GLU does, is no activation of each of them.
        if result is not None and _alike(before, result, axis) and not (norms and activated):
            self._await(result, axis, activated or not norms, keep)

    def forget(self) -> None:
        """Wait for nothing any more."""
        self._awaited.clear()

    def _await(self, output: Tensor, axis: int, activated: bool, keep: Keep) -> None:
        keep(output)
        self._awaited[id(output)] = (output, axis, activated, keep)


def followers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts of a module that may turn a layer's output into its activation."""
    return (part for part in module.modules() if _passes_on(part))


def unit_axis(layer: nn.Module) -> int:
    """Return the axis of a layer's output that counts its units, with a batch or without.

    >>> unit_axis(nn.Conv2d(1, 2, 3)), unit_axis(nn.Conv1d(1, 2, 3)), unit_axis(nn.Linear(1, 2))
    (-3, -2, -1)
    """
    if is_of_known_kind(layer):
        return -1 - kind_of(layer).places
    weight = getattr(layer, "weight", None)
    return min(1 - weight.dim(), -1) if isinstance(weight, Tensor) else -1


def unit_rows(output: Tensor, axis: int = -1) -> Tensor:
    """Return a layer's output as ``(rows, units)``: states and positions are rows.

    Args:
        output: any shape.
        axis: of the units.

    >>> unit_rows(torch.zeros(2, 3, 4, 4), axis=-3).shape, unit_rows(torch.zeros(5, 7)).shape
    (torch.Size([32, 3]), torch.Size([5, 7]))
    """
    output = output.movedim(axis, -1)
    return output.reshape(output.shape[:-1].numel(), output.shape[-1])


def unit_means(output: Tensor, axis: int = -1) -> Tensor:
    """Return a layer's output as ``(rows, units)``: a filter's is its mean over the positions.

    Args:
        output: any shape.
        axis: of the units.

    >>> unit_means(torch.ones(2, 3, 4, 4), axis=-3).shape, unit_means(torch.ones(2, 4, 7)).shape
    (torch.Size([2, 3]), torch.Size([8, 7]))
    """
    if axis != -1:
        output = output.flatten(axis + 1).mean(dim=-1)
    return output.reshape(-1, output.shape[-1])


def first_tensor(output: Any) -> Tensor | None:
    """Return a module's (first) output; None for what is no plain tensor, such as a fake one."""
    if isinstance(output, PackedSequence):
        output = output.data
    elif isinstance(output, (tuple, list)):
        return first_tensor(output[0]) if output else None
    plain = type(output) in (Tensor, nn.Parameter)
    if not plain or torch._C._functorch.is_functorch_wrapped_tensor(output):
        return None
    result: Tensor = output
    return result if result.is_floating_point() and result.dim() else None


def _alike(before: Tensor, after: Tensor, axis: int) -> bool:
    return before.dim() == after.dim() and before.shape[axis] == after.shape[axis]


def _passes_on(part: nn.Module) -> bool:
    if _is_norm(part) or isinstance(part, nn.PReLU):
        return True
    if next(part.children(), None) is not None or isinstance(part, (nn.Flatten, nn.Dropout)):
        return False
    return next(part.parameters(), None) is None


def _is_norm(part: nn.Module) -> bool:
    """Whether a module norms, or does so in another layout, as RLlib's `LayerNorm1D`."""
    if isinstance(part, NORMS):
        return True
    inner = list(part.children())
    own = next(part.parameters(recurse=False), None) is not None
    return not own and bool(inner) and all(isinstance(child, NORMS) for child in inner)
