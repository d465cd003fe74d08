"""What people see while a run goes on."""

import io

import pytest
from rich.console import Console

from rayprune.cli.printing.terminal_reporter import TerminalReporter
from rayprune.tracking.reporter import NullReporter, Reporter


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def reporter_on(clock, *, terminal):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120, highlight=False)
    return TerminalReporter(console, clock), stream


def row(step, mean=20.5):
    return {"env_steps": step, "return_mean": mean, "sparsity": 0.45, "time_s": 1.0}


def test_plain_lines_come_at_most_every_five_seconds(clock):
    reporter, stream = reporter_on(clock, terminal=False)
    reporter.start("demo", 10_000, 0)
    for second in range(1, 12):
        clock.now = float(second)
        reporter.iteration(row(100 * second))
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "demo: step 100/10,000",
        "demo: step 600/10,000",
        "demo: step 1,100/10,000",
    ]
    assert lines[1] == "demo: step 600/10,000  return 20.5  sparsity 0.450  1:34 min left"


def test_an_iteration_in_which_no_episode_ended_shows_the_last_return(clock):
    reporter, stream = reporter_on(clock, terminal=False)
    reporter.start("demo", 10_000, 0)
    for second, mean in ((0, None), (5, 30.0), (10, None), (15, float("nan"))):
        clock.now = float(second)
        reporter.iteration(row(100 + second, mean))
    reporter.start("twin", 10_000, 0)
    reporter.iteration(row(100, None))
    told = [line.split("  ")[1] for line in stream.getvalue().splitlines()]
    assert told == ["return -", "return 30.0", "return 30.0", "return 30.0", "return -"]


def test_the_last_iteration_is_always_shown(clock):
    reporter, stream = reporter_on(clock, terminal=False)
    reporter.start("demo", 200, 0)
    reporter.iteration(row(100))
    reporter.iteration(row(200))
    assert "step 200/200" in stream.getvalue()


def test_the_time_left_of_a_resumed_run_counts_only_what_this_process_did(clock):
    reporter, stream = reporter_on(clock, terminal=False)
    reporter.start("demo", 10_000, 9_000)
    clock.now = 10.0
    reporter.iteration(row(9_500))
    assert "10 s left" in stream.getvalue()


@pytest.mark.parametrize("mean", [None, float("nan")])
def test_no_return_yet_is_a_dash(clock, mean):
    reporter, stream = reporter_on(clock, terminal=False)
    reporter.start("demo", None, 0)
    reporter.iteration(row(100, mean))
    assert stream.getvalue() == "demo: step 100  return -  sparsity 0.450\n"


def test_a_terminal_gets_one_live_line(clock):
    reporter, stream = reporter_on(clock, terminal=True)
    reporter.start("demo", 1_000, 0)
    reporter.iteration(row(500))
    reporter.close()
    reporter.close()
    shown = stream.getvalue()
    assert "50%" in shown
    assert "return 20.5  sparsity 0.450" in shown


def test_evaluations_and_messages_are_lines_with_brackets_intact(clock):
    reporter, stream = reporter_on(clock, terminal=False)
    reporter.start("demo", None, 0)
    reporter.evaluation({"env_steps": 2_000, "episodes": 20, "iqm": 99.96, "mean": 90})
    reporter.message("kept ['pi']")
    assert stream.getvalue().splitlines() == [
        "demo: step 2,000  evaluated on 20 episodes: IQM 100.0, mean 90.0",
        "kept ['pi']",
    ]


def test_both_reporters_are_reporters(clock):
    reporters: list[Reporter] = [NullReporter(), reporter_on(clock, terminal=False)[0]]
    for reporter in reporters:
        reporter.start("demo", 100, 0)
        reporter.iteration(row(50))
        reporter.evaluation(row(50))
        reporter.message("half")
        assert reporter.close() is None
