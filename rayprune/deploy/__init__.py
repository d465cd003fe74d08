"""Small and fast for real: what comes out of pruning, made to run without Ray. Pure torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayprune.lazy import lazy_names

if TYPE_CHECKING:
    from rayprune.deploy.compaction.compact import Compacted, compact
    from rayprune.deploy.compaction.proof import prove
    from rayprune.deploy.export.export import export_policy
    from rayprune.deploy.export.verify import verify
    from rayprune.deploy.formats import open_artifact, register_format

__all__ = [
    "Compacted",
    "compact",
    "export_policy",
    "open_artifact",
    "prove",
    "register_format",
    "verify",
]

# Fetched at first use: importing torch takes seconds, and whoever opens a file needs little of it.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Compacted": "compaction.compact",
        "compact": "compaction.compact",
        "export_policy": "export.export",
        "open_artifact": "formats",
        "prove": "compaction.proof",
        "register_format": "formats",
        "verify": "export.verify",
    },
)
