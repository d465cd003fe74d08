"""Between Tune and the journal: objects that Tune may pickle and bring back in a later process.

``Tuner.restore`` unpickles callbacks and scheduler. So these hold the sweep's directory alone, and
look the journal of this process up when they are called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ray import cloudpickle
from ray.tune import Callback
from ray.tune.experiment import Trial

from rayprune.errors import RaypruneError
from rayprune.reasons import found_in
from rayprune.search.reporter import SweepReporter
from rayprune.search.trials.journal import Journal
from rayprune.search.tune.tune_state import StateKeeper
from rayprune.search.tune.tune_storage import TuneStorage
from rayprune.storage.copies import commit


class _Opened(NamedTuple):
    journal: Journal
    reporter: SweepReporter
    keeper: StateKeeper
    storage: TuneStorage

    def commit(self) -> None:
        """Make what the journal has written last, before Tune goes on from it."""
        commit(self.storage.out)


_open: dict[str, _Opened] = {}


def _opened(out: str) -> _Opened:
    """Return what is open in that directory, or in the one that it was moved to since."""
    return _open.get(out) or next(iter(_open.values()))


@contextmanager
def observing(out: Path, journal: Journal, reporter: SweepReporter) -> Iterator[None]:
    """Let a sweep's observers find their journal."""
    storage = TuneStorage.of(out)
    _open[str(out)] = _Opened(journal, reporter, StateKeeper(storage.kept), storage)
    try:
        yield
    finally:
        del _open[str(out)]


class Observer(Callback):
    """Hands Tune's events to the journal."""

    def __init__(self, out: Path) -> None:
        self._out = str(out)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tune may have written its state."""
        opened = _opened(self._out)
        opened.keeper.keep(opened.storage.written(trials))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial was measured."""
        opened = _opened(self._out)
        opened.journal.result(trial.trial_id, result)
        opened.commit()

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any
    ) -> None:
        """A trial's checkpoint was written."""
        opened = _opened(self._out)
        with checkpoint.as_directory() as directory:
            opened.journal.checkpoint(trial.trial_id, Path(directory))
        opened.commit()

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial has failed, for good or to be taken up again when the others are done."""
        final = failed_for_good(trial)
        _opened(self._out).reporter.failure(trial.trial_id, error_of(trial), final=final)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial has failed and goes on from its checkpoint."""
        _opened(self._out).reporter.failure(trial.trial_id, error_of(trial), final=False)


class Lineage:
    """Hands the scheduler's exploits to the journal."""

    def __init__(self, out: Path) -> None:
        self._out = str(out)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """A trial became a clone."""
        opened = _opened(self._out)
        opened.journal.exploit(event)
        opened.commit()


def failed_for_good(trial: Trial) -> bool:
    """Whether a trial has failed more often than it may."""
    return bool(trial.run_metadata.num_failures > trial.max_failures)


def error_of(trial: Any) -> str:
    """Return in a line why a trial failed last."""
    try:
        error = _latest_error(trial)
    except Exception:  # half a file, or an empty one, that a full disk has left
        return "why is not known: what Tune had written of it can't be read."
    if error is None:
        return "its actor died, or its node."
    ours = found_in(error, RaypruneError)
    if ours is not None:
        return str(ours)
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    # An actor's death is told in its first line, an exception under Ray's traceback in its last.
    line = lines[0] if lines and getattr(error, "cause", None) else (lines or ["(no message)"])[-1]
    return f"{type(cause).__name__}: {line.strip()}"


def _latest_error(trial: Any) -> Any:
    # Tune writes it here, and copies it later to where its own methods look.
    here = getattr(trial, "pickled_error_file", None)
    if here is not None and Path(here).is_file():
        return cloudpickle.loads(Path(here).read_bytes())
    return trial.get_pickled_error() or trial.get_error()
