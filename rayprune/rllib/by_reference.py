"""Whether a class can be found again by its name alone."""

from __future__ import annotations

import importlib


def importable(cls: type) -> bool:
    """Return whether a fresh process finds a class by its module and name.

    >>> importable(int), importable(type("Local", (), {"__module__": "__main__"}))
    (True, False)
    """
    if cls.__module__ == "__main__" or cls.__qualname__ != cls.__name__:
        return False
    try:
        return getattr(importlib.import_module(cls.__module__), cls.__name__, None) is cls
    except ImportError:
        return False
