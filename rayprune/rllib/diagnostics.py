"""Diagnostics may fail, and training goes on: who fails says so once, and is off from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Diagnostics:
    """Takes measurements that nothing depends on, each until it fails for the first time.

    >>> diagnostics = Diagnostics()
    >>> diagnostics.take("dead units", "default_policy", lambda: 3, otherwise=0)
    3
    """

    def __init__(self) -> None:
        self._off: set[tuple[str, str]] = set()

    def take(self, name: str, module_id: str, measure: Callable[[], T], otherwise: T) -> T:
        """Return a measurement, or `otherwise` where it fails now or has failed before.

        Args:
            name: of the diagnostic, as the warning says it.
            module_id: what is measured; one module's failure doesn't turn another's off.
            measure: reads only; it may raise anything.
            otherwise: stands for a measurement that there is none of.
        """
        if self.is_off(name, module_id):
            return otherwise
        try:
            return measure()
        # Whatever a user's module or environment may raise, or one that nobody foresaw.
        except Exception as error:
            self._off.add((name, module_id))
            logger.warning(
                "The diagnostic %r of %r failed, and is off from now on; all else goes on without "
                "it. Reason: %s: %s",
                name,
                module_id,
                type(error).__name__,
                str(error) or "no text",
            )
            return otherwise

    def is_off(self, name: str, module_id: str) -> bool:
        """Whether it has failed before."""
        return (name, module_id) in self._off
