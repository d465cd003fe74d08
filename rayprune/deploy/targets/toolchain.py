"""Compilers and simulators of other machines: found, asked for their versions, and run."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from rayprune.errors import RunError

PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, and the Debian package that it is in."""

    command: str
    package: str

    @property
    def found(self) -> bool:
        """Whether it can be called."""
        return shutil.which(self.command) is not None


@dataclass(frozen=True, slots=True)
class Compiler(Tool):
    """A C compiler for one kind of machine."""

    library: str
    """A file of its C library that it must know."""
    library_package: str

    def missing(self) -> tuple[str, ...]:
        """Return the packages that compiling takes and that aren't here."""
        if not self.found:
            return (self.package, self.library_package)
        asked = [self.command, f"-print-file-name={self.library}"]
        return () if Path(run(asked).stdout.strip()).is_absolute() else (self.library_package,)

    def program(self, name: str) -> str:
        """Return one of its binary tools, such as ``size``."""
        return run([self.command, f"-print-prog-name={name}"]).stdout.strip()


def own_compiler(machine: str, triple: str, library_package: str) -> Compiler:
    """Return the C compiler for Linux on ``machine``: this machine's own where it is one.

    Args:
        machine: as `platform.machine` calls it.
        triple: what the names of a cross-compiler's programs begin with.
        library_package: what has its C library.
    """
    if platform.machine() == machine:
        return Compiler("gcc", "gcc", "libc.a", "libc6-dev")
    package = f"gcc-{triple.replace('_', '-')}"
    return Compiler(f"{triple}-gcc", package, "libc.a", library_package)


@cache
def version_of(command: str) -> str:
    """Return the first line of what a program says of its version."""
    lines = run([command, "--version"]).stdout.splitlines()
    return lines[0].strip() if lines else "unknown"


def run(
    command: Sequence[str | Path], *, within: Path | None = None, timeout_s: float = PATIENCE_S
) -> Run:
    """Run a program to its end, and return what it said.

    Args:
        command: the program and its arguments.
        within: the folder that it is run in, where what it leaves behind does no harm.
        timeout_s: after which it is ended.

    Raises:
        RunError: it took too long.
    """
    told = [*map(str, command)]
    try:
        done = subprocess.run(
            told,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout_s,
            cwd=within,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{Path(told[0]).name} was ended after {timeout_s:g} s.") from error
    return Run(tuple(told), done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Run:
    """A program that has ended."""

    command: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def why(self) -> str:
        """The line that tells best why it failed."""
        lines = [line for line in (self.stderr + self.stdout).splitlines() if line.strip()]
        # The compiler's driver only says that its linker failed.
        telling = ("error:", "sorry", "undefined reference", "overflow")
        errors = [
            line
            for line in lines
            if any(word in line for word in telling) and not line.startswith("collect2")
        ]
        return (errors or lines[::-1] or ["it gives no reason"])[0].strip().rstrip(".")

    def require(self, what: str) -> Run:
        """Return itself if it did what it should.

        Raises:
            RunError: says what failed, and why.
        """
        if self.code:
            name = Path(self.command[0]).name
            raise RunError(f"{what}: {name} ended with {self.code}: {self.why}.")
        return self
