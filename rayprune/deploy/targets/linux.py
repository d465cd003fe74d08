"""Targets ``x86-64`` and ``aarch64``: Linux on another processor, counted in QEMU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Final

from rayprune.deploy.targets.cross import FIRMWARE, Counts, CrossTarget, Sizes, require_counts
from rayprune.deploy.targets.toolchain import Compiler, Run, Tool, own_compiler, run
from rayprune.errors import RunError

_PLUGIN_COMPILER: Final = Tool("gcc", "gcc")
_INTERFACES: Final = (1, 2, 4)
"""Versions of QEMU's plugin interface: 7 and 8, 9, 10."""
_PROCESSORS: Final[Mapping[str, tuple[Compiler, Tool]]] = {
    "x86-64": (
        own_compiler("x86_64", "x86_64-linux-gnu", "libc6-dev-amd64-cross"),
        Tool("qemu-x86_64", "qemu-user"),
    ),
    "aarch64": (
        own_compiler("aarch64", "aarch64-linux-gnu", "libc6-dev-arm64-cross"),
        Tool("qemu-aarch64", "qemu-user"),
    ),
}


class LinuxTarget(CrossTarget):
    """Linux on a processor: sizes of a static program, instructions from QEMU."""

    line = "Linux, cross-compiled: sizes and, from QEMU, instructions"
    harness: ClassVar[str] = "count_linux.c"

    def __init__(self, name: str, options: Sequence[str] = ()) -> None:
        super().__init__(name, options)
        self.compiler, emulator = _PROCESSORS[self.core]
        self.simulators = (emulator, _PLUGIN_COMPILER)

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `CrossTarget.remarks`."""
        return ("Linked statically: what it takes of the C library counts.",)

    def link(self, objects: Sequence[Path], place: Path) -> Path:
        """See `CrossTarget.link`."""
        return self._linked(objects, place / "size")

    def count(
        self, objects: Sequence[Path], sizes: Sizes, place: Path, notes: list[str]
    ) -> Counts | None:
        """See `CrossTarget.count`."""
        del sizes, notes
        image = self._linked(objects, place / "count")
        done, marks = self._counted(image, self._address(image), place)
        stack = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("stack ")]
        if not stack or done.code:
            unknown = self.given and "Illegal instruction" in done.why
            hint = f" QEMU may not know what {' '.join(self.given)} allows." if unknown else ""
            raise RunError(f"Counting on {self.core}: {done.why}.{hint}")
        steps = tuple(float(b - a) for a, b in pairwise(marks))
        return require_counts(Counts(int(stack[0]), steps), done.stdout)

    def passes(self, artifact: Path, place: Path, notes: list[str]) -> bool | None:
        """See `CrossTarget.passes`."""
        test = self.compile(artifact, place / "test.o", *self.options, "-DPOLICY_SELFTEST")
        image = self._linked([test], place / "test")
        done = run([*self._emulator(), image], within=place)
        if done.code:
            notes.append(f"Its self-test fails on {self.core}: {done.why}.")
        return done.code == 0

    def compile(self, source: Path, out: Path, *options: str) -> Path:
        """See `CrossTarget.compile`."""
        # What is painted below the stack pointer isn't to be in use.
        own = ("-mno-red-zone",) if self.core == "x86-64" and source.parent == FIRMWARE else ()
        return super().compile(source, out, *options, *own)

    def _linked(self, objects: Sequence[Path], image: Path) -> Path:
        # At fixed addresses, so that `mark` is where its symbol says.
        parts = [self.compiler.command, *self.machine, "-static", "-no-pie", "-Wl,--gc-sections"]
        run([*parts, *objects, "-lm", "-o", image]).require(
            f"A program for {self.core} can't be linked"
        )
        return image

    def _emulator(self) -> list[str]:
        return [self.simulators[0].command, "-cpu", "max"]

    def _address(self, image: Path) -> int:
        names = run([self.compiler.program("nm"), image]).require("Names").stdout.splitlines()
        return int(next(line.split()[0] for line in names if line.endswith(" mark")), 16)

    def _counted(self, image: Path, mark: int, place: Path) -> tuple[Run, list[int]]:
        """Run a program under the counting plugin; return what was counted at each mark."""
        log, why = place / "count.log", ""
        for interface in _INTERFACES:
            plugin = _plugin(place, interface)
            counting = ["-plugin", f"{plugin},at={mark}", "-d", "plugin", "-D", str(log)]
            done = run([*self._emulator(), *counting, str(image)], within=place)
            if "plugin" not in done.stderr.lower():
                return done, [int(line) for line in log.read_text().split() if line.isdigit()]
            why = done.why
        raise RunError(f"{self.simulators[0].command} takes no plugin that counts: {why}.")


def _plugin(place: Path, interface: int) -> Path:
    library = place / f"count{interface}.so"
    source = FIRMWARE / "count_instructions.c"
    options = ["-O2", "-shared", "-fPIC", f"-DVERSION={interface}"]
    run([_PLUGIN_COMPILER.command, *options, str(source), "-o", str(library)]).require(
        "QEMU's plugin can't be built"
    )
    return library
