"""``rayprune sensitivity``."""

import io
import json

import pytest
from rich.console import Console

from rayprune.cli.printing.scan_tables import TerminalScanReporter


def row(sparsity, iqm=None, unexplained=None):
    return {
        "layer": "pi.0",
        "sparsity": sparsity,
        "reached": 0.9,
        "iqm": iqm,
        "value_unexplained": unexplained,
    }


def test_the_options_become_a_scan(rayprune, adaptor, checkpoint, tmp_path):
    answer = rayprune(
        *("sensitivity", checkpoint, "--sparsities", "0.5, 0.9", "--criterion", "l2"),
        *("--layers", "pi*", "--layers", "encoder*", "--target", 0.8, "--out", tmp_path / "o"),
    )
    assert answer.code == 0, answer.stderr
    ((_, (path, options, out), keywords),) = adaptor.calls
    assert (path, out, keywords["resume"]) == (checkpoint, tmp_path / "o", False)
    assert (options.sparsities, options.criterion) == ((0.5, 0.9), "l2")
    assert (options.layers, options.target) == (("pi*", "encoder*"), 0.8)
    assert (options.tolerance, options.episodes, options.seed) == (0.05, 20, None)
    assert "all suggested at once, 86.0 % sparse: 455.0 [425.0, 480.0]" in answer.stderr
    assert "pruning.distribution=$(cat" in answer.stderr


def test_the_directory_is_called_after_the_run(rayprune, adaptor, tmp_path):
    place = tmp_path / "ppo-seed0" / "checkpoints" / "000001"
    place.mkdir(parents=True)
    rayprune("sensitivity", place)
    assert str(adaptor.calls[0][1][2]) == "runs/ppo-seed0-sensitivity"


def test_json_is_the_result_and_nothing_else(rayprune, adaptor, checkpoint):
    answer = rayprune("sensitivity", checkpoint, "--json")
    assert json.loads(answer.stdout)["suggested"]["sparsity"] == 0.86


@pytest.mark.parametrize("text", ["0.5;0.9", "", "half"])
def test_a_ladder_that_is_no_list_of_numbers_is_told(rayprune, adaptor, checkpoint, text):
    answer = rayprune("sensitivity", checkpoint, "--sparsities", text)
    assert answer.code == 2
    assert "`--sparsities` must be numbers separated by commas" in answer.stderr
    assert adaptor.calls == []


def test_a_missing_checkpoint_is_told_before_anything_starts(rayprune, adaptor):
    answer = rayprune("sensitivity", "no/such")
    assert answer.code == 2
    assert "There is no checkpoint 'no/such'" in answer.stderr
    assert adaptor.calls == []


def test_off_a_terminal_there_are_plain_lines_with_the_time_left():
    times = iter(range(0, 1000, 10))
    out = io.StringIO()
    with TerminalScanReporter(Console(file=out, width=200), clock=lambda: next(times)) as reporter:
        reporter.start(6, 2)
        reporter.point(row(0.5, iqm=480.0))
        reporter.point(row(0.9, unexplained=0.25))
        reporter.point(row(0.9, unexplained=99.0))
        reporter.point(row(None, iqm=455.0))
    first, second, third, last = out.getvalue().splitlines()
    assert first.startswith("3/6  pi.0 at 50.0 %: return 480.0")
    assert second.startswith("4/6  pi.0 at 90.0 %: 25.0 % of the values unexplained")
    assert "> 1000 % of the values" in third
    assert last.startswith("6/6  all suggested at 90.0 %: return 455.0")
    # The clock is read three times a line: after 30 s for the one point of this process, 3 remain.
    assert first.endswith("1:30 min left")
    assert last.endswith("0 s left")
