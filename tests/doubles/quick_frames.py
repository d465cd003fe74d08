"""RLlib's connectors without the slowest thing that they do under pytest.

Each connector that is made asks `inspect.stack()` for the frame that called it, and that reads the
source lines of all frames: 44 ms under pytest's deep stacks, half of the suite's time. Here only
that frame is looked up; what the connector finds in it is the same.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any, NamedTuple


class _Frame(NamedTuple):
    frame: FrameType


class _Inspect:
    """The module `inspect`, but for :meth:`stack`."""

    @staticmethod
    def stack() -> list[_Frame]:
        """Return the two frames from whom asks upwards."""
        return [_Frame(sys._getframe(1)), _Frame(sys._getframe(2))]

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)


def look_up_one_frame() -> None:
    """Have RLlib's connectors in this process do so, if any are imported."""
    connectors = sys.modules.get("ray.rllib.connectors.connector_v2")
    if connectors is not None:
        connectors.inspect = _Inspect()  # type: ignore[attr-defined]
