"""What each operator's lowering reads of a node, and how it refuses one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from rayprune.deploy.formats.c.program import C_TYPES, Value
from rayprune.deploy.policy.interface import Array
from rayprune.errors import InputError

Lowered = Any
"""A `Value`, or a sequence of them."""
Operator = Callable[..., Lowered]
"""Takes a program, the node, and the node's arguments with values for nodes."""


def name_of(node: fx.Node) -> str:
    """Return an operator's name, without its overload."""
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "_overloadpacket", None)
    return str(node.target if packet is None else packet.__name__)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of what a node computes."""
    return tuple(int(length) for length in node.meta["val"].shape)


def unsupported(node: fx.Node, why: str) -> InputError:
    """Return the refusal of one use of an operator that C has otherwise."""
    held = node.meta["val"]  # several, of a recurrent operator
    shapes = [list(x.shape) for x in (held if isinstance(held, (list, tuple)) else [held])]
    return InputError(
        f"The C export can't take this use of `{name_of(node)}` (shape {shapes[0]}): "
        f"{why}. Write the module differently, or take `--format onnx` or `--format torch`."
    )


def constant(tensor: Tensor) -> Value:
    """Return a tensor as a value that is known when the file is written."""
    array = tensor.detach().cpu().numpy()
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return Value("", tuple(array.shape), C_TYPES[str(array.dtype)], array)


def as_value(given: Any) -> Value:
    """Return an argument as a value; a number is a constant without axes."""
    if isinstance(given, Value):
        return given
    return Value("", (), "float", np.array(given, np.float32))


def array_of(value: Value | None) -> Array | None:
    """Return what a value is, None where it is computed or not given."""
    return None if value is None else value.constant


def values_in(given: Any) -> Iterator[Value]:
    """Yield the values in nested arguments."""
    if isinstance(given, Value):
        yield given
    elif isinstance(given, Mapping):
        yield from values_in(list(given.values()))
    elif isinstance(given, (list, tuple)):
        for part in given:
            yield from values_in(part)


def tensors(given: Any) -> Any:
    """Return arguments with constants as tensors."""
    if isinstance(given, Value):
        assert given.constant is not None
        return torch.from_numpy(given.constant.copy())
    if isinstance(given, Mapping):
        return {key: tensors(value) for key, value in given.items()}
    return type(given)(map(tensors, given)) if type(given) in (list, tuple) else given
