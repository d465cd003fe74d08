"""Tables: what the rows say, in Markdown; what was not run is marked, with its command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.leaderboard import learning, noise, scoring
from benchmarks.leaderboard.arms import ARMS, SPARSITIES, Arm
from benchmarks.leaderboard.cells import RANDOM, rows
from benchmarks.leaderboard.tasks import SUITES, TASKS, Task
from rayprune.tracking.record import write_atomic

PAGE: Final = Path(__file__).parent / "TABLES.md"
ADVERTISED: Final = "recommended"
UNITS: Final = "units, live"
SMALL: Final = "small dense"
_HEADER: Final = (
    "| arm | at sparsity | weights left | runs | return, IQM [95 %] | dense = 1, random = 0 "
    "| worst quarter | shifted | flash B | instructions | training s |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)

_ROUNDING: Final = 0.005

Row = Mapping[str, Any]
Group = tuple[Arm, float]
"""An arm at a sparsity (0 where it has none)."""


def write(results: Path, out: Path) -> int:
    """Write the tables of all rows; return the exit code."""
    known = rows([*TASKS], results)
    text = "\n".join(page(known))
    write_atomic(out, text + "\n")
    print(text)
    return 0


def page(known: Sequence[Row]) -> Iterator[str]:
    """Yield the page's lines."""
    yield "# Leaderboard: tables"
    yield ""
    yield "Made by `python -m benchmarks.leaderboard tables`; README.md says what they mean."
    for suite in SUITES:
        yield from suite_table(suite, known)
    yield from noise_table(known)
    for task in TASKS.values():
        yield from task_table(task, [row for row in known if row["task"] == task.name])


def groups(task: Task | None = None) -> list[Group]:
    """Return all arms at all sparsities, of one task or of all."""
    arms = [arm for arm in ARMS.values() if task is None or arm.applies(task)]
    return [(arm, s) for arm in arms for s in (SPARSITIES if arm.sparse else (0.0,))]


def of_group(known: Sequence[Row], group: Group) -> list[Row]:
    """Return a group's rows."""
    arm, sparsity = group
    return [row for row in known if (row["arm"], row["sparsity"]) == (arm.name, sparsity)]


def noise_table(known: Sequence[Row]) -> Iterator[str]:
    """Yield how much of their return arms keep under noise, and whether some keep more."""
    scales = scoring.references(known)
    by_arm = {name: [row for row in known if row["arm"] == name] for name in ARMS}
    if not any(noise.shares(found, scales) for found in by_arm.values()):
        return
    yield "\n## Noise\n"
    yield f"{noise.LEGEND}\n"
    yield from noise.lines(by_arm, scales)
    yield ""
    for ours, theirs in ((UNITS, SMALL), (ADVERTISED, SMALL), (ADVERTISED, "dense")):
        yield from noise.comparison(ours, theirs, by_arm, scales)


def task_table(task: Task, known: Sequence[Row]) -> Iterator[str]:
    """Yield a task's table, and the commands of what it lacks."""
    yield f"\n## {task.name}\n"
    yield f"{task.steps:,} steps; reference: {task.reference}.\n"
    scale = scoring.references(known).get(task.name)
    if not known:
        yield f"**Not run**: `python -m benchmarks.leaderboard run --tasks {task.name}`"
        return
    drawn = next((row["score"]["mean"] for row in known if row["arm"] == RANDOM), None)
    yield _HEADER
    if drawn is not None:
        yield f"| {RANDOM} | | | 1 | {drawn:,.1f} | 0.00 | | | | | |"
    lacking = []
    for group in groups(task):
        found = of_group(known, group)
        if found:
            yield _line(task, group, found, scoring.paired(known, found).get(task.name))
        else:
            lacking.append(group)
    shifts = ", ".join(task.shifts)
    yield f"\n*Shifted*: {shifts}. *Flash, instructions*: of a Cortex-M4. Training: wall time."
    if scale is not None:
        yield from _learning(task, known, scale)
    yield from _not_run(task, lacking)


def _learning(task: Task, known: Sequence[Row], scale: Any) -> Iterator[str]:
    """Yield how fast a task's arms learn."""
    dense = of_group(known, (ARMS["dense"], 0.0))
    lines = [
        learning.line([arm.name, f"{sparsity:g}" if sparsity else "-"], found, dense, scale)
        for arm, sparsity in groups(task)
        if (found := of_group(known, (arm, sparsity)))
    ]
    if any(lines):
        yield f"\n{learning.HEADER}"
        yield from filter(None, lines)


