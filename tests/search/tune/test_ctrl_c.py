"""Ctrl-C while Tune trains."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from ray.tune.tune import _setup_signal_catching

from rayprune.search.tune.ctrl_c import CtrlC


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """What a job in a shell's background lacks: it inherits an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_that_tune_takes_is_noted_and_the_next_one_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with CtrlC() as ctrl_c:
        taken = _setup_signal_catching()
        signal.raise_signal(signal.SIGINT)
        assert taken.is_set()
        assert ctrl_c.ended_it
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_once_tune_has_ended_by_itself_ctrl_c_is_python_s_own_again() -> None:
    with CtrlC() as ctrl_c:
        _setup_signal_catching()
        assert not ctrl_c.ended_it
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
