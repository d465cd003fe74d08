"""What holds for the doctests in the package as well as for the tests."""

from collections.abc import Iterator

import pytest

from rayprune.pruning.registry import Registry


@pytest.fixture(autouse=True)
def registered_for_one_doctest(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Forget what a doctest registers: other tests hold the lists of names to the letter."""
    added: list[tuple[Registry[object], str]] = []
    if isinstance(request.node, pytest.DoctestItem):
        add = Registry.add

        def noted(registry: Registry[object], name: str, entry: object) -> None:
            add(registry, name, entry)
            added.append((registry, name))

        monkeypatch.setattr(Registry, "add", noted)
    yield
    for registry, name in added:
        del registry._entries[name]
