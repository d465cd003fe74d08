"""The tables of docs/findings.md that the leaderboard's rows say, between marks in the page.

A table stands between ``<!-- leaderboard: NAME -->`` and ``<!-- end -->``, where NAME is a task's,
``all`` (arms over the five tasks that most arms were run on) or ``apart`` (task by task, whether
the interval of a recipe's arm is above that of the small dense net).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.commands import ROOT
from benchmarks.leaderboard import scoring
from benchmarks.leaderboard.arms import ARMS
from benchmarks.leaderboard.cells import rows
from benchmarks.leaderboard.tables import (
    ADVERTISED,
    SMALL,
    UNITS,
    Group,
    Row,
    average,
    groups,
    normal_scores,
    of_group,
)
from benchmarks.leaderboard.tasks import TASKS, Task
from rayprune.tracking.record import write_atomic

PAGE: Final = ROOT / "docs" / "findings.md"
FIVE: Final = ("lunarlander", "acrobot", "hopper", "swimmer", "halfcheetah")
CONTROLS: Final = FIVE[2:]
SHOWN_SHIFT: Final = {"lunarlander": "noisy observations", "acrobot": "heavier second link"}
"""Task -> the shift that its table has a column of."""
COMPARED: Final = (0.8, 0.9, 0.95, 0.98)
OVER_ALL: Final = (ADVERTISED, "not reconstructed", UNITS, "post-hoc, reconstructed", SMALL)
_BLOCK: Final = re.compile(r"(<!-- leaderboard: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def write(results: Path, page: Path = PAGE) -> None:
    """Renew the page's tables."""
    write_atomic(page, renewed(page.read_text(encoding="utf-8"), results))


def renewed(text: str, results: Path) -> str:
    """Return the page with its tables made anew of all rows."""
    known = rows([*TASKS], results)

    def block(found: re.Match[str]) -> str:
        table = "\n".join(_table(found[2], known))
        return f"{found[1]}\n{table}\n\n{found[4]}"

    return _BLOCK.sub(block, text)


def _table(name: str, known: Sequence[Row]) -> Iterator[str]:
    if name == "all":
        return _over_all(known)
    if name == "apart":
        return _apart(known)
    return _of_task(TASKS[name], [row for row in known if row["task"] == name])


def _of_task(task: Task, known: Sequence[Row]) -> Iterator[str]:
    """Yield what each arm came to on a task, seed by seed."""
    shift = SHOWN_SHIFT.get(task.name)
    heads = ["arm", "return", "dense = 1, random = 0", "seeds", "worst quarter"]
    heads += [shift, *_SIZES] if shift else _SIZES
    yield _line(heads)
    yield "|" + "---|" * len(heads)
    for group in groups(task):
        found = sorted(of_group(known, group), key=lambda row: row["seed"])
        if found:
            scale = scoring.paired(known, found)[task.name]
            yield _line([_name(group), *_cells(task, found, scale, shift)])


_SIZES: Final = ["flash, Cortex-M4", "instructions"]


def _cells(task: Task, found: Sequence[Row], scale: Any, shift: str | None) -> Iterator[str]:
    scores = [row["score"]["mean"] for row in found]
    normal = [scoring.normalised(score, *scale) for score in scores]
    digits = 1 if max(map(abs, scale)) < 1000 else 0
    yield scoring.iqm({task.name: scores}).told(digits)
    yield f"{scoring.iqm({task.name: normal}).value:.2f}"
    yield _seeds(found)
    yield f"{average(found, lambda row: row['score']['worst']):,.0f}"
    if shift:
        yield f"{average(found, lambda row: row['shifts'][shift]['mean']):,.0f}"
    target = "cortex-m4"
    yield f"{average(found, lambda row: row['targets'][target]['flash_bytes']):,.0f} B"
    yield f"{average(found, lambda row: row['targets'][target]['instructions']):,.0f}"


