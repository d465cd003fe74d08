"""Registrations for a while: tests hold the lists of names to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rayprune.pruning.registry import Registry


@contextmanager
def forgotten_registrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget at the end what was registered meanwhile."""
    added: list[tuple[Registry[object], str]] = []
    add = Registry.add

    def noted(registry: Registry[object], name: str, entry: object) -> None:
        add(registry, name, entry)
        added.append((registry, name))

    monkeypatch.setattr(Registry, "add", noted)
    yield
    for registry, name in added:
        del registry._entries[name]
