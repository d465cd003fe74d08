"""What the driver writes while a population trains: records, lineage, archives, trackers.

Only the driver writes a sweep's files, so there is one writer whatever happens to the trials, and
a trial's machine needs to share nothing but its checkpoints. Tune's own `progress.csv` loses rows
when a trial is paused, resumed or cloned.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rayprune.search.methods import METHODS
from rayprune.search.reporter import SweepReporter
from rayprune.search.sweep_spec import Sweep
from rayprune.search.trials.trial_files import TrialFiles
from rayprune.tracking.record import Record, read_rows

LINEAGE_FILE: Final = "lineage.jsonl"


class Journal:
    """A sweep's files while it runs; told by Tune through `rayprune.search.tune.observer`.

    The lineage is the exploits that the trials' records hold, in order of time: one that happened
    just before the driver was killed, and that Tune does not remember, has not happened.
    """

    def __init__(self, sweep: Sweep, reporter: SweepReporter) -> None:
        """Go on with what is in the sweep's directory.

        Args:
            sweep: what runs.
            reporter: told of results and exploits.
        """
        self._sweep, self._reporter = sweep, reporter
        self._files: dict[str, TrialFiles] = {}
        self._ahead: dict[str, Mapping[str, Any]] = {}
        for home in sorted((sweep.out / "trials").glob("*/")):
            self.files(home.name)
        self._lineage = Record.open(sweep.out / LINEAGE_FILE)
        self._told = read_rows(sweep.out / LINEAGE_FILE)
        self._write_lineage()

    def result(self, trial: str, result: dict[str, Any]) -> None:
        """Record a result; its rows are taken out of it, for Tune need not keep them."""
        files = self.files(trial)
        if not METHODS[self._sweep.search.method].tells_copies:
            self._infer_exploit(files, trial, result)
        before = files.exploits
        files.append(result)
        if trial in self._ahead:
            self._expect(self._ahead.pop(trial))
        if files.exploits != before:
            # It looks at all exploits of all trials, of which there may be many thousands.
            self._write_lineage()
        del result["rows"]
        self._reporter.trial(trial, result)

    def checkpoint(self, trial: str, directory: Path) -> None:
        """Keep a checkpoint that Tune has, if it is worth it."""
        self.files(trial).keep(directory)

    def exploit(self, event: Mapping[str, Any]) -> None:
        """Hear that a trial becomes a clone; it is recorded with the clone's first result."""
        self._reporter.exploit(_lineage_row(event["trial"], _mark(event)))
        if self.files(event["trial"]).has(_token(event)):
            self._expect(event)
        else:
            # An asynchronous scheduler tells of it before the result that it judged.
            self._ahead[event["trial"]] = event

    def _expect(self, event: Mapping[str, Any]) -> None:
        values = {key: new for key, (_, new) in event["changed"].items()}
        self.files(event["trial"]).expect(_mark(event), values, _token(event))

    def _write_lineage(self) -> None:
        before, now = self._told, self._exploits()
        if now[: len(before)] != before:
            self._lineage.replace(now)
        else:
            for row in now[len(before) :]:
                self._lineage.append(row)
        self._told = now

    def _exploits(self) -> list[dict[str, Any]]:
        rows = [
            _lineage_row(trial, mark)
            for trial, files in self._files.items()
            for mark in files.exploits
        ]
        return sorted(rows, key=lambda row: float(row["time"]))

    def _infer_exploit(self, files: TrialFiles, trial: str, result: Mapping[str, Any]) -> None:
        """Tune's own schedulers tell of no exploit; a checkpoint of another trial's is one."""
        since, before = result["since"], files.last.get("values") or {}
        if since is None or since[0] == trial or result["before"] or files.follows(since[1]):
            return
        changed = {k: [before.get(k), v] for k, v in result["values"].items() if before.get(k) != v}
        clock, now = result["rows"][0]["env_steps"], time.time()
        event = {"trial": trial, "donor": since[0], "clock": clock, "changed": changed, "time": now}
        self.exploit(event)

    def files(self, trial: str) -> TrialFiles:
        """Return a trial's files."""
        if trial not in self._files:
            self._files[trial] = TrialFiles(self._sweep, trial, self._reporter)
        return self._files[trial]

    def close(self, summaries: Mapping[str, Mapping[str, Any]]) -> None:
        """End all trials' files.

        Args:
            summaries: the content of a trial's summary.json, by trial; a trial may lack one.
        """
        for trial, files in self._files.items():
            files.close(summaries.get(trial))
        self._lineage.close()


def _mark(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the first row of a clone says of its exploit."""
    clock = {"env_steps": int(event["clock"]), "time": event["time"]}
    return {"donor": event["donor"], "changed": event["changed"], **clock}


def _token(event: Mapping[str, Any]) -> str | None:
    """Return the state of the trial that its clone takes the place of."""
    token: str | None = (event.get("result") or {}).get("token")
    return token


def _lineage_row(trial: str, mark: Mapping[str, Any]) -> dict[str, Any]:
    return {"trial": trial, **mark}
