"""Public names of a package that are fetched at first use: importing torch or Ray takes seconds."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType


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
            value = getattr(_imported(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return fetch, names


def _imported(module: str) -> ModuleType:
    """Import a module of ours; what it lacks is told with the line that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        from rayprune.extras import extra_for, pip_line

        extra = extra_for(error)
        if extra is None:
            raise
        told = f"{error}: {pip_line(extra)} brings it"
        raise ModuleNotFoundError(told, name=error.name) from error


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
