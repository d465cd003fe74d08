"""Exported policies behind HTTP and Python handles: many a replica, on Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayprune.lazy import lazy_names

if TYPE_CHECKING:
    from rayprune.serve.deployment import PolicyDeployment
    from rayprune.serve.request_error import RequestError

__all__ = ["PolicyDeployment", "RequestError"]

# Fetched at first use: importing Ray Serve takes seconds.
__getattr__, __dir__ = lazy_names(
    __name__, {"PolicyDeployment": "deployment", "RequestError": "request_error"}
)
