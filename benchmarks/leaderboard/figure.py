"""Figure: return against size, all arms, with intervals; SVG for light and for dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from benchmarks.leaderboard import scoring
from benchmarks.leaderboard.arms import ARMS
from benchmarks.leaderboard.cells import rows
from benchmarks.leaderboard.tables import average, groups, of_group
from benchmarks.leaderboard.tasks import TASKS, Task
from rayprune.tracking.record import write_atomic

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "assets"
TARGET: Final = "cortex-m4"
DRAWN: Final = (
    "dense",
    "linear",
    "post-hoc",
    "post-hoc, reconstructed",
    "small dense",
    "cubic",
    "recommended",
    "units, live",
    "narrow",
)
"""What can be told apart in one plot: no arm that only takes a recipe apart."""
LEAST_ARMS: Final = 4
"""A task with fewer arms measured has no panel."""
LEAST_RUNS: Final = 3
"""An arm with fewer at a sparsity has no point there."""

WIDE, HIGH, LEFT, TOP, BELOW, LEGEND = 268, 230, 58, 46, 56, 24
"""Of a panel's plot and its margins, in pixels; `LEGEND` of a line of the legend."""
PANEL: Final = LEFT + WIDE + 12
A_ROW: Final = 3
"""Panels beside each other."""
ENTRY: Final = 185
"""Width of an arm in the legend."""


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    name: str
    text: str
    faint: str
    colours: tuple[str, ...]


# Okabe and Ito's colours, which the colour-blind can tell apart; lightened for dark pages.
LIGHT: Final = Theme(
    "light",
    "#1f2328",
    "#d0d7de",
    ("#1f2328", "#a05a00", "#d55e00", "#0072b2", "#009e73", "#cc3f8f", "#7a52c7", "#8a8f98"),
)
DARK: Final = Theme(
    "dark",
    "#e6edf3",
    "#3d444d",
    ("#e6edf3", "#e0a458", "#ff8a4c", "#58a6ff", "#3fc796", "#ff8ac4", "#b392f0", "#8b949e"),
)
SHAPES: Final = ("circle", "square", "diamond")


@dataclass(frozen=True)
class Point:
    """An arm at a sparsity, on a task."""

    arm: str
    sparsity: float
    size: float
    """Flash in bytes."""
    score: scoring.Estimate


@dataclass(frozen=True)
class Panel:
    """A task's plot."""

    task: Task
    points: Sequence[Point]
    random: float
    """A random policy's return: the plot's floor."""


def write(results: Path, out: Path) -> int:
    """Draw all tasks that have rows enough; return the exit code."""
    known = rows([*TASKS], results)
    found = (panel_of(task, known) for task in TASKS.values())
    panels = [panel for panel in found if panel is not None]
    if not panels:
        print(f"No task has {LEAST_ARMS} arms measured: nothing is drawn.")
        return 1
    out.mkdir(parents=True, exist_ok=True)
    for theme in (LIGHT, DARK):
        place = out / f"leaderboard-{theme.name}.svg"
        write_atomic(place, drawing(panels, theme))
        print(place)
    return 0


def points(task: Task, known: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return a task's points, of the rows that were measured on the target.

    What has fewer runs than an interval is made of isn't drawn.
    """
    own = [r for r in known if r["task"] == task.name and TARGET in r.get("targets", ())]
    found = []
    for group in groups(task):
        arm, sparsity = group
        measured = of_group(own, group)
        if arm.name in DRAWN and len(measured) >= LEAST_RUNS:
            size = average(measured, lambda row: row["targets"][TARGET]["flash_bytes"])
            score = scoring.iqm({task.name: [row["score"]["mean"] for row in measured]})
            found.append(Point(arm.name, sparsity, size, score))
    return found


def panel_of(task: Task, known: Sequence[Mapping[str, Any]]) -> Panel | None:
    """Return a task's plot; None where too few arms, or none above a random policy, are known."""
    found = points(task, known)
    drawn = [r for r in known if r["task"] == task.name and r["arm"] == "random"]
    if not drawn or len({point.arm for point in found}) < LEAST_ARMS:
        return None
    random = float(drawn[0]["score"]["mean"])
    return Panel(task, found, random) if any(p.score.value > random for p in found) else None


def drawing(panels: Sequence[Panel], theme: Theme) -> str:
    """Return the SVG."""
    arms = [arm for arm in ARMS if any(p.arm == arm for panel in panels for p in panel.points)]
    width = min(len(panels), A_ROW) * PANEL
    below = math.ceil(len(panels) / A_ROW) * (TOP + HIGH + BELOW)
    a_line = (width - LEFT) // ENTRY
    height = below + math.ceil(len(arms) / a_line) * LEGEND + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="12" fill="{theme.text}">'
    ]
    for place, panel in enumerate(panels):
        row, column = divmod(place, A_ROW)
        axes = Axes(panel, LEFT + column * PANEL, TOP + row * (TOP + HIGH + BELOW))
        parts += _panel(panel, axes, arms, theme)
    parts += _legend(arms, a_line, below, theme)
    return "\n".join([*parts, "</svg>", ""])


