"""`rayprune` as a user starts it: a process of its own, or in this one where that is enough."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys

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


def rayprune(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run a command to its end, which must have this exit code; return stdout and stderr."""
    process = start(*arguments)
    out, err = process.communicate(timeout=500)
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
