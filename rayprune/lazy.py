"""Public names of a package that are fetched at first use: importing torch or Ray takes seconds."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Args:
        package: its ``__name__``.
        homes: public name -> the module in the package that defines it.

    >>> fetch, names = lazy_names("rayprune", {"did_you_mean": "errors"})
    >>> fetch("did_you_mean").__name__, "did_you_mean" in names()
    ('did_you_mean', True)
    >>> fetch("no_such_name")
    Traceback (most recent call last):
    AttributeError: module 'rayprune' has no attribute 'no_such_name'
    """

    def fetch(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with _no_collection():
            value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return fetch, names


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector back: modules are no garbage, and torch's objects are many.

    One full collection with torch loaded takes 75 ms, a quarter of our import.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
