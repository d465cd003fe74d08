"""The reference pages in docs/reference/ are what the code says today."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from tools.docs.configuration import MEANINGS
from tools.docs.reference import PAGES
from tools.docs.refusals import refusals

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    held = (REFERENCE / name).read_text(encoding="utf-8")
    now = PAGES[name]()
    changed = [*difflib.unified_diff(held.splitlines(), now.splitlines(), lineterm="", n=0)][:20]
    assert held == now, "Run `make reference`.\n" + "\n".join(changed)


def test_each_meaning_is_of_a_key_that_exists() -> None:
    page = (REFERENCE / "configuration.md").read_text(encoding="utf-8")
    assert [key for key, meaning in MEANINGS.items() if f"| {meaning} |" not in page] == []


def test_what_is_refused_is_told_without_the_value_and_once() -> None:
    def faults(value: object) -> list[str]:
        return [f"`a.b` must be a number, but is {value!r}.", "`a.c` must be text, but is 1."]

    assert refusals("a.b", faults) == "is a number"
