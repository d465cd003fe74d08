"""What the driver writes while a population trains: records, lineage, archives, trackers.

Only the driver writes a sweep's files, so there is one writer whatever happens to the trials, and
a trial's machine needs to share nothing but its checkpoints. Tune's own `progress.csv` loses rows
when a trial is paused, resumed or cloned.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rayprune.config import to_yaml
from rayprune.rllib import checkpoints
from rayprune.search.archive import Archive
from rayprune.search.plan import Sweep
from rayprune.search.progress import SweepReporter
from rayprune.search.trial import CHECKPOINT, experiment_of
from rayprune.tracking.record import Record, read_rows, to_json, write_atomic
from rayprune.tracking.tracker import RunTracker, open_tracker
from rayprune.tracking.versions import versions

LINEAGE_FILE: Final = "lineage.jsonl"
RECORD_FILE: Final = "results.jsonl"
STATE_FILE: Final = "state.json"
"""Where a trial's rows belong: the record's length at each of its states (``tokens``), the donor's
state that it was last cloned from, the length then, and its newest result."""
TOKENS: Final = 12
"""How many states of a trial are remembered; Tune keeps fewer checkpoints."""
KEPT: Final = (
    "return",
    "sparsity",
    "flops",
    "parameters",
    "env_steps",
    "values",
    "token",
    "training_iteration",
)
"""What is kept of a result."""


class TrialFiles:
    """One trial's directory, of a run's form: config.yaml, results.jsonl, checkpoints/."""

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
        self.exploits: deque[Mapping[str, Any]] = deque()
        """Not yet followed by a result."""
        self._path = self._home / RECORD_FILE
        self._record = Record.open(self._path)
        self._length = len(read_rows(self._path))
        self._state = self._read_state()
        self._tracker: RunTracker | None = None

    @property
    def donor(self) -> str | None:
        """The trial that it was last copied from."""
        parent: str | None = self._state["parent"]
        return parent

    @property
    def last(self) -> dict[str, Any]:
        """The newest result, without its rows; empty before the first."""
        result: dict[str, Any] = self._state["last"]
        return result

    def follows(self, token: str) -> bool:
        """Whether the trial is known as a clone of that state."""
        return bool(self._state["cloned_from"] == token)

    def append(self, result: Mapping[str, Any]) -> None:
        """Append a result's rows, in place of any that the trial had to do again."""
        exploit = self._place(result)
        rows = [dict(row) for row in result["rows"]]
        if exploit is not None:
            told = {key: exploit[key] for key in ("donor", "changed")}
            rows[0]["exploit"] = {**told, "env_steps": exploit["clock"]}
            self._state["parent"] = exploit["donor"]
        if self._tracker is None or exploit is not None:
            self._write_config(result["values"])
        for row in rows:
            self._record.append({**row, "values": result["values"]})
            if self._tracker is not None:
                self._tracker.row(row)
        self._length += len(rows)
        kept = {key: result.get(key) for key in KEPT}
        last = {**kept, "updates": rows[-1]["updates"], "time_s": rows[-1]["time_s"]}
        tokens = {**self._state["tokens"], result["token"]: self._length}
        self._state.update(last=last, tokens=dict(list(tokens.items())[-TOKENS:]))
        write_atomic(self._home / STATE_FILE, to_json(self._state) + "\n")

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

    def _place(self, result: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Cut the record where a result's rows go on; return the exploit that they follow."""
        state, since, exploit = self._state, result["since"], None
        if since is None:
            base = 0
        elif since[0] == self._trial:
            base = state["tokens"].get(since[1], self._length)
        else:
            if result["before"] == 0 and self.exploits:
                exploit = self.exploits.popleft()
            if exploit is not None or not self.follows(since[1]):
                state.update(cloned_from=since[1], cloned_at=self._length)
            base = state["cloned_at"]
        self._cut(base + result["before"])
        return exploit

    def _cut(self, length: int) -> None:
        if length >= self._length:
            return
        kept = read_rows(self._path)[:length]
        self._record.close()
        write_atomic(self._path, "".join(to_json(row) + "\n" for row in kept))
        self._record = Record.open(self._path)
        self._length = length
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
        return {"tokens": {}, "cloned_from": None, "cloned_at": 0, "parent": None, "last": {}}


class Journal:
    """A sweep's files while it runs; told by Tune through `rayprune.search.observer`."""

    def __init__(self, sweep: Sweep, reporter: SweepReporter) -> None:
        """Go on with what is in the sweep's directory.

        Args:
            sweep: what runs.
            reporter: told of results and exploits.
        """
        self._sweep, self._reporter = sweep, reporter
        self._files: dict[str, TrialFiles] = {}
        self._lineage = Record.open(sweep.out / LINEAGE_FILE)

    def result(self, trial: str, result: dict[str, Any]) -> None:
        """Record a result; its rows are taken out of it, for Tune need not keep them."""
        files = self.files(trial)
        if self._sweep.search.method == "pb2":
            self._infer_exploit(files, trial, result)
        files.append(result)
        del result["rows"]
        self._reporter.trial(trial, result)

    def checkpoint(self, trial: str, directory: Path) -> None:
        """Keep a checkpoint that Tune has, if it is worth it."""
        self.files(trial).keep(directory)

    def exploit(self, event: Mapping[str, Any]) -> None:
        """Record that a trial has become a clone."""
        keys = ("trial", "donor", "changed", "time")
        row = {"env_steps": event["clock"], **{key: event[key] for key in keys}}
        self._lineage.append(row)
        self.files(event["trial"]).exploits.append(event)
        self._reporter.exploit(row)

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
