"""What noise on observations costs: the share of a file's return that is left under it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.leaderboard import scoring

NOISY: Final = "noisy observations"
"""The shift that all tasks have."""
LEAST: Final = 0.5
"""Of the dense return: of a policy that earns less, a share of its return says nothing."""
FIRST_SEEN: Final = "lunarlander"
"""Where it was seen, looked for afterwards; so it must hold without that task, too."""
PERMUTATIONS: Final = 10_000
LEGEND: Final = (
    "Mean share of its own normalised return that a file keeps when observations have noise of "
    "a tenth of their deviation, over all sparsities (runs in brackets). Policies that earn less "
    "than half of dense are left out."
)

Row = Mapping[str, Any]
Scales = Mapping[str, tuple[float, float]]


def shares(found: Sequence[Row], scales: Scales) -> dict[str, list[float]]:
    """Return by task the share of its normalised return that each policy keeps under noise."""
    kept: dict[str, list[float]] = {}
    for row in found:
        scale = scales.get(row["task"])
        if scale is None or NOISY not in row.get("shifts", {}):
            continue
        plain = scoring.normalised(row["score"]["mean"], *scale)
        if plain >= LEAST:
            noisy = scoring.normalised(row["shifts"][NOISY]["mean"], *scale)
            kept.setdefault(row["task"], []).append(noisy / plain)
    return kept


def difference(ours: scoring.Runs, theirs: scoring.Runs) -> tuple[float, float]:
    """Return how much more ours keep, mean over tasks, and how often chance would give as much.

    Runs are shuffled within each task (a stratified permutation test, one-sided).

    >>> apart = difference({"a": [0.9, 0.9, 0.9, 0.9]}, {"a": [0.5, 0.5, 0.5, 0.5]})
    >>> round(apart[0], 3), apart[1] < 0.05
    (0.4, True)
    """
    tasks = [task for task in ours if theirs.get(task)]
    random = np.random.default_rng(0)
    seen, drawn = 0.0, np.zeros(PERMUTATIONS)
    for task in tasks:
        both = np.asarray([*ours[task], *theirs[task]], float)
        count = len(ours[task])
        seen += both[:count].mean() - both[count:].mean()
        mixed = random.permuted(np.tile(both, (PERMUTATIONS, 1)), axis=1)
        drawn += mixed[:, :count].mean(axis=1) - mixed[:, count:].mean(axis=1)
    chance = (1 + np.count_nonzero(drawn >= seen - 1e-12)) / (1 + PERMUTATIONS)
    return float(seen / max(len(tasks), 1)), float(chance)


def comparison(
    ours: str, theirs: str, arms: Mapping[str, Sequence[Row]], scales: Scales
) -> Iterator[str]:
    """Yield whether one arm keeps more than another; nothing where they have no task in common."""
    a, b = (shares(arms[name], scales) for name in (ours, theirs))
    for told, left_out in (("", ""), (f"; without {FIRST_SEEN}", FIRST_SEEN)):
        kept = {task: runs for task, runs in a.items() if task != left_out}
        if kept.keys() & b.keys():
            more, chance = difference(kept, b)
            yield (
                f"- `{ours}` keeps {more:+.3f} of it more than `{theirs}`, mean over tasks{told}; "
                f"as much or more in {chance:.2g} of shuffles within tasks."
            )


def lines(arms: Mapping[str, Sequence[Row]], scales: Scales) -> Iterator[str]:
    """Yield a table of what arms keep under noise, task by task.

    Args:
        arms: name -> rows, at any sparsity.
        scales: by task.
    """
    tasks = list(scales)
    yield f"| arm | all tasks [95 %] | {' | '.join(tasks)} |"
    yield "|---" * (2 + len(tasks)) + "|"
    for name, found in arms.items():
        kept = shares(found, scales)
        if kept:
            each = [f"{np.mean(kept[t]):.2f} ({len(kept[t])})" if t in kept else "-" for t in tasks]
            yield f"| {name} | {scoring.mean(kept).told()} | {' | '.join(each)} |"
