"""`Format`: all that is known of one kind of exported file, and what writing one takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from torch.export import ExportedProgram

from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.odd_inputs import Odd
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import InputError

LANES: Final = (4, 8, 16)
"""Floats in a vector register: 4 of SSE and NEON, 8 of AVX2, 16 of AVX-512."""
EXAMPLES: Final = 32
"""Recorded inputs that a file may hold, for a test of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What people may ask of a file besides its format; a format names those that it knows."""

    lanes: int | None = None
    """Floats in a vector register of the machine that the file is for, one of `LANES`."""
    int8: bool = False
    """int8 weights on top, once the file in float32 is proven; or whole numbers throughout."""
    forced: bool = False
    """int8 though it is slower."""
    name: str | None = None
    """What all that the file defines begins with."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What a file's own test is made of."""

    inputs: Sequence[Array]
    """Recorded, in the interface's order."""
    outputs: Sequence[Array]
    """Expected of them."""
    odd: Sequence[Odd] = ()
    """What has to give nothing but NaN, put into the first of the inputs."""


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What is to be written."""

    policy: DeployablePolicy
    """A plain copy, its dead units gone."""
    metadata: Metadata
    name: str
    """`ExportOptions.name`, or else the file's."""
    examples: Examples
    options: ExportOptions


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """What stands beside the file, and what the certificate says of it."""

    captured: ExportedProgram
    """The graph that was written."""
    certificate: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    """Texts by the end of their files' names, which are `Format.beside`."""
    testable: bool = True
    """Whether it can be run here."""


class Format(ABC):
    """A kind of exported file: writes it, opens it, and says which options it takes.

    Its module imports without the packages that writing or opening needs: those are imported when
    they are used.
    """

    name: ClassVar[str]
    """What `--format` calls it."""
    label: ClassVar[str]
    """What a sentence calls it."""
    suffix: ClassVar[str]
    """How its files' names end, such as ``.onnx``; no other format's do."""
    beside: ClassVar[tuple[str, ...]] = ()
    """How the names of the files end that belong to it, such as ``.h``."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Those of `ExportOptions` that it knows."""
    whole_numbers: ClassVar[bool] = False
    """Whether its int8 files compute in whole numbers alone, and are written of a policy that does;
    else they are made of the file in float32, by `quantise`."""
    unproven: ClassVar[str] = "It is UNPROVEN: it couldn't be run when it was exported."
    """What is said of a file that `ExportedFile.testable` denied."""

    def check(self, options: ExportOptions) -> None:  # noqa: B027  # most have none of their own
        """Refuse a value of an option that the format knows; `lanes` is one of `LANES` already.

        Raises:
            InputError: says why.
        """

    def check_policy(self, policy: DeployablePolicy) -> None:  # noqa: B027
        """Refuse a policy, a plain copy, that can be captured but not written in this format.

        Raises:
            InputError: says what is in the way.
        """

    @abstractmethod
    def write(self, job: ExportJob, path: Path) -> ExportedFile:
        """Write a policy's file, with `rayprune.deploy.policy.file_hash.BLANK` for its hash.

        Raises:
            InputError: the policy can't be written so, or a package is missing.
        """

    @abstractmethod
    def open(self, path: Path, threads: int = 1) -> Artifact:
        """Open a file as a policy that acts.

        Args:
            path: what `write` wrote, sealed.
            threads: how many it computes with, where the runtime has no setting of its own; 0 for
                one a core.

        Raises:
            InputError: it is none, or what it needs to run is missing.
        """

    @abstractmethod
    def metadata_text(self, path: Path) -> str | None:
        """Return the JSON that a file holds of itself, None if there is none; run nothing.

        Raises:
            InputError: a package that reads it is missing.
        """

    def quantise(self, path: Path, small: Path, recorded: Sequence[Array]) -> str:
        """Write a file's int8 form to ``small``; return how it was quantised.

        Args:
            path: proven in float32.
            small: the new file.
            recorded: the file's inputs as they were met.
        """
        raise InputError(f"A file of format {self.name!r} has no int8 form.")

    def runtime(self, metadata: Metadata) -> Mapping[str, Any]:
        """Return what a manifest says of running a file; JSON only.

        Args:
            metadata: of the file.
        """
        del metadata
        return {}

    def load_runtime(self) -> None:  # noqa: B027
        """Import what runs a file, so that its memory isn't taken for the policy's."""