class Axes:
    """Where a panel's sizes and returns lie: bytes by their logarithm, returns as they are."""

    def __init__(self, panel: Panel, left: float, top: float) -> None:
        sizes = [point.size for point in panel.points]
        ends = [x for p in panel.points for x in (p.score.value, p.score.low, p.score.high)]
        highest = max(x for x in ends if x is not None)
        self._x = math.log(min(sizes) / 1.15), math.log(max(sizes) * 1.15)
        # Worse than random is worth nothing, however much worse.
        self._y = panel.random, highest + 0.06 * (highest - panel.random)
        self.left, self.top = left, top

    @property
    def bottom(self) -> float:
        """Return the place of a random policy's return."""
        return self.top + HIGH

    def x(self, size: float) -> float:
        """Return the place of a size."""
        low, high = self._x
        return self.left + WIDE * (math.log(size) - low) / (high - low)

    def y(self, value: float) -> float:
        """Return the place of a return; what is worse than random lies on the floor."""
        low, high = self._y
        return self.top + HIGH * (high - max(value, low)) / (high - low)

    def sizes(self) -> list[int]:
        """Return the sizes that are written: powers of two of a kilobyte."""
        all_sizes = [2**k * 1024 for k in range(-1, 14)]
        return [s for s in all_sizes if self._x[0] <= math.log(s) <= self._x[1]]

    def returns(self) -> list[float]:
        """Return the returns that are written, at round steps."""
        low, high = self._y
        raw = (high - low) / 5
        unit = 10 ** math.floor(math.log10(raw))
        step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= raw)
        first = math.ceil(low / step)
        return [step * k for k in range(first, math.floor(high / step) + 1)]


def _panel(panel: Panel, axes: Axes, arms: Sequence[str], theme: Theme) -> Iterator[str]:
    left, bottom, right = axes.left, axes.bottom, axes.left + WIDE
    middle = left + WIDE / 2
    yield _text(middle, axes.top - 24, f"{panel.task.name}, {panel.task.steps:,} steps", size=14)
    yield _text(middle, bottom + 40, "flash on a Cortex-M4 (code and weights)")
    yield _text(left - 50, axes.top - 8, "return", anchor="start")
    for value in axes.returns():
        y = axes.y(value)
        yield _line(left, y, right, y, theme.faint)
        yield _text(left - 8, y + 4, f"{value:,.0f}", anchor="end")
    for size in axes.sizes():
        x = axes.x(size)
        yield _line(x, bottom, x, bottom + 5, theme.text)
        yield _text(x, bottom + 20, f"{size / 1024:g} KB")
    yield _line(left, bottom, right, bottom, theme.text)
    yield _text(right, bottom - 5, "random", size=11, anchor="end")
    for arm in arms:
        yield from _arm([p for p in panel.points if p.arm == arm], axes, *_style(arm, theme))


def _style(arm: str, theme: Theme) -> tuple[str, str]:
    """Return an arm's colour and shape, the same in all panels and figures."""
    place = DRAWN.index(arm)
    return theme.colours[place % len(theme.colours)], SHAPES[place // len(theme.colours)]


def _arm(found: Sequence[Point], axes: Axes, colour: str, shape: str) -> Iterator[str]:
    along = sorted(found, key=lambda point: point.size)
    places = " ".join(f"{axes.x(p.size):.1f},{axes.y(p.score.value):.1f}" for p in along)
    if len(along) > 1:
        yield f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-opacity="0.6"/>'
    for point in along:
        x, y = axes.x(point.size), axes.y(point.score.value)
        if point.score.low is not None and point.score.high is not None:
            low, high = axes.y(point.score.low), axes.y(point.score.high)
            yield _line(x, low, x, high, colour, opacity=0.55)
        share = f" at {point.sparsity:.0%}" if point.sparsity else ""
        told = f"{point.arm}{share}: {point.score.told(1)}, {point.size:,.0f} B"
        yield _mark(x, y, colour, shape, told)


def _mark(x: float, y: float, colour: str, shape: str, told: str = "") -> str:
    title = f"<title>{escape(told)}</title>" if told else ""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">{title}</circle>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if shape == "diamond" else ""
    return (
        f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"{turn}>'
        f"{title}</rect>"
    )


def _legend(arms: Sequence[str], a_line: int, top: float, theme: Theme) -> Iterator[str]:
    for place, arm in enumerate(arms):
        x = LEFT + place % a_line * ENTRY
        y = top + place // a_line * LEGEND + 14
        yield _mark(x, y - 4, *_style(arm, theme))
        yield _text(x + 10, y, arm, anchor="start")


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, opacity: float = 1.0) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-opacity="{opacity:g}"/>'
    )
