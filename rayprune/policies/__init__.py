"""Policies that others trained: Stable-Baselines3 zips and plain torch modules, exported alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayprune.lazy import lazy_names

if TYPE_CHECKING:
    from rayprune.policies.adapt import policy_of
    from rayprune.policies.foreign_policy import open_policy
    from rayprune.policies.sb3.zip_file import load_sb3

__all__ = ["load_sb3", "open_policy", "policy_of"]

# Fetched at first use: importing torch takes seconds, and Stable-Baselines3 may be missing.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "load_sb3": "sb3.zip_file",
        "open_policy": "foreign_policy",
        "policy_of": "adapt",
    },
)
