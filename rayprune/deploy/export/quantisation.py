"""int8 on top of an exported file, where that makes it faster; refused where it doesn't."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from rayprune.deploy.formats import format_of
from rayprune.deploy.measure.latency import Timings, speed_up, time_arms
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.file_hash import seal
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.runs import in_parts
from rayprune.errors import InputError

BATCHES: Final = (1, 32)
"""What is timed; one of them has to gain."""
_ROUNDS: Final = 9


def quantise(
    path: Path, recorded: Sequence[Array], *, rounds: int = _ROUNDS, forced: bool = False
) -> tuple[str, dict[str, Any]]:
    """Replace an exported file by its int8 form, if that is faster here.

    Args:
        path: proven in float32; overwritten.
        recorded: the file's inputs as they were met: for ranges, for timing, and to compare on.
        rounds: of timing.
        forced: take it though it is slower.

    Returns:
        The new content's hash, and what the certificate says: the kind, the ratios of speed, the
        differences.

    Raises:
        InputError: it is slower at every batch size timed; gives the figures.
    """
    chosen = format_of(path)
    small = path.with_name(f".int8{path.name}")
    try:
        kind = chosen.quantise(path, small, recorded)
        before, after = chosen.open(path), chosen.open(small)
        gains = {str(batch): _gain(before, after, recorded, batch, rounds) for batch in BATCHES}
        if not forced and all(gain["ratio"] <= 1.0 for gain in gains.values()):
            ratios = ", ".join(f"{gain['ratio']:.2f}x at batch {b}" for b, gain in gains.items())
            raise InputError(
                f"`--int8` is refused: this policy gets slower by it ({ratios} as fast as float32, "
                f"{kind} quantisation). Export it without, or take it as it is with `--force`."
            )
        told: dict[str, Any] = {
            "kind": kind,
            "bytes_before": path.stat().st_size,
            "speed_up": gains,
            "closeness": closeness(
                before.interface, in_parts(before.run, recorded), in_parts(after.run, recorded)
            ),
        }
        small.replace(path)
    finally:
        small.unlink(missing_ok=True)
    return seal(path), told


def closeness(
    interface: Interface, exact: Sequence[Array], rounded: Sequence[Array]
) -> dict[str, Any]:
    """Return how far int8 outputs are from float32's on the same inputs.

    Returns:
        ``agreement``, the share of equal actions (None for continuous ones); ``max_error`` and
        ``mean_error`` of actions (of discrete ones: of the distribution's inputs), in their units.
    """
    discrete = interface.action.dtype != "float32"
    same = np.equal(exact[0], rounded[0]).reshape(len(exact[0]), -1).all(axis=1)
    place = 1 if discrete else 0
    errors = np.abs(exact[place] - rounded[place])
    return {
        "observations": len(exact[0]),
        "agreement": float(same.mean()) if discrete else None,
        "max_error": float(errors.max()),
        "mean_error": float(errors.mean()),
    }


def _gain(
    before: Artifact, after: Artifact, recorded: Sequence[Array], batch: int, rounds: int
) -> dict[str, Any]:
    rows = np.arange(batch) % len(recorded[0])
    inputs = [np.ascontiguousarray(x[rows]) for x in recorded]
    arms = {"float32": lambda: before.run(inputs), "int8": lambda: after.run(inputs)}
    timings: dict[str, Timings] = time_arms(arms, rounds=rounds, clock=time.process_time)
    return speed_up(timings["float32"], timings["int8"])
