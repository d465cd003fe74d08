"""The house's rules of size and place: files, classes and folders stay small, tests mirror."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / "rayprune", ROOT / "tests"

FILES_A_FOLDER, LINES_A_FILE, LINES_A_CLASS = 20, 450, 350

TOO_LONG_YET: dict[str, int] = {}
"""Files and classes that are still to be split, with the lines that they have: only to shrink."""

ELSEWHERE = {
    "cluster",  # the files of cluster/
    "configs",  # those of tune_configs/
    "docs",  # README, and what docs/ says
    "doubles",
    "golden",
    "system",  # the command line as a whole
}
"""Folders of tests that mirror no folder of the package."""


def sources(root: Path) -> list[Path]:
    return [path for path in root.rglob("*.py") if "__pycache__" not in path.parts]


def lengths() -> dict[str, int]:
    """Return the lines of each file, and of each class, of the package."""
    found = {}
    for path in sources(PACKAGE):
        name, text = path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
        found[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                found[f"{name}:{node.name}"] = (node.end_lineno or 0) - node.lineno + 1
    return found


def usual(name: str) -> int:
    return LINES_A_CLASS if ":" in name else LINES_A_FILE


def test_no_file_and_no_class_is_longer_than_one_can_hold_in_mind() -> None:
    found = lengths()
    assert {n: has for n, has in found.items() if has > TOO_LONG_YET.get(n, usual(n))} == {}


def test_what_has_become_short_is_taken_off_the_lists() -> None:
    found = lengths()
    assert [name for name in TOO_LONG_YET if found.get(name, 0) <= usual(name)] == []


@pytest.mark.parametrize("root", [PACKAGE, TESTS], ids=["rayprune", "tests"])
def test_no_folder_holds_more_files_than_one_can_look_over(root: Path) -> None:
    files = Counter(path.parent.relative_to(ROOT).as_posix() for path in sources(root))
    assert {folder: n for folder, n in files.items() if n > FILES_A_FOLDER} == {}


def test_each_test_lies_where_what_it_tests_lies_in_the_package() -> None:
    lost = []
    for path in TESTS.rglob("test_*.py"):
        folder = path.parent.relative_to(TESTS)
        mirrored = folder.relative_to("unit") if folder.parts[:1] == ("unit",) else folder
        if mirrored.parts[:1] and mirrored.parts[0] in ELSEWHERE:
            continue
        if not (PACKAGE / mirrored / "__init__.py").is_file():
            lost.append(path.relative_to(ROOT).as_posix())
    assert lost == []
