"""One trial's directory in a sweep: config.yaml, results.jsonl, checkpoints/, and its trackers.

A trial may die, be restored from an older checkpoint, or become a clone. Each of its results says
where its rows belong (see `rayprune.search.trials.trial`), and they are put there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rayprune.config import to_yaml
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.search.archive import Archive
from rayprune.search.reporter import SweepReporter
from rayprune.search.sweep_spec import Sweep
from rayprune.search.trials.trial import CHECKPOINT, experiment_of
from rayprune.tracking.followers import RunTracker, open_tracker
from rayprune.tracking.record import Record, read_rows, to_json, write_atomic
from rayprune.tracking.versions import versions

RECORD_FILE: Final = "results.jsonl"
STATE_FILE: Final = "state.json"
"""Where a trial's rows belong. ``length`` of the record, which is what commits its rows; the length
at each of the trial's states (``tokens``); its ``lives`` as a clone, each with the donor's state
that it came from, the length then, and the exploit; an exploit that is ``pending``; and its newest
result."""
REMEMBERED: Final = 12
"""How many states and lives of a trial are; Tune keeps fewer checkpoints."""
KEPT: Final = (
    "return",
    "sparsity",
    "flops",
    "parameters",
    "latency",
    "env_steps",
    "values",
    "token",
    "training_iteration",
)
"""What is kept of a result."""


class TrialFiles:
    """What the driver knows of one trial, and has on disk before it goes on."""

    def __init__(self, sweep: Sweep, trial: str, reporter: SweepReporter) -> None:
        """Open it, or go on with what is there.

        Args:
            sweep: the trial's.
            trial: its id.
            reporter: told of what goes wrong with a tracker.
        """
        self._sweep, self._trial, self._reporter = sweep, trial, reporter
        self._home = sweep.out / "trials" / trial
        (self._home / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.archive = Archive(self._home, sweep.objectives)
        self._state = self._read_state()
        self._record = Record.open(self._home / RECORD_FILE)
        rows = read_rows(self._home / RECORD_FILE)
        self._length = len(rows)
        self._marks = {n: row["exploit"] for n, row in enumerate(rows) if "exploit" in row}
        # A result that was not committed comes again, for Tune has not heard of it either.
        self._cut(self._state["length"])
        self._tracker: RunTracker | None = None

    @property
    def exploits(self) -> list[dict[str, Any]]:
        """The exploits in its record, oldest first: ``donor``, ``changed``, clock and time."""
        return list(self._marks.values())

    @property
    def donor(self) -> str | None:
        """The trial that it was last copied from."""
        return self.exploits[-1]["donor"] if self._marks else None

    @property
    def last(self) -> dict[str, Any]:
        """The newest result, without its rows; empty before the first."""
        result: dict[str, Any] = self._state["last"]
        return result

    def follows(self, token: str) -> bool:
        """Whether the trial is known as a clone of that state."""
        return self._life(token) is not None

    def has(self, token: str | None) -> bool:
        """Whether the rows up to that state of the trial are in its record."""
        return token is None or token in self._state["tokens"]

    def expect(
        self, exploit: Mapping[str, Any], values: Mapping[str, Any], token: str | None
    ) -> None:
        """Remember an exploit until its clone reports.

        One that is pending already never happened: the driver was killed before Tune had it on
        disk, and the scheduler has decided again.

        Args:
            exploit: what its first row will say of it.
            values: of the space's keys that the clone has by then, as far as they changed.
            token: the trial's state that the clone takes the place of; None for its newest.
        """
        at = self._state["tokens"].get(token, self._length)
        self._state["pending"] = {"exploit": dict(exploit), "values": dict(values), "at": at}
        self._write_state()

    def append(self, result: Mapping[str, Any]) -> None:
        """Append a result's rows, in place of any that the trial had to do again."""
        exploit = self._place(result)
        rows = [dict(row) for row in result["rows"]]
        if exploit is not None:
            rows[0]["exploit"] = self._marks[self._length] = exploit
        if self._tracker is None or exploit is not None:
            self._write_config(result["values"])
        self._record.append(*({**row, "values": result["values"]} for row in rows))
        for row in rows:
            if self._tracker is not None:
                self._tracker.row(row)
        self._length += len(rows)
        kept = {key: result.get(key) for key in KEPT}
        last = {**kept, "updates": rows[-1]["updates"], "time_s": rows[-1]["time_s"]}
        tokens = {**self._state["tokens"], result["token"]: self._length}
        # What it goes on from counts however long it goes on: its rows are placed by that.
        since = {at: tokens[at] for at in (result["since"] or ())[1:] if at in tokens}
        newest = dict(list(tokens.items())[-REMEMBERED:])
        self._state.update(last=last, tokens={**since, **newest})
        self._write_state()

    def keep(self, checkpoint: Path) -> None:
        """Offer one of the trial's checkpoints to its archive."""
        meta = checkpoints.read_meta(checkpoint / CHECKPOINT)
        if meta["token"] == self.last.get("token"):
            point = {key: value for key, value in self.last.items() if key != "token"}
            self.archive.offer(point, self._length, checkpoint / CHECKPOINT)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """End the trial's trackers and its record."""
        if self._tracker is not None:
            self._tracker.finish(summary)
        self._record.close()

    def _place(self, result: Mapping[str, Any]) -> dict[str, Any] | None:
        """Cut the record where a result's rows go on; return the exploit that its first one is."""
        since, before = result["since"], result["before"]
        if since is not None and since[0] != self._trial:
            return self._place_clone(since, before, result["values"])
        start = 0
        if since is not None and since[1]:
            start = self._state["tokens"].get(since[1], self._length)
        # It goes on as itself: what was told or lived of a clone since then has not happened.
        self._state["pending"] = None
        self._state["lives"] = [life for life in self._state["lives"] if life["at"] < start]
        self._go_to(start + before)
        return None

    def _place_clone(
        self, since: Sequence[str], before: int, values: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        donor, token = since
        due = self._due(donor, values) if before == 0 else None
        life = self._life(token)
        if due is not None or life is None:
            at = self._length if due is None else due["at"]
            life = {"token": token, "at": at, "exploit": due and due["exploit"]}
            self._state["lives"] = [*self._state["lives"], life][-REMEMBERED:]
        self._go_to(life["at"] + before)
        told: dict[str, Any] | None = life["exploit"] if before == 0 else None
        return told

    def _life(self, token: str) -> dict[str, Any] | None:
        """Return the newest of its lives as a clone of that state."""
        lives: list[dict[str, Any]] = self._state["lives"]
        return next((life for life in reversed(lives) if life["token"] == token), None)

    def _due(self, donor: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Take the pending exploit if it made a clone of these values."""
        pending: dict[str, Any] | None = self._state["pending"]
        if pending is None or pending["exploit"]["donor"] != donor:
            return None
        if any(values.get(key) != value for key, value in pending["values"].items()):
            return None
        self._state["pending"] = None
        return pending

    def _go_to(self, length: int) -> None:
        if length > self._length:
            self._reporter.message(
                f"The record of trial {self._trial} lacks {length - self._length} rows that it "
                "had sent: they were lost with the driver that was killed."
            )
        self._cut(length)

    def _cut(self, length: int) -> None:
        """Drop the rows from there on: they will be done again."""
        if length >= self._length:
            return
        self._record.replace(read_rows(self._home / RECORD_FILE)[:length])
        self._length = length
        self._marks = {row: mark for row, mark in self._marks.items() if row < length}
        self._state["lives"] = [life for life in self._state["lives"] if life["at"] <= length]
        self.archive.go_back_to(length)

    def _write_config(self, values: Mapping[str, Any]) -> None:
        """Write the trial's config as it is now, and open its trackers with it once."""
        sweep = self._sweep
        experiment = experiment_of(sweep.raw, sweep.space, values)
        write_atomic(self._home / "config.yaml", to_yaml(experiment, versions()))
        if self._tracker is None:
            self._tracker = open_tracker(
                experiment,
                self._home,
                self._reporter.message,
                name=self._trial,
                group=experiment.name,
                tags=("trial", sweep.search.method),
            )

    def _read_state(self) -> dict[str, Any]:
        path = self._home / STATE_FILE
        if path.is_file():
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return state
        return {"length": 0, "tokens": {}, "lives": [], "pending": None, "last": {}}

    def _write_state(self) -> None:
        self._state["length"] = self._length
        write_atomic(self._home / STATE_FILE, to_json(self._state) + "\n")
