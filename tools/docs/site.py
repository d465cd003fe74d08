"""The site: docs/ and what it links to, staged, built by Zensical, made to open from disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.docs.markdown import links

BESIDE: Final = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "SECURITY.md",
    "cluster/README.md",
    "benchmarks/README.md",
)
"""Pages that the site has too; what they and docs/ link to comes along as it is."""

SHIM: Final = "https://unpkg.com/iframe-worker/shim"
"""What the theme loads from the network where a page is opened from disk; ours takes its place."""
OUR_SHIM: Final = "assets/search-from-disk.js"


def build(root: Path) -> int:
    """Stage the pages in build/docs, build the site in build/site; return the exit code."""
    staged, site = root / "build" / "docs", root / "build" / "site"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(site, ignore_errors=True)
    stage(root, staged)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    code = subprocess.run(command, cwd=root, check=False).returncode
    if code == 0:
        open_from_disk(site)
        sys.stderr.write(f"Open {site / 'index.html'}\n")
    return code


def stage(root: Path, staged: Path) -> None:
    """Copy docs/ and what is linked from it, with links that hold there.

    Args:
        root: the repository's root.
        staged: a new folder; docs/ is its root, and all else lies in it by its own path.
    """
    for source in _sources(root):
        target = staged / _place(source.relative_to(root))
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(_moved(source, root), encoding="utf-8")
        else:
            shutil.copyfile(source, target)


def _sources(root: Path) -> Iterator[Path]:
    """Yield docs/ and the pages beside it, and all that any of them links to."""
    waiting = [path for path in sorted((root / "docs").rglob("*")) if path.is_file()]
    waiting += [root / name for name in BESIDE]
    seen = set(waiting)
    while waiting:
        page = waiting.pop(0)
        yield page
        found = [linked for linked in _linked(page, root) if linked not in seen]
        seen.update(found)
        waiting += found


def _linked(page: Path, root: Path) -> Iterator[Path]:
    """Yield the files of the repository that a page links to."""
    if page.suffix != ".md":
        return
    for link in links(page.read_text(encoding="utf-8")):
        path = Path(os.path.normpath(page.parent / link.partition("#")[0]))
        if "://" not in link and path.is_file() and path.is_relative_to(root):
            yield path


def _place(path: Path) -> Path:
    return path.relative_to("docs") if path.parts[0] == "docs" else path


def _moved(page: Path, root: Path) -> str:
    """Return a page's text, its links as they are where it is staged."""
    here = _place(page.relative_to(root)).parent

    def moved(found: re.Match[str]) -> str:
        path, mark, anchor = found.group(1).partition("#")
        target = Path(os.path.normpath(page.parent / path))
        if not path or "://" in path or not target.is_file() or not target.is_relative_to(root):
            return found.group(0)
        there = os.path.relpath(_place(target.relative_to(root)), here)
        return f"]({there}{mark}{anchor})"

    return re.sub(r"\]\(([^()\s]+)\)", moved, page.read_text(encoding="utf-8"))


def open_from_disk(site: Path) -> None:
    """Let pages that are opened from disk load nothing from the network, search included."""
    for page in site.rglob("*.html"):
        ours = os.path.relpath(site / OUR_SHIM, page.parent)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(SHIM, ours), encoding="utf-8")
