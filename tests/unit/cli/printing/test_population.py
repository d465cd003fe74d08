"""What people see while a population trains, and what it ends with."""

import io

import pytest
from rich.console import Console

from rayprune.cli.printing.population import SHOWN, PopulationReporter, front_table


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def reporter_on(clock, *, terminal):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=150, highlight=False)
    return PopulationReporter(console, clock), stream


def result(steps, value=20.5, sparsity=0.45, **values):
    chosen = {"pruning.criterion": "l1", "rllib.training.lr": 0.00031, **values}
    return {"return": value, "sparsity": sparsity, "env_steps": steps, "values": chosen}


EXPLOIT = {"trial": "b", "donor": "a", "changed": {"pruning.sparsity": [0.5, 0.61234]}}


def test_plain_lines_tell_results_copies_and_failures(clock):
    reporter, stream = reporter_on(clock, terminal=False)
    reporter.population(2, 1000, {"name": "demo", "method": "mo_pbt"})
    reporter.trial("a", result(500))
    clock.now = 10.0
    reporter.trial("b", result(500, value=None))
    reporter.exploit(EXPLOIT)
    reporter.failure("b", "RuntimeError: out of breath", final=False)
    reporter.failure("b", "RuntimeError: out of breath", final=True)
    reporter.close()
    assert stream.getvalue().splitlines() == [
        "demo  mo_pbt",
        "a: step 500  return 20.5  sparsity 0.450  criterion l1  lr 0.00031",
        "b: step 500  return -  sparsity 0.450  criterion l1  lr 0.00031  20 s left",
        "b copies a: pruning.sparsity 0.5 -> 0.6123",
        "b failed and goes on from its checkpoint: RuntimeError: out of breath",
        "b has failed for good: RuntimeError: out of breath",
    ]


def test_a_terminal_shows_the_population_and_the_front_so_far(clock):
    reporter, stream = reporter_on(clock, terminal=True)
    reporter.population(2, 1000, {"name": "demo", "method": "mo_pbt"})
    reporter.trial("a", result(500, value=400.0, sparsity=0.9))
    reporter.trial("b", result(500, value=300.0, sparsity=0.5))
    reporter.exploit(EXPLOIT)
    reporter.close()
    shown = stream.getvalue()
    last = shown[shown.rindex("demo") :]
    assert "1,000 of 2,000 env steps" in last
    for heading in ("trial", "return", "sparsity", "age", "copied from"):
        assert heading in last
    lines = [line for line in last.splitlines() if line.lstrip().startswith(("a ", "b "))]
    assert lines[0].split()[:5] == ["a", "500", "400.0", "90.0", "%"]  # the sparsest first
    assert " a " in lines[1][2:]  # copied from
    assert "front so far: 400.0 at 90.0 %\n" in last + "\n"


def test_a_large_population_is_cut_to_what_a_screen_holds(clock):
    reporter, stream = reporter_on(clock, terminal=True)
    reporter.population(100, 1000, {"name": "demo"})
    for number in range(SHOWN + 7):
        reporter.trial(f"t{number:03d}", result(500))
    table = reporter._table()
    reporter.close()
    assert table.row_count == SHOWN + 1
    assert "and 7 more" in stream.getvalue()


def test_the_front_is_a_table_with_test_returns_beside():
    stream = io.StringIO()
    point = {
        **result(500, value=499.0, sparsity=0.95),
        "flops": 3416,
        "trial": "a",
        "test": {"iqm": 488.0, "ci95": [470.0, 500.0]},
        "config": {"pruning.criterion": "lamp"},
    }
    found = {"points": [point], "hypervolume": 12.5}
    Console(file=stream, width=120).print(front_table(found, 500.0))
    text = stream.getvalue()
    assert "Front: 1 point, hypervolume 12.5; the dense policy earns 500.0" in text
    for cell in ("95.0 %", "499.0", "488.0 [470.0, 500.0]", "3,416", "criterion lamp"):
        assert cell in text
