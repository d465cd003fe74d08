"""Parts of training that are left to RLlib's own code in this process, each with the reason."""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger(__name__)

_KEPT: Final[dict[str, str]] = {}


def keep(part: str, reason: str) -> None:
    """Say once more that RLlib's own code does a part, in a debug line, and remember it.

    Args:
        part: in words.
        reason: in words, without a full stop.
    """
    logger.debug("RLlib's own %s is kept: %s.", part, reason)
    _KEPT[part] = reason


def kept_parts() -> dict[str, str]:
    """Return the reasons by part, those of whatever was trained since they were forgotten."""
    return dict(_KEPT)


def forget_kept_parts() -> None:
    """Begin anew: something else will be trained."""
    _KEPT.clear()
