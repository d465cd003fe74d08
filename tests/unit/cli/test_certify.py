"""``rayprune certify``."""

import io
import json

import pytest
from rich.console import Console

from rayprune.cli.printing.certificate_tables import TerminalCertifyReporter, certificate_lines
from tests.doubles.made_up.certificate import made_up_certificate


@pytest.fixture
def dense(tmp_path):
    path = tmp_path / "dense"
    path.mkdir()
    return path


def test_the_options_are_handed_on(rayprune, adaptor, dense, checkpoint, tmp_path):
    answer = rayprune(
        *("certify", dense, checkpoint, "--margin", 12, "--absolute", "--tail", 0.1),
        *("--confidence", 0.9, "--episodes", 50, "--return-range", "-300", "300", "--seed", 7),
        *("--out", tmp_path / "o"),
    )
    assert answer.code == 0, answer.stderr
    ((_, (first, second, options, out, *_), _),) = adaptor.calls
    assert (first, second, out) == (dense, checkpoint, tmp_path / "o")
    assert (options.margin, options.absolute, options.tail_margin) == (12.0, True, None)
    assert (options.tail, options.confidence, options.episodes) == (0.1, 0.9, 50)
    assert (options.return_range, options.seed) == ((-300.0, 300.0), 7)
    assert "Non-inferior after 3 pairs" in answer.stderr
    assert "half by step 8" in answer.stderr


@pytest.mark.parametrize("json_too", [(), ("--json",)])
@pytest.mark.parametrize("verdict", ["inferior", "undecided"])
def test_what_is_not_certified_ends_with_exit_code_1(
    rayprune, adaptor, dense, checkpoint, monkeypatch, verdict, json_too
):
    import sys

    refused = made_up_certificate(verdict=verdict, certified=False, exit_code=1)
    module = sys.modules["rayprune.rllib.commands.certify"]
    monkeypatch.setattr(module, "certify", adaptor.answer("certify", refused))
    answer = rayprune("certify", dense, checkpoint, *json_too)
    assert answer.code == 1
    if json_too:
        assert json.loads(answer.stdout)["verdict"] == verdict
    else:
        assert f"{verdict.capitalize()} after" in answer.stderr


def test_json_is_the_certificate_and_nothing_else(rayprune, adaptor, dense, checkpoint):
    answer = rayprune("certify", dense, checkpoint, "--json")
    assert answer.code == 0
    assert json.loads(answer.stdout) == made_up_certificate()


def test_a_missing_checkpoint_is_told_before_anything_starts(rayprune, adaptor, dense):
    answer = rayprune("certify", dense, "no/such")
    assert answer.code == 2
    assert "'no/such'" in answer.stderr
    assert adaptor.calls == []


def test_off_a_terminal_there_are_plain_lines():
    times = iter(range(0, 1000, 60))
    out = io.StringIO()
    console = Console(file=out, width=200)
    with TerminalCertifyReporter(console, clock=lambda: next(times)) as reporter:
        reporter.start(1000)
        reporter.round(20, made_up_certificate())
    assert out.getvalue() == (
        "20 of at most 1000 pairs: dense 498.0, pruned 496.5; p of the mean 0.0013, "
        "of the tail 0.046\n"
    )


def test_continuous_actions_are_told_by_their_difference():
    close = {"agreement": None, "action_difference": 0.0213, "states": 10}
    parted = {"diverged": 0.0, "first": None, "median": None}
    lines = certificate_lines(made_up_certificate(closeness=close, divergence=parted))
    assert lines == ["Actions differ by 0.0213 on average"]
