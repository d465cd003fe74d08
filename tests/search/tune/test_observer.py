"""What is told of a trial that failed."""

from contextlib import contextmanager
from types import SimpleNamespace

from ray import cloudpickle

from rayprune.errors import EnvError
from rayprune.search.reporter import NullSweepReporter
from rayprune.search.tune import observer
from rayprune.search.tune.observer import Lineage, Observer, error_of, observing


def nothing():
    return None


def unreadable():
    raise EOFError("Ran out of input")


def test_a_trials_error_is_told_in_a_line_or_that_it_is_lost():
    dead = SimpleNamespace(get_pickled_error=nothing, get_error=nothing)
    assert error_of(dead) == "its actor died, or its node."
    failed = SimpleNamespace(get_pickled_error=lambda: ValueError("first\nlast"))
    assert error_of(failed) == "ValueError: last"
    wrapped = RuntimeError("EnvRunner failed")
    wrapped.__cause__ = EnvError("Environment 'E' gave nan as reward.\nMore.")
    told = SimpleNamespace(get_pickled_error=lambda: wrapped)
    assert error_of(told) == "Environment 'E' gave nan as reward.\nMore."
    # A disk that was full when Tune wrote it.
    lost = SimpleNamespace(get_pickled_error=unreadable, get_error=nothing)
    assert "can't be read" in error_of(lost)


def test_a_trials_latest_error_is_read_where_tune_writes_it_first(tmp_path):
    here = tmp_path / "error.pkl"
    here.write_bytes(cloudpickle.dumps(EnvError("Environment 'E' failed.")))
    trial = SimpleNamespace(pickled_error_file=here, get_pickled_error=nothing, get_error=nothing)
    assert error_of(trial) == "Environment 'E' failed."


@contextmanager
def directory_of(path):
    yield str(path)


def test_what_tune_tells_is_committed_before_tune_goes_on(tmp_path, monkeypatch):
    told = []
    journal = SimpleNamespace(
        result=lambda trial, result: told.append(("result", trial)),
        checkpoint=lambda trial, directory: told.append(("checkpoint", directory)),
        exploit=lambda event: told.append(("exploit", event)),
    )
    monkeypatch.setattr(observer, "commit", lambda out: told.append(("commit", out)))
    trial = SimpleNamespace(trial_id="a")
    checkpoint = SimpleNamespace(as_directory=lambda: directory_of(tmp_path / "7"))
    with observing(tmp_path, journal, NullSweepReporter()):
        # Unpickled after a kill, they know another machine's directory.
        Observer(tmp_path / "before").on_trial_result(1, [trial], trial, {})
        Observer(tmp_path).on_checkpoint(1, [trial], trial, checkpoint)
        Lineage(tmp_path)({"trial": "a"})
    committed = ("commit", tmp_path)
    assert told == [
        ("result", "a"),
        committed,
        ("checkpoint", tmp_path / "7"),
        committed,
        ("exploit", {"trial": "a"}),
        committed,
    ]
