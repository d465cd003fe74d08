"""What holds for the doctests in the package as well as for the tests."""

from collections.abc import Iterator

import pytest

from tests.doubles.registrations import forgotten_registrations


@pytest.fixture(autouse=True)
def registered_for_one_doctest(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Forget what a doctest registers: other tests hold the lists of names to the letter."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    with forgotten_registrations(monkeypatch):
        yield
