"""docs/map.md has every folder of the package as it says of itself, and no dead path."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")


def first_line(folder: Path) -> str:
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    return (said or "").splitlines()[0]


def test_the_map_has_each_folder_of_the_package_and_no_other() -> None:
    folders = [path.parent for path in (ROOT / "rayprune").rglob("__init__.py")]
    lines = [f"- `{x.relative_to(ROOT).as_posix()}/`: {first_line(x)}" for x in folders]
    assert sorted(re.findall(r"^- `rayprune/.*$", MAP, re.M)) == sorted(lines)


def test_each_path_on_the_map_exists() -> None:
    paths = re.findall(r"`(rayprune/[^`]*)`", MAP)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
