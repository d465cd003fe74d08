"""Each link of each Markdown file leads somewhere, to the heading that it names."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from tools.docs.markdown import anchors, fences, links

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "cluster", "benchmarks", "rayprune")
FILES = [*ROOT.glob("*.md"), *(path for f in FOLDERS for path in (ROOT / f).rglob("*.md"))]


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    return [link for link in links(page.read_text(encoding="utf-8")) if not leads(page, link)]


def leads(page: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return link.startswith("https://")
    path, _, anchor = link.partition("#")
    target = Path(os.path.normpath(page.parent / path)) if path else page
    if anchor and target.suffix == ".md" and target.is_file():
        return anchor in headings(target)
    return target.is_file()


@functools.cache
def headings(page: Path) -> set[str]:
    return anchors(page.read_text(encoding="utf-8"))


def test_each_link_leads_to_a_file_and_to_a_heading_of_it() -> None:
    wrong = {page.relative_to(ROOT).as_posix(): found for page in FILES if (found := broken(page))}
    assert wrong == {}


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b\n[1](#a-b) [2](#b) [3](no.md) [4](page.md#a-b) [5](http://x.y)\n")
    assert broken(page) == ["#b", "no.md", "http://x.y"]


def test_a_fence_has_its_title_its_line_and_the_comment_before_it() -> None:
    text = 'x\n\n<!-- not run: needs a board -->\n\n```console title="a b"\n$ x\n```\n\n```c\n```\n'
    first, second = fences(text)
    assert (first.language, first.title, first.line, first.text) == ("console", "a b", 5, "$ x\n")
    assert first.note == "not run: needs a board"
    assert second.note is None


def test_every_page_is_in_the_sites_order() -> None:
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    one_by_one = [page for page in pages if not re.match(r"adr/\d", page)]  # the index has those
    assert sorted(set(one_by_one) - set(listed)) == []
    assert sorted(page for page in listed if not (ROOT / "docs" / page).is_file()) == [
        page for page in sorted(listed) if (ROOT / page).is_file() and page not in pages
    ]