def _seeds(found: Sequence[Row]) -> str:
    """Return the return of each seed, and which seeds these are unless they are the first ones.

    >>> rows = [{"seed": seed, "score": {"mean": 2.0 * seed}} for seed in range(4)]
    >>> _seeds(rows[:3]), _seeds(rows[1:2]), _seeds(rows[2:])
    ('0, 2, 4', '2 (seed 1)', '4, 6 (seeds 2, 3)')
    """
    scores = ", ".join(f"{row['score']['mean']:.0f}" for row in found)
    seeds = [row["seed"] for row in found]
    if len(seeds) > 2 and seeds == [*range(len(seeds))]:
        return scores
    return f"{scores} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"


def _name(group: Group) -> str:
    arm, sparsity = group
    told = f"{arm.name} at {100 * sparsity:g} %" if sparsity else arm.name
    return f"**{told}**" if arm.name in (ADVERTISED, UNITS) else told


def _over_all(known: Sequence[Row]) -> Iterator[str]:
    """Yield the arms' scores over five tasks, and over those of continuous actions."""
    yield _line(["arm", *(f"at {100 * s:g} %" for s in COMPARED), "MuJoCo's three, at 90 %"])
    yield "|" + "---|" * (len(COMPARED) + 2)
    for arm in (*OVER_ALL, "post-hoc"):
        cells = [_share(known, FIVE, arm, sparsity) for sparsity in COMPARED]
        yield _line([arm, *cells, _share(known, CONTROLS, arm, 0.9)])
    yield f"\nA linear policy: {_share(known, FIVE, 'linear', 0.0)}."


def _share(known: Sequence[Row], tasks: Sequence[str], arm: str, sparsity: float) -> str:
    """Return an arm's normalised score over tasks, and what is lacking of them.

    All runs count alike, so a task with more of them would count for more: of each task those seeds
    are taken that all of the arm's tasks have.
    """
    own = [row for row in known if row["task"] in tasks]
    found = of_group(own, (ARMS[arm], sparsity))
    if not found:
        return "not run"
    seeds = [{row["seed"] for row in found if row["task"] == task} for task in tasks]
    common = set.intersection(*filter(None, seeds))
    even = [row for row in found if row["seed"] in common]
    scores = normal_scores(even, own)
    runs = sum(map(len, scores.values()))
    lacking = [task for task in tasks if task not in scores]
    without = f", without {', '.join(lacking)}" if lacking else ""
    return f"{scoring.iqm(scores).told()} ({runs} runs{without})"


def _apart(known: Sequence[Row]) -> Iterator[str]:
    """Yield where a recipe's arm and the small dense net have intervals that don't meet."""
    arms = (ADVERTISED, UNITS, SMALL)
    yield _line(["task, at", *(f"{arm} (runs)" for arm in arms), "above small dense, apart"])
    yield "|" + "---|" * (len(arms) + 2)
    for task in TASKS:
        for sparsity in (0.9, 0.95):
            own = [row for row in known if row["task"] == task]
            found = {arm: of_group(own, (ARMS[arm], sparsity)) for arm in arms}
            if found[SMALL] and found[ADVERTISED]:
                yield _line([f"{task}, {100 * sparsity:g} %", *_compared(task, found)])


def _compared(task: str, found: dict[str, list[Row]]) -> Iterator[str]:
    scores = {arm: [row["score"]["mean"] for row in own] for arm, own in found.items()}
    told = {arm: scoring.iqm({task: own}) if own else None for arm, own in scores.items()}
    digits = 0 if max(abs(score) for own in scores.values() for score in own) > 100 else 1
    for arm, estimate in told.items():
        yield f"{estimate.told(digits)} ({len(scores[arm])})" if estimate else "not run"
    small = told[SMALL]
    assert small is not None  # its rows are there
    above = [
        arm
        for arm, estimate in told.items()
        if arm != SMALL and estimate and _is_above(estimate, small)
    ]
    yield ", ".join(above) or "no"


def _is_above(ours: scoring.Estimate, theirs: scoring.Estimate) -> bool:
    """Return whether an interval lies above another; without an interval nothing does."""
    return ours.low is not None and theirs.high is not None and ours.low > theirs.high


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
