"""Cells: an arm on a task at a sparsity with a seed; which are missing, in what order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.leaderboard.arms import ARMS, CORE_SEEDS, CORE_SPARSITIES, SPARSITIES, Arm
from benchmarks.leaderboard.tasks import TASKS, Task
from rayprune.tracking.record import read_rows

RESULTS: Final = Path(__file__).parent / "results"
RANDOM: Final = "random"
"""The arm of a policy that draws its actions; one cell a task."""
SECONDS_A_STEP: Final = 2.5e-4
"""Of training with one core of a server; what a plan goes by where there is no row yet."""
SECONDS_A_CELL: Final = 60.0
"""Of all but training."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row to be."""

    task: str
    arm: str
    sparsity: float
    """Of the deployed actor; 0 where the arm has none."""
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """What a row has of it."""
        return dataclasses.asdict(self)

    @property
    def name(self) -> str:
        """A name for its folder, such as ``hopper/small_dense-0.9-seed1``."""
        share = f"-{self.sparsity:g}" if self.sparsity else ""
        arm = self.arm.replace(",", "").replace(" ", "_")
        return f"{self.task}/{arm}{share}-seed{self.seed}"

    @property
    def before(self) -> Cell | None:
        """The cell whose policy it prunes, or learns from."""
        if self.arm == RANDOM:
            return None
        arm = ARMS[self.arm]
        if source := arm.cuts or arm.clones:
            return dataclasses.replace(self, arm=source, sparsity=0.0)
        data = TASKS[self.task].data
        return Cell(task=data, arm="dense", sparsity=0.0, seed=0) if data else None

    @property
    def command(self) -> str:
        """What runs it."""
        given = f" --sparsities {self.sparsity:g}" if self.sparsity else ""
        return (
            f"python -m benchmarks.leaderboard run --tasks {self.task} --arms '{self.arm}'{given} "
            f"--only-seeds {self.seed}"
        )


def cells(
    tasks: Sequence[str],
    arms: Sequence[str] = (),
    sparsities: Sequence[float] = SPARSITIES,
    seeds: Iterable[int] = range(10),
) -> list[Cell]:
    """Return the cells asked for, those first that make a useful table soon.

    Args:
        tasks: names.
        arms: names; none for all.
        sparsities: of the arms that have one.
        seeds: of training.
    """
    wanted = [
        Cell(task=task, arm=arm.name, sparsity=sparsity, seed=seed)
        for task in tasks
        for seed in seeds
        for arm in ARMS.values()
        if arm.applies(TASKS[task]) and (not arms or arm.name in arms)
        for sparsity in (sparsities if arm.sparse else (0.0,))
    ]
    drawn = [Cell(task=task, arm=RANDOM, sparsity=0.0, seed=0) for task in tasks]
    whole = [*drawn, *_with_what_they_need(wanted)]
    # A task whose policy others learn from comes first.
    first = (TASKS[task].data for task in tasks if TASKS[task].data)
    places = {task: place for place, task in enumerate(dict.fromkeys([*first, *tasks]))}
    return sorted(whole, key=lambda cell: (_wave(cell), places[cell.task], cell.seed))


def _with_what_they_need(wanted: Sequence[Cell]) -> Iterator[Cell]:
    needed = (each for cell in wanted for each in (*befores(cell), cell))
    yield from dict.fromkeys(needed)


def befores(cell: Cell) -> Iterator[Cell]:
    """Yield the cells that must be made before a cell, the first first."""
    if cell.before is not None:
        yield from befores(cell.before)
        yield cell.before


def _wave(cell: Cell) -> int:
    if cell.arm == RANDOM:
        return 0
    arm = ARMS[cell.arm]
    early = cell.seed < CORE_SEEDS
    if arm.core and early and (not arm.sparse or cell.sparsity in CORE_SPARSITIES):
        return 0
    # Cutting what is trained already costs next to nothing.
    if early and (arm.cuts or cell.sparsity in CORE_SPARSITIES):
        return 1
    return 2 if early else 3


def rows(tasks: Sequence[str], results: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the rows that there are."""
    files = [results / f"{task}.jsonl" for task in tasks]
    return [row for path in files if path.is_file() for row in read_rows(path)]


def cell_of(row: Mapping[str, Any]) -> Cell:
    """Return the cell that a row is of."""
    return Cell(**{field.name: row[field.name] for field in dataclasses.fields(Cell)})


def missing(wanted: Sequence[Cell], results: Path = RESULTS) -> list[Cell]:
    """Return the cells without a row, in their order."""
    done = {cell_of(row) for row in rows([*dict.fromkeys(c.task for c in wanted)], results)}
    return [cell for cell in wanted if cell not in done]


def seconds(cell: Cell, known: Sequence[Mapping[str, Any]]) -> float:
    """Return about how long a cell takes, by the median of its like, or by its steps."""
    alike = sorted(r["seconds"] for r in known if (r["task"], r["arm"]) == (cell.task, cell.arm))
    if alike:
        return float(alike[len(alike) // 2])
    if cell.arm == RANDOM or ARMS[cell.arm].cuts:
        return SECONDS_A_CELL
    return SECONDS_A_CELL + SECONDS_A_STEP * TASKS[cell.task].steps


def parts(cell: Cell) -> tuple[Task, Arm]:
    """Return its task and its arm."""
    return TASKS[cell.task], ARMS[cell.arm]
