"""What a sweep tells a person while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rayprune.tracking.reporter import NullReporter, Reporter


class SweepReporter(Reporter, Protocol):
    """Told of a population's progress; `rayprune.cli.printing.population` shows it."""

    def population(self, trials: int, total_steps: int, headline: Mapping[str, str]) -> None:
        """The population starts, or goes on.

        Args:
            trials: how many members.
            total_steps: env steps at which one ends.
            headline: what to show above the table: label -> text.
        """

    def trial(self, trial: str, result: Mapping[str, Any]) -> None:
        """A member was measured: ``return``, ``sparsity``, ``env_steps`` and ``values``."""

    def exploit(self, event: Mapping[str, Any]) -> None:
        """A member became a clone: ``trial``, ``donor`` and ``changed``."""

    def failure(self, trial: str, error: str, final: bool) -> None:
        """A member failed: for good, or it is started again from its checkpoint."""


class NullSweepReporter(NullReporter):
    """Tells nobody."""

    def population(self, trials: int, total_steps: int, headline: Mapping[str, str]) -> None:
        """See `SweepReporter.population`."""

    def trial(self, trial: str, result: Mapping[str, Any]) -> None:
        """See `SweepReporter.trial`."""

    def exploit(self, event: Mapping[str, Any]) -> None:
        """See `SweepReporter.exploit`."""

    def failure(self, trial: str, error: str, final: bool) -> None:
        """See `SweepReporter.failure`."""
