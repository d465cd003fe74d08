"""Frozen copies of RLModules, for distillation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rayprune.errors import ConfigError


def frozen_copy(module: Any) -> Any:
    """Return a copy of an RLModule that nothing trains, in evaluation mode.

    What torch refuses to copy is copied by value: tensors that were computed (the weight of a
    `weight_norm`, an embedding that the last forward left behind). Forwards that RLlib or a user
    has compiled are bound to the copy, and run plain.

    Raises:
        ConfigError: the module holds what can't be copied, such as a lock or an open file.
    """
    memo: dict[int, Any] = {}
    try:
        with _ByValue():
            teacher = copy.deepcopy(module, memo)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f"`pruning.distillation` needs a copy of {type(module).__name__}, which can't be "
            f"copied: {error}. Keep what can't out of the module, or leave `distillation` out."
        ) from error
    _unbind_compiled(teacher, memo)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return teacher.eval()


def check_apart(teacher: nn.Module, original: nn.Module, run: Callable[[], object]) -> None:
    """Raise ConfigError if a frozen copy computes with the weights of what it is a copy of.

    Args:
        teacher: the copy.
        original: what it is a copy of.
        run: runs the copy's forward.
    """
    with _Watching({id(parameter) for parameter in original.parameters()}) as watching:
        run()
    if watching.met:
        raise ConfigError(
            f"`pruning.distillation` needs a copy of {type(teacher).__name__}, but the copy still "
            "computes with the original's weights: a function or hook in the module holds on to "
            "it. Make it a method, or leave `distillation` out."
        )


class _ByValue(TorchFunctionMode):
    """Has `copy.deepcopy` copy computed tensors without their history."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return function(*args, **(kwargs or {}))


class _Watching(TorchFunctionMode):
    """Sees whether some tensors are computed with."""

    def __init__(self, identities: set[int]) -> None:
        super().__init__()
        self._identities = identities
        self.met = False

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = tree_leaves((args, kwargs))
        self.met = self.met or any(id(value) in self._identities for value in given)
        return function(*args, **(kwargs or {}))


def _unbind_compiled(teacher: nn.Module, memo: dict[int, Any]) -> None:
    """Give a copy its own methods, where `torch.compile` made functions of the original's."""
    for part in teacher.modules():
        for name, value in list(vars(part).items()):
            original = getattr(value, "_torchdynamo_orig_callable", None)
            if isinstance(original, MethodType) and id(original.__self__) in memo:
                own = MethodType(original.__func__, memo[id(original.__self__)])
                object.__setattr__(part, name, own)
