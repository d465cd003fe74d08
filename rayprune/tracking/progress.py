"""What a training loop tells a person while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Told of a run's progress; `rayprune.cli.progress` shows it on a terminal."""

    def start(self, name: str, total_steps: int | None, done_steps: int) -> None:
        """A run starts, or goes on.

        Args:
            name: the run's name; the dense twin's run has its own.
            total_steps: env steps (updates, offline) at which it ends, None when that isn't known.
            done_steps: those already done by a run that is resumed.
        """

    def iteration(self, row: Mapping[str, object]) -> None:
        """An iteration ended.

        Args:
            row: ``env_steps``, ``return_mean`` (None or NaN before the first episode has ended),
                ``sparsity``, ``target_sparsity`` and ``time_s``; more keys do no harm.
        """

    def evaluation(self, row: Mapping[str, object]) -> None:
        """The policy was measured: ``env_steps``, ``mean``, ``iqm`` and ``episodes``."""

    def message(self, text: str) -> None:
        """One sentence for the person who watches."""

    def close(self) -> None:
        """The run has ended, well or not; may be called twice."""


class NullReporter:
    """Tells nobody."""

    def start(self, name: str, total_steps: int | None, done_steps: int) -> None:
        """See `Reporter.start`."""

    def iteration(self, row: Mapping[str, object]) -> None:
        """See `Reporter.iteration`."""

    def evaluation(self, row: Mapping[str, object]) -> None:
        """See `Reporter.evaluation`."""

    def message(self, text: str) -> None:
        """See `Reporter.message`."""

    def close(self) -> None:
        """See `Reporter.close`."""