def _line(task: Task, group: Group, found: Sequence[Row], scale: Any) -> str:
    arm, sparsity = group
    scores = [row["score"]["mean"] for row in found]
    whole = scoring.iqm({task.name: scores}).told(1)
    share = "-"
    if scale is not None:
        normal = [scoring.normalised(score, *scale) for score in scores]
        share = scoring.iqm({task.name: normal}).told()
    cells = [
        arm.name,
        _reached(sparsity, average(found, lambda row: row["actor"]["sparsity"])),
        f"{average(found, lambda row: row['actor']['nonzero']):,.0f}",
        len(found),
        whole,
        share,
        f"{average(found, lambda row: row['score']['worst']):,.1f}",
        ", ".join(f"{average(found, _shift(name)):,.0f}" for name in task.shifts),
        _count(found, lambda row: row["targets"]["cortex-m4"]["flash_bytes"]),
        _count(found, lambda row: row["targets"]["cortex-m4"]["instructions"]),
        f"{average(found, lambda row: row['train_s']):,.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _reached(sparsity: float, held: float) -> str:
    """Return an arm's sparsity, and beside it what it came to if that is something else.

    >>> _reached(0.9, 0.9001), _reached(0.9, 0.64), _reached(0.9, 0.0), _reached(0.0, 0.0)
    ('0.9', '0.9 (0.64)', '0.9', '-')
    """
    if not sparsity:
        return "-"
    apart = held and abs(held - sparsity) > _ROUNDING
    return f"{sparsity:g} ({held:.3g})" if apart else f"{sparsity:g}"


def _shift(name: str) -> Callable[[Row], float]:
    return lambda row: float(row["shifts"][name]["mean"])


def _count(found: Sequence[Row], value: Callable[[Row], float]) -> str:
    """Return a mean over the rows that were measured on that target."""
    measured = [row for row in found if "cortex-m4" in row["targets"]]
    return f"{average(measured, value):,.0f}" if measured else "-"


def average(found: Sequence[Row], value: Callable[[Row], float]) -> float:
    """Return a value's mean over rows."""
    return sum(map(value, found)) / len(found)


def _not_run(task: Task, lacking: Sequence[Group]) -> Iterator[str]:
    if not lacking:
        return
    yield "\n**Not run**:\n"
    arms = dict.fromkeys(arm for arm, _ in lacking)
    for arm in arms:
        at = [f"{s:g}" for other, s in lacking if other is arm and s]
        given = f" --sparsities {' '.join(at)}" if at else ""
        yield (
            f"- `python -m benchmarks.leaderboard run --tasks {task.name} --arms '{arm.name}'"
            f"{given}`"
        )


def suite_table(suite: str, known: Sequence[Row]) -> Iterator[str]:
    """Yield a suite's normalised scores: each arm over the tasks that it was run on."""
    tasks = [task for task in TASKS.values() if suite in task.suites]
    own = [row for row in known if row["task"] in {task.name for task in tasks}]
    scales = scoring.references(own)
    yield f"\n## Suite {suite}: {', '.join(task.name for task in tasks)}\n"
    if not scales:
        yield f"**Not run**: `python -m benchmarks.leaderboard run --suite {suite}`"
        return
    yield f"| arm | sparsity | tasks | runs | normalised IQM [95 %] | {ADVERTISED} is above it |"
    yield "|---|---|---|---|---|---|"
    for group in groups():
        ours = normal_scores(of_group(own, group), own)
        if ours:
            yield _suite_line(group, ours, own)


def _suite_line(group: Group, ours: scoring.Runs, own: Sequence[Row]) -> str:
    arm, sparsity = group
    best = normal_scores(of_group(own, (ARMS[ADVERTISED], sparsity)), own) if sparsity else {}
    shared = [task for task in best if task in ours]
    chance = "-"
    if shared and arm.name != ADVERTISED:
        chance = scoring.improvement({t: best[t] for t in shared}, ours).told()
    at = f"{sparsity:g}" if sparsity else "-"
    runs = sum(map(len, ours.values()))
    return f"| {arm.name} | {at} | {len(ours)} | {runs} | {scoring.iqm(ours).told()} | {chance} |"


def normal_scores(found: Sequence[Row], known: Sequence[Row]) -> dict[str, list[float]]:
    """Return normalised scores by task, of the tasks that have a scale (`scoring.paired`).

    Args:
        found: an arm's rows.
        known: all rows, dense's among them.
    """
    scales = scoring.paired(known, found)
    scores: dict[str, list[float]] = {}
    for row in found:
        if row["task"] in scales:
            value = scoring.normalised(row["score"]["mean"], *scales[row["task"]])
            scores.setdefault(row["task"], []).append(value)
    return scores
