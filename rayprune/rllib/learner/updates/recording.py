"""Records the operations that torch does while it computes gradients.

What autograd, modules, distributions and losses in Python come to in the end is a list of kernels
to call. Where no value decides which, the list is the same for every minibatch of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class NotRecordable(Exception):  # noqa: N818 - no error: it says why, and all goes on
    """What was done need not be done alike with other values; says why in words."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, as it was called."""

    function: Any
    """An ``OpOverload``."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    """A tensor, or a list or tuple of them."""

    @property
    def read(self) -> list[Tensor]:
        """The tensors among its arguments."""
        return _tensors_in((self.args, dict(self.kwargs)))

    @property
    def made(self) -> list[Tensor]:
        """The tensors that it returned."""
        return _tensors_in(self.result)

    @property
    def written(self) -> list[Tensor]:
        """The tensors among its arguments that it wrote to."""
        schema = self.function._schema
        if not schema.is_mutable:
            return []
        places = [place for place, a in enumerate(schema.arguments) if _is_written(a)]
        names = [schema.arguments[place].name for place in places]
        held = [self.args[place] for place in places if place < len(self.args)]
        return _tensors_in(held + [self.kwargs[name] for name in names if name in self.kwargs])


@dataclass(frozen=True, slots=True)
class Recording:
    """What was done between some tensors and others."""

    calls: list[Call]
    inputs: list[Tensor]
    """What differs each time."""
    outputs: list[Tensor | None]
    shapes: list[torch.Size] = field(default_factory=list)
    """Of the inputs."""


def record(inputs: Iterable[Tensor], compute: Callable[[], list[Tensor | None]]) -> Recording:
    """Do something once, and record which operations it takes.

    Args:
        inputs: the tensors that will be others next time.
        compute: does it, and returns what it made.

    Raises:
        NotRecordable: with other values it might take other operations, or more of them.
    """
    given = list(inputs)
    with _Recorder() as recorder, _OneHotUnchecked():
        outputs = compute()
    _check(recorder.calls)
    return Recording(recorder.calls, given, outputs, [tensor.shape for tensor in given])


def storage_of(tensor: Tensor) -> int:
    """Return what tells a tensor's memory from that of others that live."""
    key: int = tensor.untyped_storage()._cdata
    return key


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # The tensors are held until all is done, so that no two of them share an address.
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # A number made into a tensor: someone may add to it, and it must be there the next time.
        lifts = func is torch.ops.aten.lift_fresh.default
        result = args[0].clone() if lifts else func(*args, **kwargs)
        self.calls.append(Call(func, tuple(args), dict(kwargs), result))
        return result


class _OneHotUnchecked(TorchFunctionMode):
    """Has classes encoded as torch does, but for a look at whether they are within their number."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not nn.functional.one_hot:
            return func(*args, **kwargs)
        classes, count = _one_hot_arguments(*args, **kwargs)
        if count < 0:
            return func(*args, **kwargs)
        numbers = torch.arange(count, device=classes.device)
        return torch.eq(classes.unsqueeze(-1), numbers).to(torch.int64)


def _one_hot_arguments(tensor: Tensor, num_classes: int = -1) -> tuple[Tensor, int]:
    return tensor, num_classes


_BY_VALUE: Final = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


def _check(calls: Iterable[Call]) -> None:
    made: set[int] = set()
    for call in calls:
        if _goes_by_values(call):
            raise NotRecordable(f"{call.function} goes by values")
        made |= {storage_of(t) for t in call.made} - {storage_of(t) for t in call.read}
        if any(storage_of(tensor) not in made for tensor in call.written):
            raise NotRecordable(f"{call.function} writes to what was there before")


def _goes_by_values(call: Call) -> bool:
    if not any(tag in call.function.tags for tag in _BY_VALUE):
        return False
    # Indices say how many elements are chosen; a boolean mask doesn't.
    indexes = call.function is torch.ops.aten.index.Tensor
    return not indexes or any(t.dtype in (torch.bool, torch.uint8) for t in call.read[1:])


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _tensors_in(held: Any) -> list[Tensor]:
    """Return the tensors in what an operator takes or returns; sooner than torch's pytree does."""
    if isinstance(held, Tensor):
        return [held]
    if isinstance(held, dict):
        held = held.values()
    elif not isinstance(held, (list, tuple)):
        return []
    return [tensor for one in held for tensor in _tensors_in(one)]
