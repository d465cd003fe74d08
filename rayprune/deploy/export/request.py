"""`ExportRequest`: a policy's file as it is asked for, wherever the policy comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayprune.deploy.export.export import check_export, write_policy
from rayprune.deploy.formats.base import ExportOptions, Format
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.policy import DeployablePolicy


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A file that a policy is to be exported to."""

    out: Path
    """The file."""
    format: str
    """A key of `rayprune.deploy.formats.FORMATS`."""
    sample: bool = False
    """Whether it draws actions with noise that it is given; else it acts greedily."""
    compacted: bool = True
    """Whether dead units are removed first, exactly."""
    lanes: int | None = None
    """As `export_policy` takes it."""
    quantised: bool = False
    """Likewise."""
    forced: bool = False
    """Likewise."""
    name: str | None = None
    """Likewise."""
    episodes: int | None = None
    """How many are recorded; None for as many as the policy is evaluated with."""
    overwrite: bool = False
    """Whether files that are there are replaced."""

    @property
    def options(self) -> ExportOptions:
        """What the format is asked for."""
        return ExportOptions(
            lanes=self.lanes, int8=self.quantised, forced=self.forced, name=self.name
        )

    def check(self) -> Format:
        """Return the format; refuse place and options before any work is done.

        Raises:
            InputError: see `check_export`.
        """
        return check_export(self.out, self.format, self.options, overwrite=self.overwrite)

    def rounds(self, chosen: Format) -> bool:
        """Whether the file will hold whole numbers: it is made of no `plain_copy` then."""
        return chosen.whole_numbers and self.quantised

    def write(
        self,
        policy: DeployablePolicy,
        chosen: Format,
        recorded: list[Array],
        about: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write the file, proven; return its certificate, with where the policy lies.

        Args:
            policy: a `plain_copy` unless the file `rounds`.
            chosen: what `check` returned.
            recorded: the policy's inputs as they were met.
            about: what the file says of its source; its ``checkpoint`` among it.

        Raises:
            InputError: the policy can't be exported so.
            InvariantError: the file doesn't compute what the policy does. Nothing was written.
        """
        certificate = write_policy(
            policy,
            self.out,
            chosen,
            self.options,
            recorded=recorded,
            about=about,
            compacted=self.compacted,
        )
        return {"out": str(self.out), "checkpoint": about["checkpoint"], **certificate}
