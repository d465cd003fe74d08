"""The time that all processes have worked: what lies between two of them isn't in it."""

import os

from rayprune.tracking.record import Record
from rayprune.tracking.working_time import seconds_before


def sign(path, at, time_s=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with Record.open(path) as record:
        record.append({} if time_s is None else {"time_s": time_s})
    os.utime(path, (at, at))


def test_nothing_was_done_before_the_first_process(tmp_path):
    assert seconds_before(tmp_path / "processes.jsonl") == 0.0


def test_a_killed_process_has_worked_until_the_last_row_that_it_left_anywhere(tmp_path):
    record = tmp_path / "processes.jsonl"
    sign(record, at=1000, time_s=0.0)
    sign(tmp_path / "trials" / "a" / "results.jsonl", at=1040)
    sign(tmp_path / "trials" / "b" / "results.jsonl", at=1030)
    assert seconds_before(record) == 40.0
    # The next begins an hour later, and is killed in its turn.
    sign(record, at=4600, time_s=40.0)
    sign(tmp_path / "trials" / "b" / "results.jsonl", at=4615)
    assert seconds_before(record) == 55.0


def test_one_that_was_killed_before_its_first_row_adds_nothing(tmp_path):
    record = tmp_path / "processes.jsonl"
    sign(tmp_path / "trials" / "a" / "results.jsonl", at=1040)
    sign(record, at=4600, time_s=40.0)
    assert seconds_before(record) == 40.0
