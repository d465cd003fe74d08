"""Inputs that networks are compared on: random ones, and all of them in another precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.precision import Double


def cast(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """Return the arguments on the CPU, their floats in ``dtype``."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        leaf = leaf.detach().cpu()
        return leaf.to(dtype) if leaf.is_floating_point() else leaf

    changed: tuple[Any, ...] = pytree.tree_map(one, arguments)
    return changed


def cast_like(arguments: tuple[Any, ...], example: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments on the CPU, their tensors of the types that an example's have."""
    leaves, structure = pytree.tree_flatten(arguments)
    likes = pytree.tree_leaves(example)
    changed = [
        leaf.detach().cpu().to(like.dtype) if isinstance(leaf, Tensor) else leaf
        for leaf, like in zip(leaves, likes, strict=True)
    ]
    matched: tuple[Any, ...] = pytree.tree_unflatten(changed, structure)
    return matched


def randomised(arguments: tuple[Any, ...], generator: torch.Generator) -> tuple[Any, ...]:
    """Return random arguments of the same form: normal floats, whole numbers of the same range."""

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
        end = 256 if leaf.dtype == torch.uint8 else int(leaf.max()) + 1 if leaf.numel() else 1
        return torch.randint(max(end, 1), leaf.shape, generator=generator).to(leaf.dtype)

    drawn: tuple[Any, ...] = pytree.tree_map(draw, arguments)
    return drawn


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
