"""`rayprune` as a user starts it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a command; its output waits in pipes."""
    command = [sys.executable, "-m", "rayprune", *map(str, arguments)]
    now = {**os.environ, "OMP_NUM_THREADS": "1"}  # with what a fixture has set
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=now
    )


def rayprune(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run a command to its end, which must have this exit code; return stdout and stderr."""
    process = start(*arguments)
    out, err = process.communicate(timeout=500)
    assert process.returncode == code, err[-3000:]
    assert "Traceback" not in err
    return out, err
