"""Targets that another compiler builds for, and that a simulator runs.

A program is linked twice, with the policy and with an empty stand-in: what the two differ by, in
sections, stack and instructions, is the policy's, with all that it takes of the C library.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from rayprune.deploy.formats import metadata_of
from rayprune.deploy.policy.file_hash import require_whole
from rayprune.deploy.targets.base import Measurement, Target
from rayprune.deploy.targets.case import CASES, write_case
from rayprune.deploy.targets.toolchain import Compiler, Tool, run, version_of
from rayprune.errors import InputError, RunError

FIRMWARE: Final = Path(__file__).parent / "firmware"
_OPTIMISED: Final = "-O2"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a linked program takes in memory."""

    flash: int
    """Code, constants, and what variables begin with."""
    ram: int
    """Variables."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a program said of its calls."""

    stack: int
    instructions: tuple[float, ...]
    """Of each input, what the loop around the call takes included."""


class CrossTarget(Target):
    """A machine that isn't this one; options of a C compiler may follow its name."""

    formats = ("c",)
    reports = frozenset({"flash_bytes", "ram_bytes", "instructions", "self_test"})
    takes_options: ClassVar[bool] = True
    harness: ClassVar[str]
    """The program's own file in `FIRMWARE`."""

    compiler: Compiler
    simulators: tuple[Tool, ...]
    machine: tuple[str, ...] = ()
    """The compiler's options for the machine."""

    @property
    def options(self) -> tuple[str, ...]:
        """The compiler's options for the policy; what people add may replace the level."""
        own = () if any(one.startswith("-O") for one in self.given) else (_OPTIMISED,)
        return (*own, *self.given)

    def missing(self, kind: str | None = None) -> tuple[str, ...]:
        """See `Target.missing`."""
        del kind
        lacking = [tool.package for tool in self.simulators if not tool.found]
        return tuple(dict.fromkeys([*self.compiler.missing(), *lacking]))

    def _measured(self, artifact: Path) -> Measurement:
        require_whole(artifact)
        with tempfile.TemporaryDirectory(prefix="rayprune-target-") as place:
            return self._built(artifact, Path(place))

    def _built(self, artifact: Path, place: Path) -> Measurement:
        case, stub = write_case(metadata_of(artifact), place)
        policy = self.compile(artifact, place / "policy.o", *self.options)
        own = [
            self.compile(source, place / f"{source.stem}.o", _OPTIMISED, f"-I{FIRMWARE}")
            for source in (case, stub, *self.sources())
        ]
        kept = [own[0], *own[2:]]
        sizes = [self.sizes(self.link([*kept, other], place)) for other in (policy, own[1])]
        static = sizes[0].ram - sizes[1].ram
        notes = [f"Compiled with {' '.join(self.options)}.", *self.remarks]
        counts = self._counts([*kept, policy], [*kept, own[1]], sizes[0], place, notes)
        stack = 0 if counts is None else max(0, counts[0].stack - counts[1].stack)
        found = None if counts is None else _differences(*counts)
        if found is not None:
            notes.append(_spread(found))
        return Measurement(
            target=self.name,
            flash_bytes=sizes[0].flash - sizes[1].flash,
            ram_bytes=None if counts is None else static + stack,
            instructions=None if found is None else round(max(found)),
            self_test=self.passes(artifact, place, notes),
            tools=self._tools(),
            notes=tuple(notes),
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on how the figures are to be read."""
        return ()

    def sources(self) -> tuple[Path, ...]:
        """Return what the program is made of besides the policy and its case."""
        return (FIRMWARE / self.harness,)

    def compile(self, source: Path, out: Path, *options: str) -> Path:
        """Compile one file; return the object.

        Raises:
            InputError: the compiler refuses an option or the file.
        """
        # What isn't called isn't linked.
        parts = ("-ffunction-sections", "-fdata-sections", *self.machine, *options)
        done = run([self.compiler.command, *parts, "-c", source, "-o", out])
        if done.code:
            raise InputError(
                f"{self.compiler.command} can't compile {source.name!r} with "
                f"{' '.join(options)}: {done.why}."
            )
        return out

    def sizes(self, image: Path) -> Sizes:
        """Return the sizes of a linked program."""
        told = run([self.compiler.program("size"), "--format=berkeley", image])
        text, data, bss = map(int, told.require("Sizes").stdout.splitlines()[1].split()[:3])
        return Sizes(text + data, data + bss)

    @abstractmethod
    def link(self, objects: Sequence[Path], place: Path) -> Path:
        """Link a program whose size is looked at; return it."""

    @abstractmethod
    def count(
        self, objects: Sequence[Path], sizes: Sizes, place: Path, notes: list[str]
    ) -> Counts | None:
        """Run a program and return what it said; None, with a note, where it can't be run."""

    @abstractmethod
    def passes(self, artifact: Path, place: Path, notes: list[str]) -> bool | None:
        """Run a file's own test; None, with a note, where it can't be run."""

    def _counts(
        self,
        with_policy: Sequence[Path],
        without: Sequence[Path],
        sizes: Sizes,
        place: Path,
        notes: list[str],
    ) -> tuple[Counts, Counts] | None:
        found = self.count(with_policy, sizes, place, notes)
        empty = None if found is None else self.count(without, sizes, place, [])
        return None if found is None or empty is None else (found, empty)

    def _tools(self) -> dict[str, str]:
        commands = [self.compiler.command, *(tool.command for tool in self.simulators)]
        return {command: version_of(command) for command in commands}


def _differences(found: Counts, empty: Counts) -> list[float]:
    pairs = zip(found.instructions, empty.instructions, strict=True)
    return [one - nothing for one, nothing in pairs]


def _spread(found: Sequence[float]) -> str:
    return (
        f"Instructions are the most of {len(found)} observations like those that were recorded; "
        f"on average {sum(found) / len(found):,.0f}."
    )


def require_counts(counts: Counts, said: str) -> Counts:
    """Return counts of all inputs.

    Raises:
        RunError: some are missing.
    """
    if len(counts.instructions) != CASES:
        raise RunError(f"The counting program didn't end as it should; it said {said[-200:]!r}.")
    return counts
