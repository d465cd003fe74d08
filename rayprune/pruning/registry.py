"""Open registries: names to functions or classes, read-only from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from rayprune.errors import ConfigError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to things of one kind that only grows.

    >>> shades = Registry("shade", {"red": 1})
    >>> shades.add("blue", 2)
    >>> sorted(shades), shades["blue"]
    (['blue', 'red'], 2)
    >>> shades.add("red", 3)
    Traceback (most recent call last):
    rayprune.errors.ConfigError: A shade named 'red' exists already. Choose another name.
    """

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self._kind = kind
        self._entries = dict(entries)

    def add(self, name: str, entry: T) -> None:
        """Add an entry; a name that is taken, or no name at all, is a `ConfigError`."""
        if not isinstance(name, str) or not name:
            raise ConfigError(f"The name of a {self._kind} must be a string, but is {name!r}.")
        if name in self._entries:
            raise ConfigError(f"A {self._kind} named {name!r} exists already. Choose another name.")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
