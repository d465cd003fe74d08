"""The versions that a run was made with."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("rayprune", "ray", "torch", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a run's numbers."""
    found = {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    return {"python": platform.python_version(), **found}


@cache
def _version(name: str) -> str | None:
    """Return an installed package's version, looked up once: a sweep asks for every trial."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
