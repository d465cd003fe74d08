"""Running a forward in double precision, though it casts to single or half on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_COARSER: Final = (torch.float32, torch.float16, torch.bfloat16)
_MAKING: Final = (torch.zeros, torch.ones, torch.full, torch.empty)
"""What makes a tensor of the default type, which here is not to be single."""


class Double(TorchFunctionMode):
    """Within it a cast to float32 or less is to float64: ``obs.float() / 255`` would end exactness.

    >>> with Double():
    ...     torch.zeros(1).dtype, torch.ones(1).float().dtype
    (torch.float64, torch.float64)
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` with what says float32, or less, replaced."""
        given = {key: _doubled(value) for key, value in (kwargs or {}).items()}
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            return Tensor.double(*args)
        if func in _MAKING and given.get("dtype") is None:
            given["dtype"] = torch.float64 if not _of_integers(func, args) else None
        return func(*map(_doubled, args), **given)


@contextmanager
def in_precision(dtype: torch.dtype) -> Iterator[None]:
    """Run forwards without gradients, and in double precision if that is asked for.

    A forward may itself make floats, ``obs.float() / 255``; then those become double too.

    >>> with in_precision(torch.float64):
    ...     print(torch.ones(1, dtype=torch.uint8).float().dtype, torch.zeros(1).dtype)
    torch.float64 torch.float64
    """
    before = torch.get_default_dtype()
    double = dtype == torch.float64
    torch.set_default_dtype(dtype if double else before)
    try:
        with torch.no_grad(), Double() if double else nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)


def _doubled(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _COARSER else value


def _of_integers(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    return func is torch.full and len(args) > 1 and isinstance(args[1], (bool, int))
