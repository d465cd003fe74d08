"""The pages of the documentation, and how their blocks are run: in their order, in one folder.

What a reader types is what runs. A block with ``title="FILE"`` is written to that file; ``python``
runs, all of a page's in one namespace; of ``console`` the lines after ``$`` run in bash, and a
command that ends in ``&`` lives until the page has ended. Anything else is only shown.
``<!-- not run: why -->`` right before a block spares it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.docs.markdown import Fence, fences

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "start").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]


def blocks(page: Path) -> list[Fence]:
    return fences(page.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def spared(block: Fence) -> bool:
    return (block.note or "").startswith("not run: ")


def commands(block: Fence) -> list[str]:
    """Return what is typed in a ``console`` block; a line that ends in a backslash goes on."""
    lines, going_on = [], False
    for line in block.text.splitlines():
        if going_on:
            lines[-1] += f"\n{line.removeprefix('> ')}"
        elif line.startswith("$ "):
            lines.append(line[2:])
        going_on = (going_on or line.startswith("$ ")) and line.endswith("\\")
    return lines


class Reader:
    """Somebody who does what a page says, in a folder of his own."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.waiting: list[subprocess.Popen[bytes]] = []
        (folder / "bin").mkdir()
        programs = {
            # As pip installs it: the working directory is not on its path, which `-m` would have.
            "rayprune": f"#!{sys.executable}\nfrom rayprune.cli import main\n\nmain()\n",
            "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        }
        for name, text in programs.items():
            program = folder / "bin" / name
            program.write_text(text, encoding="utf-8")
            program.chmod(0o755)

    def read(self) -> int:
        """Do all of it; return how many blocks were run.

        Raises:
            AssertionError: a command failed. Python's own errors go through.
        """
        done = 0
        try:
            for block in blocks(self.page):
                if block.title is not None:
                    path = self.folder / block.title
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.text, encoding="utf-8")
                elif not spared(block):
                    self.run(block)
                    done += 1
            return done
        finally:
            for process in self.waiting:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)  # which no parent makes us ignore
            for process in self.waiting:
                process.wait(60)

    def run(self, block: Fence) -> None:
        if block.language == "python":
            source = "\n" * block.line + block.text  # so that a traceback names the page's lines
            exec(compile(source, name_of(self.page), "exec"), self.namespace)
        elif block.language == "console":
            for command in commands(block):
                self.type(command, block.line)

    def type(self, command: str, line: int) -> None:
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path}
        text = re.sub(r"\s+&\s*$", "", command)
        bash = ["bash", "-ec", text]
        if text != command:
            self.waiting.append(
                subprocess.Popen(bash, cwd=self.folder, env=environment, start_new_session=True)
            )
            return
        done = subprocess.run(
            bash, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        sys.stderr.write(f"{name_of(self.page)}:{line}: $ {command}\n{done.stdout}\n")
        assert done.returncode == 0, (
            f"{name_of(self.page)}:{line}: $ {command}\n{done.stderr[-3000:]}"
        )


if __name__ == "__main__":
    os.chdir(sys.argv[2])
    sys.path.insert(0, "")  # as `python FILE` has it: a page's own modules are imported
    Reader(Path(sys.argv[1]), Path(sys.argv[2])).read()
