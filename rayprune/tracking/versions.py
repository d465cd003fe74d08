"""The versions that a run was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("rayprune", "ray", "torch", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a run's numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
