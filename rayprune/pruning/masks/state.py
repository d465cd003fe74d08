"""A Pruner's state as plain values and CPU tensors, masks packed to bits.

``torch.load`` takes no more than that by default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayprune.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(slots=True)
class Progress:
    """How far a Pruner has come; its targets are the config's."""

    tick: float | None = None
    """The clock at the last scheduled mask update."""
    targets: dict[str, float] = field(default_factory=dict)
    """What was due then, by the config's field."""
    updates: int = 0
    """Mask updates so far."""


def pack_state(
    shapes: Shapes, masks: Mapping[str, Tensor], ages: Mapping[str, Tensor], progress: Progress
) -> dict[str, Any]:
    """Pack a Pruner's state: strings, numbers, lists, dicts and uint8 tensors only."""
    return {
        "version": 1,
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "masks": {name: packed(mask) for name, mask in masks.items()},
        "ages": {name: copied(age) for name, age in ages.items()},
        "progress": {
            "tick": progress.tick,
            "targets": dict(progress.targets),
            "updates": progress.updates,
        },
    }


def unpack_state(
    state: Mapping[str, Any], shapes: Shapes
) -> tuple[dict[str, Tensor], dict[str, Tensor], Progress]:
    """Unpack what `pack_state` packed, for a module with these parameters.

    Args:
        state: the packed state.
        shapes: the module's prunable parameters.

    Returns:
        Masks and ages on the CPU, and the progress.

    Raises:
        CheckpointError: the state is broken, or of another network.
    """
    with broken_is_told():
        saved = {name: tuple(shape) for name, shape in state["shapes"].items()}
        _check_same(saved, shapes)
        masks = {name: unpacked(bits, shapes[name]) for name, bits in state["masks"].items()}
        ages = {
            name: copied(age).to(torch.uint8).reshape(shapes[name])
            for name, age in state["ages"].items()
        }
        progress = Progress(**state["progress"])
        progress.targets = dict(progress.targets)
    return masks, ages, progress


@contextmanager
def broken_is_told() -> Iterator[None]:
    """Raise CheckpointError where a state isn't what `pack_state` and its neighbours gave."""
    try:
        yield
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"The pruning state is broken ({type(error).__name__}: {error}). "
            "Take an earlier checkpoint."
        ) from error


def _check_same(saved: Shapes, shapes: Shapes) -> None:
    differing = [
        f"{name!r} is {_shown(saved.get(name))} in the checkpoint "
        f"and {_shown(shapes.get(name))} here"
        for name in {**shapes, **saved}
        if saved.get(name) != shapes.get(name)
    ]
    if differing:
        more = f" ({len(differing) - 3} more)" if len(differing) > 3 else ""
        raise CheckpointError(
            f"The pruning state is of another network: {'; '.join(differing[:3])}{more}. "
            "Build the module as it was trained."
        )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"of shape {shape}"


def copied(held: Any) -> Tensor:
    """Return a copy on the CPU that shares nothing with a tensor, or with a NumPy array."""
    if isinstance(held, Tensor):
        return held.detach().cpu().clone()
    return torch.from_numpy(np.array(held))  # copied first: Ray's arrays can't be written to


def packed(mask: Tensor) -> Tensor:
    """Pack a bool tensor to bits.

    >>> packed(torch.tensor([[True, False], [False, True]]))
    tensor([144], dtype=torch.uint8)
    """
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def unpacked(bits: Any, shape: Sequence[int]) -> Tensor:
    """Unpack what `packed` packed.

    Args:
        bits: a uint8 tensor, or a NumPy array: RLlib's checkpoints hold those.
        shape: the mask's.

    Raises:
        ValueError: there are too few or too many.

    >>> unpacked(torch.tensor([144], dtype=torch.uint8), (2, 2)).tolist()
    [[True, False], [False, True]]
    """
    count = math.prod(shape)
    held = np.asarray(bits, dtype=np.uint8)
    if held.shape != ((count + 7) // 8,):
        raise ValueError(f"a mask of {held.size} bytes for shape {tuple(shape)}")
    return torch.from_numpy(np.unpackbits(held, count=count).astype(bool).reshape(shape))
