"""What is told of a trial that failed."""

from types import SimpleNamespace

from rayprune.search.observer import error_of


def nothing():
    return None


def unreadable():
    raise EOFError("Ran out of input")


def test_a_trials_error_is_told_in_a_line_or_that_it_is_lost():
    dead = SimpleNamespace(get_pickled_error=nothing, get_error=nothing)
    assert error_of(dead) == "its actor died, or its node."
    failed = SimpleNamespace(get_pickled_error=lambda: ValueError("first\nlast"))
    assert error_of(failed) == "ValueError: last"
    # A disk that was full when Tune wrote it.
    lost = SimpleNamespace(get_pickled_error=unreadable, get_error=nothing)
    assert "can't be read" in error_of(lost)
