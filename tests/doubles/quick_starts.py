"""Hundreds of tests start a training; here is what they need not pay for each time.

Each connector that RLlib makes asks `inspect.stack()` for the frame that called it, and that reads
the source lines of all frames: 44 ms under pytest's deep stacks, half of the suite's time. Here
only that frame is looked up; what the connector finds in it is the same.

Each run and sweep asks when it starts whether what it trains can be exported, and for that traces
the policy. Here a policy of the same kind is asked about once a process.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
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


_ASK = ("rayprune.rllib.training.train", "rayprune.search.sweep")
_DECIDES = re.compile("env|model|module|space|connector|action|observation|algo|atoms|dueling")
"""Settings that say what a policy is, from observation to action; not how it is trained."""


def ask_about_exports_once() -> None:
    """Have runs and sweeps in this process do so, as far as they are imported."""
    askers = [sys.modules[name] for name in _ASK if name in sys.modules]
    if askers:
        shared = _once(askers[0].export_limits)
        for asker in askers:
            asker.export_limits = shared  # type: ignore[attr-defined]


def _once(export_limits: Callable[[Any], list[str]]) -> Callable[[Any], list[str]]:
    # With the configs, whose objects the keys name by their addresses.
    told: dict[str, tuple[Any, list[str]]] = {}

    def shared(config: Any) -> list[str]:
        settings = {k: v for k, v in config.to_dict().items() if _DECIDES.search(k)}
        key = f"{type(config)} {settings}"
        if key not in told:
            told[key] = (config, export_limits(config))
        return list(told[key][1])

    return shared
