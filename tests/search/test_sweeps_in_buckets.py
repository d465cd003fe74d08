"""A sweep whose directory is in a bucket: searched, killed, resumed and read from there."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rayprune.storage.copies import fetched
from tests.command_line import rayprune, rayprune_here, start
from tests.doubles.buckets import Store
from tests.search.test_sweep import INTERVAL, STEPS, check_rows, write

pytestmark = pytest.mark.timeout(600)


def everything(paths: Any, copy: Path) -> set[str]:
    return set(paths)


def check_whole(url: str, population: int, end: int = STEPS) -> dict[str, Any]:
    """Every row is there once, and every checkpoint that is named; return the front."""
    copy = fetched(url, everything)
    check_rows(copy, population, end)
    outcome, front = (json.loads((copy / f"{n}.json").read_text()) for n in ("sweep", "front"))
    assert [trial["status"] for trial in outcome["trials"]] == ["done"] * population
    for archive in copy.glob("trials/*/archive.json"):
        for entry in json.loads(archive.read_text()):
            assert (archive.parent / entry["checkpoint"] / "rayprune.json").is_file()
    assert {path.parent.name for path in copy.glob("trials/*/summary.json")} == {
        trial["trial"] for trial in outcome["trials"]
    }
    assert (copy / "report.html").is_file()
    return front


def test_a_sweep_is_in_the_bucket_and_read_there(bucket: Store, tmp_path: Path) -> None:
    stop = {"env_steps": INTERVAL}
    config = write(tmp_path / "c.yaml", {"population": 2}, stop=stop)
    url = bucket.url("sweep")
    out, _ = rayprune("sweep", config, "--out", url, "--json")
    front = check_whole(url, 2, INTERVAL)
    assert json.loads(out)["front"] == front
    point = front["points"][-1]
    told, _ = rayprune_here("evaluate", f"{url}/{point['checkpoint']}", "--json")
    assert json.loads(told)["returns"]["test"] == point["test"]
    told, _ = rayprune_here("report", url, "--out", tmp_path / "page.html", "--json")
    assert json.loads(told)["sweeps"] == 1
    assert not any(
        b"secret-of-the-tests" in content or b"key-of-the-tests" in content
        for content in bucket.tree("sweep").values()
    )


def wait_for_rows(process: Any, bucket: Store, least: int) -> None:
    deadline = time.monotonic() + 240
    while True:
        # What is listed may be gone when it is read: the sweep goes on.
        with suppress(bucket.client.exceptions.NoSuchKey):
            tree = bucket.tree("sweep")
            rows = [tree[path].count(b"\n") for path in tree if path.endswith("results.jsonl")]
            if sum(rows) >= least:
                return
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow  # three drivers start Ray; test_journal.py kills journals in buckets in every run
def test_a_driver_killed_while_it_writes_there_loses_and_repeats_nothing(
    bucket: Store, tmp_path: Path
) -> None:
    config, url = write(tmp_path / "c.yaml"), bucket.url("sweep")
    for least, request_number in ((3, 7), (8, 12)):
        process = start("sweep", config, "--out", url, *(["--resume"] if least > 3 else []))
        wait_for_rows(process, bucket, least)
        bucket.gate.close_at(request_number)
        assert bucket.gate.reached.wait(120), process.communicate()[1][-3000:]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        bucket.gate.open()
    rayprune("sweep", config, "--out", url, "--resume")
    check_whole(url, 4)
