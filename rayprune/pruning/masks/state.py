"""A Pruner's state as plain values and CPU tensors, masks packed to bits.

``torch.load`` takes no more than that by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rayprune.errors import CheckpointError
from rayprune.pruning.packing import copied, packed, unpacked
from rayprune.pruning.reports import ScheduleProgress

Shapes = Mapping[str, tuple[int, ...]]


def pack_state(
    shapes: Shapes,
    masks: Mapping[str, Tensor],
    ages: Mapping[str, Tensor],
    progress: ScheduleProgress,
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
            **({"behind": True} if progress.behind else {}),
        },
    }


def unpack_state(
    state: Mapping[str, Any], shapes: Shapes
) -> tuple[dict[str, Tensor], dict[str, Tensor], ScheduleProgress]:
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
        progress = ScheduleProgress(**state["progress"])
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
