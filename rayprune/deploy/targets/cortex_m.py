"""Targets ``cortex-m0`` to ``cortex-m7``: bare microcontrollers, counted in QEMU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from rayprune.deploy.examples import FOLDER
from rayprune.deploy.targets.cross import FIRMWARE, Counts, CrossTarget, Sizes, require_counts
from rayprune.deploy.targets.toolchain import Compiler, Tool, run
from rayprune.errors import RunError

START: Final = FOLDER / "cortex-m"
"""Start-up code and linker script: those of the example, so that what is measured is what ships."""
_COMPILER: Final = Compiler(
    "arm-none-eabi-gcc", "gcc-arm-none-eabi", "nano.specs", "libnewlib-arm-none-eabi"
)
_QEMU: Final = Tool("qemu-system-arm", "qemu-system-arm")
_KIB: Final = 1024
_SPACIOUS: Final = 256 * _KIB * _KIB
_AS_A_TEST: Final = ("-DPOLICY_SELFTEST", "-Dmain=policy_self_test")
_SLACK: Final = 4 * _KIB
"""Of RAM for the stack, and for what newlib allocates."""


@dataclass(frozen=True, slots=True)
class Board:
    """A machine that QEMU simulates."""

    machine: str
    flash: int
    ram: int
    remark: str = ""


_LARGE: Final = (4096 * _KIB, 4096 * _KIB)
_MICROBIT: Final = Board("microbit", 256 * _KIB, 16 * _KIB)
_INSTEAD: Final = Board(
    "mps2-an385",
    *_LARGE,
    "Too large for QEMU's board with a Cortex-M0 (256 KiB of flash, 16 KiB of RAM): it was run on "
    "a Cortex-M3, which knows the same instructions.",
)
_SOFT: Final = ("-mfloat-abi=soft",)
_CORES: Final[Mapping[str, tuple[tuple[str, ...], tuple[Board, ...]]]] = {
    "cortex-m0": (_SOFT, (_MICROBIT, _INSTEAD)),
    "cortex-m3": (_SOFT, (Board("mps2-an385", *_LARGE),)),
    "cortex-m4": (
        ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
        (Board("mps2-an386", *_LARGE),),
    ),
    "cortex-m7": (
        ("-mfloat-abi=hard", "-mfpu=fpv5-d16"),
        (Board("mps2-an500", *_LARGE),),
    ),
}


class CortexMTarget(CrossTarget):
    """A bare Cortex-M: sizes from the linked program, instructions and stack from QEMU."""

    line = "a microcontroller, cross-compiled: sizes and, from QEMU, instructions"
    harness: ClassVar[str] = "count_cortex_m.c"
    compiler, simulators = _COMPILER, (_QEMU,)

    def __init__(self, name: str, options: Sequence[str] = ()) -> None:
        super().__init__(name, options)
        floats, self.boards = _CORES[self.core]
        self.machine = ("-mthumb", f"-mcpu={self.core}", *floats)

    def sources(self) -> tuple[Path, ...]:
        """See `CrossTarget.sources`."""
        return (START / "start.c", *super().sources())

    @property
    def remarks(self) -> tuple[str, ...]:
        """See `CrossTarget.remarks`."""
        return ("Instructions are no cycles: a core takes one to several for each.",)

    def link(self, objects: Sequence[Path], place: Path) -> Path:
        """See `CrossTarget.link`; in memory that holds anything."""
        return self._linked(objects, place / "size.elf", _SPACIOUS, _SPACIOUS)

    def count(
        self, objects: Sequence[Path], sizes: Sizes, place: Path, notes: list[str]
    ) -> Counts | None:
        """See `CrossTarget.count`."""
        board = self._board(sizes, "it", notes)
        if board is None:
            return None
        image = self._linked(objects, place / "count.elf", board.flash, board.ram)
        said = self._simulated(image, board, "-icount", "shift=0,sleep=off")
        return _read(said)

    def passes(self, artifact: Path, place: Path, notes: list[str]) -> bool | None:
        """See `CrossTarget.passes`."""
        test = self.compile(artifact, place / "test.o", *self.options, *_AS_A_TEST)
        main = self.compile(FIRMWARE / "self_test.c", place / "main.o", "-Os")
        objects, semihosted = [place / "start.o", main, test], "--specs=rdimon.specs"
        image = self._linked(objects, place / "test.elf", _SPACIOUS, _SPACIOUS, semihosted)
        board = self._board(self.sizes(image), "its self-test", notes)
        if board is None:
            return None
        self._linked(objects, image, board.flash, board.ram, semihosted)
        done = run(self._command(image, board))
        if done.code:
            notes.append(f"Its self-test fails on {board.machine}: {done.why}.")
        return done.code == 0

    def _board(self, sizes: Sizes, what: str, notes: list[str]) -> Board | None:
        """Return the first board that a program fits; say so where that isn't the core's own."""
        fitting = [
            board
            for board in self.boards
            if sizes.flash <= board.flash and sizes.ram + _SLACK <= board.ram
        ]
        if not fitting:
            most = self.boards[-1]
            notes.append(
                f"{what.capitalize()} wasn't run: with {sizes.flash:,} bytes of flash and "
                f"{sizes.ram:,} of RAM it is too large for {most.machine} of QEMU."
            )
            return None
        if fitting[0].remark and fitting[0].remark not in notes:
            notes.append(fitting[0].remark)
        return fitting[0]

    def _linked(
        self,
        objects: Sequence[Path],
        image: Path,
        flash: int,
        ram: int,
        specs: str = "--specs=nano.specs",
    ) -> Path:
        sizes = [f"-Wl,--defsym=FLASH_BYTES={flash}", f"-Wl,--defsym=RAM_BYTES={ram}"]
        script = ["-nostartfiles", specs, "-Wl,--gc-sections", f"-T{START / 'link.ld'}", *sizes]
        command: list[str | Path] = [self.compiler.command, *self.machine, *script]
        command += [*objects, "-lm", "-o", image]
        run(command).require(f"A program for {self.core} can't be linked")
        return image

    def _command(self, image: Path, board: Board, *options: str) -> list[str | Path]:
        quiet = ["-display", "none", "-monitor", "none", "-serial", "none"]
        semihosting = ["-semihosting-config", "enable=on,target=native"]
        simulator = self.simulators[0].command
        return [simulator, "-M", board.machine, *quiet, *semihosting, *options, "-kernel", image]

    def _simulated(self, image: Path, board: Board, *options: str) -> str:
        done = run(self._command(image, board, *options))
        return done.require(f"Counting on {board.machine}").stdout + done.stderr


def _read(said: str) -> Counts:
    """Return what ``count_cortex_m.c`` printed, its ticks as instructions."""
    lines = [line.split() for line in said.splitlines() if line.strip()]
    told = {words[0]: [*map(int, words[1:])] for words in lines if words[0] in ("stack", "loop")}
    if not {"stack", "loop"} <= set(told):
        raise RunError(f"The counting program didn't begin as it should; it said {said[-200:]!r}.")
    looped, ticks = told["loop"]
    calls = [(int(n), int(taken)) for word, n, taken in filter(_is_call, lines) if word]
    found = tuple(taken * looped / (n * ticks) for n, taken in calls)
    return require_counts(Counts(told["stack"][0], found), said)


def _is_call(words: Sequence[str]) -> bool:
    return words[0] == "calls" and len(words) == 3
