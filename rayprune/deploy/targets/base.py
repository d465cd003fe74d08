"""`Target`: a kind of machine that a policy shall act on, and `Measurement`: what it takes there.

What a target can't tell is None: a simulator that counts instructions knows no time, and nothing
here is guessed from anything else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from rayprune.deploy.export.manifest import require_manifest
from rayprune.deploy.formats import format_named, format_of
from rayprune.errors import InputError

SCHEMA: Final = 1


class Latency(NamedTuple):
    """What one action takes, in microseconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one exported file takes on one target, for one action at a time."""

    target: str
    """As `rayprune.deploy.targets.target_of` takes it."""
    flash_bytes: int | None = None
    """What doesn't change: code and constants. Of the host the file."""
    ram_bytes: int | None = None
    """What an action needs beside it, the stack included."""
    instructions: int | None = None
    """Of one action."""
    latency_us: Latency | None = None
    """Of one action, measured by a clock."""
    energy_uj: float | None = None
    """Of one action, in microjoules."""
    self_test: bool | None = None
    """Whether the file's own test passed there."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """What it was measured with: name -> version."""
    notes: tuple[str, ...] = ()
    """Sentences: how the figures are to be read."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict, for JSON; ``latency_us`` is ``{"p50", "p99"}`` or None."""
        told = asdict(self)
        latency = self.latency_us
        told["latency_us"] = None if latency is None else latency._asdict()
        return {**told, "tools": {**self.tools}, "notes": [*self.notes]}


class Target(ABC):
    """Where a policy shall act.

    Args:
        name: as it was asked for.
        options: what followed its own name there: options of a compiler.
    """

    formats: tuple[str, ...] = ("c",)
    """Names of the formats whose files it takes, the best for it first."""
    reports: frozenset[str]
    """The fields of `Measurement` that it can fill here; others are None."""
    line: ClassVar[str]
    """What it is, for a list."""
    takes_options: ClassVar[bool] = False
    """Whether a compiler's options may follow its name."""

    def __init__(self, name: str, options: Sequence[str] = ()) -> None:
        self.name, self.given = name, tuple(options)
        self.core = name.split()[0]
        """Its key in the registry."""

    @property
    def format(self) -> str:
        """The format to export to for it."""
        return self.formats[0]

    @abstractmethod
    def missing(self, kind: str | None = None) -> tuple[str, ...]:
        """Return the Debian packages that measuring takes and that aren't here.

        Args:
            kind: the format of the file to be measured; None for the target's own.
        """

    def measure(self, artifact: Path) -> Measurement:
        """Return what an exported file takes here.

        Raises:
            InputError: there is no such file, it is of a format that the target doesn't take, it
                has changed since it was exported, or packages are missing.
            RunError: it doesn't run there as it should.
        """
        self.check(artifact)
        return self._measured(artifact)

    def check(self, artifact: Path) -> None:
        """Refuse what can't be measured, before any work is done.

        Raises:
            InputError: as `measure` does.
        """
        if artifact.is_dir():
            raise InputError(
                f"{str(artifact)!r} is a folder, and target {self.name!r} takes an exported file. "
                f"If it is a checkpoint: `rayprune export {artifact} --format {self.format} --out "
                f"policy{format_named(self.format).suffix}`, and give that."
            )
        if not artifact.is_file():
            raise InputError(
                f"There is no exported file {str(artifact)!r}. Make one with `rayprune export "
                f"CHECKPOINT --format {self.format}`."
            )
        kind = format_of(artifact).name
        if kind not in self.formats:
            raise InputError(
                f"Target {self.name!r} takes files of format {self._told()}, but "
                f"{artifact.name!r} is of format {kind!r}. Export the policy with `--format "
                f"{self.format}`."
            )
        require_manifest(artifact)
        packages = self.missing(kind)
        if packages:
            raise InputError(
                f"Target {self.name!r} needs {_and(packages)}: apt-get install "
                f"{' '.join(packages)} (Debian's names)."
            )

    def _told(self) -> str:
        return " or ".join(map(repr, self.formats))

    @abstractmethod
    def _measured(self, artifact: Path) -> Measurement:
        """Measure a file that `check` has let through."""


def _and(names: tuple[str, ...]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
