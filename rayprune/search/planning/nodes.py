"""Nodes of a cluster that isn't there, as a plan's ``--nodes`` describes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rayprune.errors import ConfigError

_FORM: Final = re.compile(r"(?P<count>\d+)x(?P<cpus>\d+(\.\d+)?)(\+(?P<gpus>\d+(\.\d+)?))?")
MOST: Final = 10_000
"""Nodes; counting more takes long and tells nothing."""


def parse_nodes(texts: Sequence[str]) -> list[dict[str, float]]:
    """Return what each node has; each text describes some that are equal.

    >>> parse_nodes(["1x4", "2x16+0.5"])
    [{'CPU': 4.0}, {'CPU': 16.0, 'GPU': 0.5}, {'CPU': 16.0, 'GPU': 0.5}]

    Args:
        texts: ``COUNTxCPUS`` or ``COUNTxCPUS+GPUS``, CPUs and GPUs of one node.

    Raises:
        ConfigError: with every text that isn't of that form.
    """
    faults, nodes = [], list[dict[str, float]]()
    for text in texts:
        found = _FORM.fullmatch(text.strip())
        if found is None or not 1 <= int(found["count"]) <= MOST:
            faults.append(
                f"`--nodes` must be COUNTxCPUS or COUNTxCPUS+GPUS, with 1 to {MOST} nodes, such as "
                f"100x16 or 4x16+1, but is {text!r}."
            )
            continue
        node = {"CPU": float(found["cpus"])}
        if float(found["gpus"] or 0):
            node["GPU"] = float(found["gpus"])
        nodes += [dict(node) for _ in range(int(found["count"]))]
    if faults:
        raise ConfigError(faults)
    return nodes
