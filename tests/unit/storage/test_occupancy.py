"""One run a directory: the second is refused while the first lives, and not a moment longer."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rayprune.errors import StorageError
from rayprune.storage import occupancy
from rayprune.storage.occupancy import LOCK_FILE, check_unoccupied, occupied
from rayprune.tracking.record import prepare_out

HOLD = """
import sys, time
from pathlib import Path
from rayprune.storage.occupancy import occupied
with occupied(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(250)
"""


@pytest.fixture
def other(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_is_refused_while_another_process_writes_to_it(tmp_path, other, resume):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(
        StorageError, match=f"in use: process {other.pid} on '.*', since 20"
    ) as told:
        prepare_out(tmp_path, resume)
    assert "--out" in str(told.value)
    with pytest.raises(StorageError, match="in use"), occupied(tmp_path):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with occupied(tmp_path):  # at once
        assert (tmp_path / LOCK_FILE).is_file()
    assert not (tmp_path / LOCK_FILE).exists()


def test_without_locks_a_process_is_looked_up(tmp_path, other, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr(occupancy.fcntl, "flock", unsupported)
    with pytest.raises(StorageError, match=f"process {other.pid} "):
        check_unoccupied(tmp_path)
    other.kill()
    other.wait()
    check_unoccupied(tmp_path)
    with occupied(tmp_path):
        check_unoccupied(tmp_path)  # one's own


def test_a_lock_that_a_kill_left_behind_is_no_run(tmp_path):
    (tmp_path / LOCK_FILE).write_text("half a li")
    prepare_out(tmp_path, resume=False)
    begun = time.monotonic()
    with occupied(tmp_path):
        pass
    assert time.monotonic() - begun < 60
    assert list(tmp_path.iterdir()) == []
