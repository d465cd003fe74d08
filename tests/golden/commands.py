"""Many command lines in one process of their own: ``python -m tests.golden.commands``.

Reads a JSON list of lists of arguments from standard input; writes a JSON list of
``{"code", "out", "err"}``. Importing torch and Ray once is most of what a command costs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run_all(lines: Sequence[Sequence[str]], folder: Path) -> list[dict[str, Any]]:
    """Run command lines one after another, in a folder; return what each said."""
    fixed = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    barred = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "LINES")
    kept = {key: value for key, value in os.environ.items() if key not in barred}
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden.commands"],
        input=json.dumps([list(line) for line in lines]),
        env={**kept, **fixed, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    for answer in said:
        for stream in ("out", "err"):
            lines_of = ANSI.sub("", answer[stream]).replace(str(folder), "<folder>").splitlines()
            text = "\n".join(line.rstrip() for line in lines_of)
            answer[stream] = text.replace(str(ROOT), "<root>")
    return said


def _run(arguments: list[str]) -> dict[str, Any]:
    from rayprune.cli import main

    sys.argv = ["rayprune", *arguments]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code: Any = 0
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        sys.stderr.flush()
        for stream in (out, err):
            stream.seek(0)
        return {"code": code or 0, "out": out.read(), "err": err.read()}


def _main() -> None:
    kept, errors = os.dup(1), os.dup(2)
    said = [_run(arguments) for arguments in json.load(sys.stdin)]
    os.dup2(errors, 2)
    with os.fdopen(kept, "w") as stdout:
        stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    _main()
