"""`rayprune` as a user starts it: a process of its own, or in this one where that is enough."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable

PATIENCE_S = 800
"""How long a command may take, however busy the machine is."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

# What Ray prints of its actors, those of earlier tests on the same Ray among them.
_OTHERS = re.compile(r"(?:\x1b\[\d+m)*\(.*pid=\d+")


def start(*arguments: object, ray: str | None = None) -> subprocess.Popen[str]:
    """Start a command, on the Ray at that address or one of its own; its output waits in pipes."""
    command = [sys.executable, "-m", "rayprune", *map(str, arguments)]
    now = {**os.environ, "OMP_NUM_THREADS": "1"}  # with what a fixture has set
    if ray is not None:
        now["RAY_ADDRESS"] = ray
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=now
    )


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for what a command that was started does on its way; it may not end before."""
    deadline = time.monotonic() + PATIENCE_S
    # What has come true lets it end: it is asked for first.
    while not condition():
        ended, late = process.poll() is not None, time.monotonic() > deadline
        if (ended and not condition()) or late:
            how = f"ended with {process.returncode}" if ended else f"still there, {PATIENCE_S} s on"
            raise AssertionError(f"{how}:\n{last_words(process)}")
        time.sleep(0.1)


def last_words(process: subprocess.Popen[str]) -> str:
    """End a command; return what it told last."""
    process.kill()
    return process.communicate()[1][-3000:]


def rayprune(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run a command to its end, which must have this exit code; return stdout and stderr."""
    process = start(*arguments)
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"no end after {PATIENCE_S} s:\n{last_words(process)}") from None
    assert process.returncode == code, f"{process.returncode}: {out[-1000:]}\n{err[-3000:]}"
    assert "Traceback" not in err
    return out, err


def rayprune_here(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run a command line in this process, on its Ray: no process and no Ray is waited for."""
    from rayprune.cli.app import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err):
        returned = run([str(argument) for argument in arguments], out)
    assert returned == code, err.getvalue()[-3000:]
    told = [line for line in err.getvalue().splitlines() if not _OTHERS.match(line)]
    assert not any("Traceback" in line for line in told), "\n".join(told)
    return out.getvalue(), err.getvalue()
