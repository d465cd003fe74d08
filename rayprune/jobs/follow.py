"""Follows a job to its end: what it writes, what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from rayprune.errors import RunError

PATIENCE_S: Final = 60.0
"""How long the head may be unreachable before it is given up."""
PAUSE_S: Final = 1.0


class Follower:
    """Follows one job's log over connections that may break."""

    def __init__(self, client: Any, job: str, write: Callable[[str], None]) -> None:
        """Begin at the log's first line.

        Args:
            client: Ray's JobSubmissionClient.
            job: its submission id.
            write: takes the next piece of the log.
        """
        self._client, self._job, self._write = client, job, write
        self._shown = 0

    def to_the_end(self) -> Any:
        """Write the log until the job has ended; return Ray's details of it.

        Raises:
            RunError: the head is gone.
        """
        lost_since: float | None = None
        while True:
            try:
                asyncio.run(self._tail())
                details = self._client.get_job_info(self._job)
                if details.status.is_terminal():
                    self._show_rest()
                    return details
                lost_since = None
            except Exception as error:  # requests', aiohttp's, and RuntimeErrors of Ray's
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > PATIENCE_S:
                    raise RunError(
                        f"The cluster has not answered for {PATIENCE_S:g} s "
                        f"({type(error).__name__}). If its head has died, job {self._job} went "
                        "with it: submit it again with --resume."
                    ) from error
            time.sleep(PAUSE_S)

    async def _tail(self) -> None:
        skip = self._shown
        async for piece in self._client.tail_job_logs(self._job):
            new, skip = piece[skip:], max(0, skip - len(piece))
            self._show(new)

    def _show_rest(self) -> None:
        """Show what was written between the last piece and the end."""
        self._show(self._client.get_job_logs(self._job)[self._shown :])

    def _show(self, text: str) -> None:
        self._shown += len(text)
        if text:
            self._write(text)
