"""Hooks that keep what layers give in training, for figures of their units' activity."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.hooks import (
    UnitActivations,
    first_tensor,
    followers,
    hook_all,
    unit_axis,
    unit_rows,
)

STATES = 128
"""Rows of features that a layer is measured on; the effective rank can't exceed it."""


class ActivityHooks:
    """Keeps what a few layers gave in the first training forward of each step.

    What a layer's activation is `rayprune.pruning.layers.hooks.UnitActivations` says. Units are the
    columns of a Linear, the channels of a Conv (rows: states and positions), and the hidden units
    of a recurrent layer.

    No hook touches what `torch.compile` or `torch.jit` holds, and all of them go when
    `torch.compile` starts on anything: else it would compile hooks in, and anew without them.

    Args:
        module: all of it is watched: activations are modules of their own.
        layers: by name.
        states: rows that are kept of a layer.
    """

    def __init__(
        self, module: nn.Module, layers: Mapping[str, nn.Module], states: int = STATES
    ) -> None:
        closed = closed_parts(module)
        self._names = {id(layer): name for name, layer in layers.items() if id(layer) not in closed}
        self.closed = tuple(name for name, layer in layers.items() if id(layer) in closed)
        """Layers that can't be hooked."""
        self.withdrawn = False
        """Whether the hooks went before their time, because something was compiled."""
        self.failure: Exception | None = None
        """What a hook raised: never into the forward that it watches."""
        self._states = states
        self._rows: dict[str, list[Tensor]] = {name: [] for name in self._names.values()}
        self._fresh: dict[str, tuple[Tensor, int]] = {}
        self._activations = UnitActivations()
        passing = {id(part) for part in followers(module)} - closed
        watched = self._names.keys() | passing
        parts = module.modules() if self._names else ()
        self._handles = hook_all((part for part in parts if id(part) in watched), self._hook)
        self._await_compilation()

    def __deepcopy__(self, memo: dict[int, Any]) -> ActivityHooks:
        # A copy of the module is not watched, and tensors of a graph can't be copied.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Nor is one that was pickled.
        return ActivityHooks, (nn.ModuleList(), {})

    def end_step(self) -> None:
        """Take over what this step's first forward gave.

        Raises:
            Exception: what a hook has met since.
        """
        if self.failure is not None:
            raise self.failure
        for name, (output, axis) in self._fresh.items():
            if sum(len(part) for part in self._rows[name]) < self._states:
                self._rows[name].append(rows_of(output, self._states, axis))
        self.pass_over()

    def pass_over(self) -> None:
        """Forget what layers gave since the last step: it was no training forward."""
        self._fresh.clear()
        self._activations.forget()

    def features(self) -> dict[str, Tensor]:
        """Return the rows of each layer that was run, shape ``(states, units)``.

        A layer that gave no row, or one that isn't finite, is left out.
        """
        whole = {
            name: torch.cat(parts)[: self._states] for name, parts in self._rows.items() if parts
        }
        return {name: rows for name, rows in whole.items() if rows.numel() and _finite(rows)}

    def remove(self) -> None:
        """Leave the module as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        starts = _compile_starts()
        if starts is not None and self._withdraw in starts:
            starts.remove(self._withdraw)

    def _await_compilation(self) -> None:
        starts = _compile_starts()
        if starts is not None and self._handles:
            starts.append(self._withdraw)

    def _withdraw(self, *_: Any) -> None:
        # Not `remove`: torch goes through its list of callbacks meanwhile.
        for handle in self._handles:
            handle.remove()
        self.withdrawn = True

    def _hook(self, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # Value estimates for advantages run without gradients; they are no training forward.
        if not torch.is_grad_enabled() or torch._C._get_tracing_state() is not None:
            return
        try:
            self._note(part, inputs, output)
        # Whatever a module may return: the forward that is watched goes on.
        except Exception as error:
            self.failure = error

    def _note(self, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name, result = self._names.get(id(part)), first_tensor(output)
        if name is None:
            self._activations.passed(part, inputs, output)
        elif name not in self._fresh and result is not None:
            axis = unit_axis(part)

            def keep(activation: Tensor) -> None:
                self._fresh[name] = activation.detach(), axis

            self._activations.follow(result, axis, keep)


def rows_of(output: Tensor, most: int, axis: int = -1) -> Tensor:
    """Return a layer's output as ``(rows, units)``, at most so many, evenly spaced.

    Args:
        output: any shape.
        most: rows.
        axis: of the units.

    >>> rows_of(torch.zeros(2, 3, 4, 4), most=8, axis=1).shape
    torch.Size([8, 3])
    >>> rows_of(torch.zeros(5, 7), most=8).shape
    torch.Size([5, 7])
    """
    rows = unit_rows(output, axis)
    if len(rows) <= most:
        return rows
    picked = torch.arange(most, device=rows.device) * len(rows) // most
    return rows[picked]


def closed_parts(module: nn.Module) -> frozenset[int]:
    """Return the ids of the parts that no hook must touch: what is compiled, or scripted."""
    return frozenset(
        id(inner)
        for part in module.modules()
        if isinstance(part, torch.jit.ScriptModule) or _is_compiled(part)
        for inner in part.modules()
    )


def _is_compiled(part: nn.Module) -> bool:
    """Whether `torch.compile` was put around a module, or around any method of it."""
    if isinstance(part._modules.get("_orig_mod"), nn.Module):
        return True
    return getattr(part, "_compiled_call_impl", None) is not None or any(
        # `torch.compiler.disable` leaves the same mark.
        hasattr(method, "_torchdynamo_orig_callable")
        and not hasattr(method, "_torchdynamo_disable")
        for method in _methods(part)
    )


def _methods(part: nn.Module) -> Iterator[Any]:
    kinds = [kind for kind in type(part).__mro__ if kind is not nn.Module]
    for held in (part, *kinds):
        for value in vars(held).values():
            if isinstance(value, (FunctionType, MethodType, staticmethod, classmethod)):
                yield getattr(value, "__func__", value)


def _compile_starts() -> list[Any] | None:
    """Return torch's callbacks at the start of a compilation; None while it can't compile yet."""
    # Its import takes a second; optimizers have done it by now.
    if "torch._dynamo" not in sys.modules:
        return None
    from torch._dynamo.callback import callback_handler

    callbacks: list[Any] = callback_handler.start_callbacks
    return callbacks


def _finite(rows: Tensor) -> bool:
    return bool(torch.isfinite(rows).all())
