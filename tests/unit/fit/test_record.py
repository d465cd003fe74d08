import os
import time

import pytest

from rayprune.fit.record import BEGAN, FitRecord


def began(seconds_ago: float) -> float:
    return time.monotonic() - seconds_ago


def test_the_time_of_all_processes_adds_up_that_of_killed_ones_too(tmp_path):
    with FitRecord(tmp_path, began(10)) as record:
        record.append("dense", {})
    # Killed 30 seconds into a wave, of which each iteration left a row; then a night goes by.
    rows, trial = tmp_path / "fit.jsonl", tmp_path / "waves" / "01" / "results.jsonl"
    trial.parent.mkdir(parents=True)
    trial.write_text("{}\n")
    last = rows.stat().st_mtime - 40_000
    os.utime(rows, (last, last))
    os.utime(trial, (last + 30, last + 30))
    with FitRecord(tmp_path, began(5)) as record:
        assert record.seconds == pytest.approx(10 + 30 + 5, abs=1)
        assert [row["time_s"] for row in record.rows(BEGAN)] == pytest.approx([10, 45], abs=1)
    # Nothing was trained since: nothing is counted twice.
    with FitRecord(tmp_path, began(1)) as record:
        assert record.seconds == pytest.approx(46, abs=1)
