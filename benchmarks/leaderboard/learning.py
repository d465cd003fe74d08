"""How fast policies learn: env steps to shares of the dense return, and what a run earns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.leaderboard import scoring

SHARES: Final = (0.5, 0.9)
"""Of the way from a random policy's return to that of the dense arm's files."""
HEADER: Final = (
    "| arm | at sparsity | runs | over the whole run, dense = 1 "
    + "".join(f"| env steps to {share:g} " for share in SHARES)
    + "| KL of a mask update (largest) |\n"
    + "|---" * (5 + len(SHARES))
    + "|"
)

Row = Mapping[str, Any]
Curve = Sequence[tuple[int, float]]
"""Env steps, and the validation return there."""


def line(cells: Sequence[str], found: Sequence[Row], dense: Sequence[Row], scale: Any) -> str:
    """Return a group's line; of groups without curves (cut, cloned) an empty text.

    Args:
        cells: what the line begins with.
        found: the group's rows.
        dense: rows of the dense arm.
        scale: dense and random return.
    """
    curves = list(_curves(found, scale))
    if not curves:
        return ""
    whole = {"runs": [over_the_run(curve) for curve in curves]}
    by_dense = statistics.mean(over_the_run(curve) for curve in _curves(dense, scale))
    shares = {"runs": [value / by_dense for value in whole["runs"]]}
    steps = [_told(median_steps(curves, share)) for share in SHARES]
    own = [*cells, str(len(curves)), scoring.iqm(shares).told(), *steps, _moved(found)]
    return f"| {' | '.join(own)} |"


def _moved(found: Sequence[Row]) -> str:
    """Return how far mask updates moved the policy, in nats: the median run's median; the most."""
    moved = [row["mask_kl"] for row in found if row.get("mask_kl")]
    if not moved:
        return "-"
    median = statistics.median(each["median"] for each in moved)
    return f"{median:.3f} ({max(each['largest'] for each in moved):.2f})"


def steps_to(curve: Curve, share: float) -> int | None:
    """Return the env steps at which a run's validation is first at a share; None if it never is.

    >>> steps_to([(100, 0.2), (200, 0.6), (300, 0.4)], 0.5)
    200
    """
    return next((steps for steps, value in curve if value >= share), None)


def median_steps(curves: Sequence[Curve], share: float) -> int | None:
    """Return the median over runs; None where half of them or more never get there.

    >>> median_steps([[(100, 0.6)], [(100, 0.1), (200, 0.7)], [(100, 0.0)]], 0.5)
    200
    """
    found = [steps_to(curve, share) for curve in curves]
    reached = sorted(steps for steps in found if steps is not None)
    place = (len(found) - 1) // 2 if len(found) % 2 else len(found) // 2
    return reached[place] if place < len(reached) else None


def over_the_run(curve: Curve) -> float:
    """Return the mean of a run's validations, each of which stands for as many steps."""
    return statistics.mean(value for _, value in curve)


def _curves(found: Sequence[Row], scale: Any) -> Iterator[Curve]:
    for row in found:
        if row.get("curve"):
            yield [(steps, scoring.normalised(value, *scale)) for steps, value in row["curve"]]


def _told(steps: int | None) -> str:
    return "-" if steps is None else f"{steps:,}"
