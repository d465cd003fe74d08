"""`Check`: one thing that a run may need, as it is found here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Status = Literal["ok", "absent", "doubtful", "broken"]
OK: Final[Status] = "ok"
ABSENT: Final[Status] = "absent"
"""Not here, and not needed by a default run."""
DOUBTFUL: Final[Status] = "doubtful"
"""Works, but may fail or disappoint."""
BROKEN: Final[Status] = "broken"
"""A default run fails by it."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and the way out where there is something to do."""

    part: str
    name: str
    status: Status
    found: str
    way_out: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the plain dict, for JSON."""
        return {
            "part": self.part,
            "name": self.name,
            "status": self.status,
            "found": self.found,
            "way_out": self.way_out,
        }
