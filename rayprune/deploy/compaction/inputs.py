"""Inputs that networks are compared on: recorded ones in another precision, and random ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


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
