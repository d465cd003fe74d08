"""Commands of rayprune in this checkout, as a script runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rayprune.errors import RaypruneError

ROOT: Final = Path(__file__).resolve().parents[1]


class CommandError(RaypruneError):
    """A command of rayprune failed; says which, and what it told."""


def json_of(arguments: Sequence[str], accepts: Sequence[int] = (0,)) -> dict[str, Any]:
    """Run a command with ``--json`` on one thread; return the object that it prints.

    Args:
        arguments: what stands behind ``rayprune``.
        accepts: exit codes that are answers: 1 of `certify` is a verdict.

    Raises:
        CommandError: its exit code is another.
    """
    command = [sys.executable, "-m", "rayprune", *arguments, "--json"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if answer.returncode not in accepts:
        raise CommandError(f"{' '.join(command)} failed:\n{answer.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found
