"""A module's own forward with other sizes in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rayprune.errors import InputError

TENSOR: Final = "<tensor>"
"""Stands for what the code is given, or gives."""
_FORWARD: Final = "_resized_forward"
_FUNCTIONS: dict[str, Any] = {}
"""Compiled code, by its source."""
_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


@dataclass(frozen=True)
class ResizedForward:
    """Code that stands in for a module's forward, apart from the module."""

    source: str
    """Of a function ``forward(self, *tensors)``; it reads parameters by their old names."""
    constants: Mapping[str, Tensor]
    """Tensors that it reads beside the module's own, by attribute."""
    given: tuple[tuple[Any, ...], dict[str, Any]]
    """The arguments that it was traced with, `TENSOR` in the place of tensors."""
    returned: Any
    """Likewise what the old forward returns."""


class _Resized(nn.Module):
    """Runs the code that it was given instead of its class's."""

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the resized code.

        Raises:
            InputError: the arguments have another structure than the example's had.
        """
        code: ResizedForward = self.__dict__[_FORWARD]
        leaves, structure = pytree.tree_flatten((args, kwargs))
        fixed, old = pytree.tree_flatten(code.given)
        if structure != old or not all(map(_alike, leaves, fixed)):
            raise InputError(
                f"This {type(self).__name__} was compacted by its example, and takes arguments of "
                "that form only. Compact it with an example of these."
            )
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        found = iter(_FUNCTIONS[code.source](self, *tensors))
        return pytree.tree_map(lambda leaf: next(found) if is_tensor(leaf) else leaf, code.returned)

    def __reduce__(self) -> Any:
        """Pickle by the old class: the new one is made on demand."""
        return _bare, (type(self).__bases__[1],), self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Come back from a pickle, or as a copy."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _compile(state[_FORWARD].source)


def resize_forward(module: nn.Module, code: ResizedForward) -> None:
    """Give a module other code, in place; its class becomes a subclass of what it was."""
    if not isinstance(module, _Resized):
        module.__class__ = _class_of(type(module))
    module.__dict__[_FORWARD] = code
    _compile(code.source)
    device = next((p.device for p in module.parameters()), None)
    for name, constant in code.constants.items():
        module.register_buffer(name, constant.clone().to(device), persistent=False)


def is_tensor(leaf: Any) -> bool:
    """Whether a leaf of what is given, or returned, stands for a tensor (or a size)."""
    return isinstance(leaf, str) and leaf == TENSOR


def _alike(leaf: Any, fixed: Any) -> bool:
    return isinstance(leaf, Tensor) if is_tensor(fixed) else leaf is fixed or bool(leaf == fixed)


def _class_of(base: type[nn.Module]) -> type[nn.Module]:
    # Its own name and module: it is shown as what it was.
    if base not in _CLASSES:

        @wraps(base.forward)  # torch.export reads its signature
        def forward(self: _Resized, *args: Any, **kwargs: Any) -> Any:
            return self._run(args, kwargs)

        own = {"__qualname__": base.__qualname__, "__module__": base.__module__}
        _CLASSES[base] = type(base.__name__, (_Resized, base), {**own, "forward": forward})
    return _CLASSES[base]


def _bare(base: type[nn.Module]) -> nn.Module:
    resized = _class_of(base)
    return resized.__new__(resized)


def _compile(source: str) -> None:
    # At once, and not when it is first run: torch.export can't follow a compilation.
    if source not in _FUNCTIONS:
        names: dict[str, Any] = {"torch": torch}
        exec(compile(source, "<resized forward>", "exec"), names)
        _FUNCTIONS[source] = names["forward"]
