"""A population for people: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rayprune.cli.printing.tables import interval, percent
from rayprune.cli.printing.terminal_reporter import TerminalReporter, duration, number
from rayprune.search.pareto import front

SHOWN = 40
"""Members that the live table has room for."""


class PopulationReporter(TerminalReporter):
    """A `rayprune.search.reporter.SweepReporter` on a console.

    Args:
        console: where to write; whether it is a terminal decides the form.
        clock: seconds, monotonic; tests give their own.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        self._trials, self._steps = 0, 0
        self._headline: Mapping[str, str] = {}
        self._members: dict[str, dict[str, Any]] = {}
        self._seen: list[tuple[float, float]] = []
        self._began: tuple[float, int] | None = None
        self._live: Live | None = None

    def population(self, trials: int, total_steps: int, headline: Mapping[str, str]) -> None:
        """See `SweepReporter.population`."""
        self.close()
        self._trials, self._steps, self._headline = trials, total_steps, headline
        if self._console.is_terminal:
            # With a function, so that the times go on between two results.
            self._live = Live(get_renderable=self._screen, console=self._console)
            self._live.start()
        else:
            self._line("  ".join(headline.values()))

    def trial(self, trial: str, result: Mapping[str, Any]) -> None:
        """See `SweepReporter.trial`."""
        member = self._members.setdefault(trial, _newborn())
        member.update(result)
        member["rounds"] += 1
        member["error"] = None
        if self._began is None:
            self._began = (self._clock(), self._done())
        if isinstance(result["return"], (int, float)):
            self._seen.append((float(result["return"]), float(result["sparsity"])))
        if self._live is None:
            self._line(f"{trial}: {_told(result)}{self._time_left()}")

    def exploit(self, event: Mapping[str, Any]) -> None:
        """See `SweepReporter.exploit`."""
        member = self._members.setdefault(event["trial"], _newborn())
        member["donor"] = event["donor"]
        if self._live is None:
            changes = ", ".join(
                f"{key} {_value(old)} -> {_value(new)}"
                for key, (old, new) in event["changed"].items()
            )
            self._line(f"{event['trial']} copies {event['donor']}: {changes or 'nothing changed'}")

    def failure(self, trial: str, error: str, final: bool) -> None:
        """See `SweepReporter.failure`."""
        member = self._members.setdefault(trial, _newborn())
        member["error"] = error if final else None
        fate = "has failed for good" if final else "failed and goes on from its checkpoint"
        self._line(f"{trial} {fate}: {error}")

    def close(self) -> None:
        """See `Reporter.close`."""
        live, self._live = self._live, None
        if live is not None:
            live.refresh()
            live.stop()
        super().close()

    def _screen(self) -> Group:
        labels = "  ".join(self._headline.values())
        done, all_steps = self._done(), max(self._trials * self._steps, 1)
        head = f"{labels}  {done:,} of {all_steps:,} env steps{self._time_left()}"
        kept = ", ".join(f"{number(r)} at {percent(s)}" for r, s in self._front())
        return Group(Text(head), self._table(), Text(f"front so far: {kept or '-'}"))

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", no_wrap=True)
        for name in ("env steps", "return", "sparsity", "age"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("copied from", no_wrap=True)
        table.add_column("values")
        ranked = sorted(self._members.items(), key=lambda item: -(item[1].get("sparsity") or 0.0))
        for trial, member in ranked[:SHOWN]:
            table.add_row(
                trial,
                f"{member.get('env_steps', 0):,}",
                number(member.get("return")),
                percent(member.get("sparsity")),
                str(member["rounds"]),
                member["donor"] or "",
                member.get("error") or _values(member.get("values") or {}),
            )
        if len(ranked) > SHOWN:
            table.add_row(f"and {len(ranked) - SHOWN} more")
        return table

    def _front(self) -> list[tuple[float, float]]:
        members = list(dict.fromkeys(self._seen[i] for i in front(self._seen)))
        self._seen = members  # the dominated ones need never be looked at again
        return sorted(members, key=lambda point: point[1])

    def _done(self) -> int:
        return sum(int(member.get("env_steps", 0)) for member in self._members.values())

    def _time_left(self) -> str:
        """Return the time left, by the speed since the first result of this process."""
        if self._began is None:
            return ""
        began, first = self._began
        done, elapsed = self._done() - first, self._clock() - began
        if done <= 0 or elapsed <= 0:
            return ""
        left = max(self._trials * self._steps - self._done(), 0)
        return f"  {duration(left * elapsed / done)} left"


def front_table(found: Mapping[str, Any], dense_return: float | None) -> Table:
    """Return a sweep's front, the densest first.

    Args:
        found: the content of front.json.
        dense_return: the dense policy's validation return, if it was measured.
    """
    dense = "" if dense_return is None else f"; the dense policy earns {number(dense_return)}"
    points = "1 point" if len(found["points"]) == 1 else f"{len(found['points'])} points"
    title = f"Front: {points}, hypervolume {found['hypervolume']:.4g}{dense}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    timed = any("latency" in point for point in found["points"])
    names = ["sparsity", "return", "test return [95 %]", "FLOPs"]
    for name in [*names, *(["µs"] if timed else []), "trial", "values"]:
        table.add_column(name, justify="left" if name in ("trial", "values") else "right")
    for point in found["points"]:
        table.add_row(
            percent(point["sparsity"]),
            number(point["return"]),
            interval(point["test"]),
            "" if point["flops"] is None else f"{point['flops']:,}",
            *([number(point["latency"])] if timed else []),
            point["trial"],
            _values(point["config"]),
        )
    return table


def _newborn() -> dict[str, Any]:
    return {"rounds": 0, "donor": None, "error": None}


def _told(result: Mapping[str, Any]) -> str:
    return (
        f"step {result['env_steps']:,}  return {number(result['return'])}  "
        f"sparsity {number(result['sparsity'], 3)}  {_values(result['values'])}"
    )


def _values(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{_label(key)} {_value(value)}" for key, value in values.items())


def _label(key: str) -> str:
    # Beside what a policy has reached, which may be more than its clone was asked for.
    return "target" if key == "pruning.sparsity" else key.rpartition(".")[2]


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
