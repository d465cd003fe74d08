"""A board of one's own: what its program prints is a measurement, or a named fault."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rayprune.deploy.targets import target_of
from rayprune.deploy.targets.base import Latency
from rayprune.deploy.targets.command import CommandTarget
from rayprune.errors import InputError, RunError

SAID = {
    "flash_bytes": 9000,
    "ram_bytes": 1200,
    "instructions": 20000.0,
    "latency_us": {"p50": 101.5, "p99": 120},
    "energy_uj": 3.5,
    "self_test": True,
    "tools": {"board": "rev C"},
    "notes": ["at 80 MHz"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my policy.c"
    path.write_text("/* anything */")
    return path


def board(folder: Path, body: str) -> str:
    program = folder / "board.py"
    program.write_text(f"import json, sys, time\n{body}\n")
    return f"command: {sys.executable} {program}"


def test_the_program_gets_the_file_and_what_it_prints_is_the_measurement(tmp_path, file):
    body = f"print(json.dumps({{**{SAID!r}, 'notes': [sys.argv[1]]}}))"
    found = target_of(board(tmp_path, body)).measure(file)
    assert found.notes == (str(file),)
    assert (found.flash_bytes, found.ram_bytes, found.instructions) == (9000, 1200, 20000)
    assert found.latency_us == Latency(101.5, 120.0)
    assert (found.energy_uj, found.self_test, found.tools) == (3.5, True, {"board": "rev C"})


def test_the_file_goes_where_the_command_says(tmp_path, file):
    text = board(tmp_path, "print(json.dumps({'flash_bytes': 1, 'notes': sys.argv[1:]}))")
    assert target_of(f"{text} --on {{file}} -v").measure(file).notes == ("--on", str(file), "-v")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("print('flash: 12')", "is no JSON: 'flash: 12'"),
        ("print('[1]')", "is no JSON object"),
        ("print('{}')", "holds no figure"),
        ("print(json.dumps({'flash': 1}))", r"has unknown names \['flash'\]"),
        ("print(json.dumps({'ram_bytes': True}))", "has `ram_bytes` True, which must be a number"),
        ("print(json.dumps({'energy_uj': float('nan')}))", "has `energy_uj` nan"),
        ("print(json.dumps({'latency_us': 3}))", "has `latency_us` 3"),
        ("print(json.dumps({'latency_us': {'p50': 2, 'p99': 1}}))", "p99 of 1 below its p50 of 2"),
        ("print(json.dumps({'self_test': 1}))", "has `self_test` 1, which must be a bool"),
        ("sys.exit('no board on ttyUSB0')", "ended with 1: no board on ttyUSB0"),
    ],
)
def test_what_is_no_measurement_is_refused_by_name(tmp_path, file, body, fault):
    with pytest.raises(RunError, match=fault):
        target_of(board(tmp_path, body)).measure(file)


def test_a_board_that_hangs_is_ended(tmp_path, file):
    text = board(tmp_path, "time.sleep(60)")
    with pytest.raises(RunError, match=r"was ended after 0\.2 s"):
        CommandTarget(text, timeout_s=0.2).measure(file)


def test_a_program_that_is_not_there_is_told_before_it_is_run(file):
    with pytest.raises(InputError, match="there is no program '/no/such/board' that can be run"):
        target_of("command: /no/such/board").check(file)


@pytest.mark.parametrize("text", ["command", "command:", "command: '"])
def test_a_command_without_a_program_is_refused(text):
    with pytest.raises(InputError, match="command"):
        target_of(text)


def test_json_says_everything(tmp_path, file):
    told = target_of(board(tmp_path, f"print(json.dumps({SAID!r}))")).measure(file).to_dict()
    assert json.loads(json.dumps(told)) == {**SAID, "target": told["target"]}
