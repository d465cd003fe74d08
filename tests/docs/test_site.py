"""The site: what is staged has links that hold there, and what is built needs no network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_links import broken
from tools.docs.site import build, stage

ROOT = Path(__file__).parents[2]


def test_links_hold_where_pages_are_staged_and_what_they_lead_to_comes_along(
    tmp_path: Path,
) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "SECURITY.md"):
        (tmp_path / name).write_text("# A\n[home](docs/index.md)\n", encoding="utf-8")
    for name in ("cluster", "benchmarks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text("# B\n[next](more/c.md#d)\n", encoding="utf-8")
        (tmp_path / name / "more").mkdir()
        (tmp_path / name / "more" / "c.md").write_text("# D\n[f](../f.yaml)\n", encoding="utf-8")
        (tmp_path / name / "f.yaml").write_text("a: 1\n", encoding="utf-8")
    text = "# Home\n[a](../CONTRIBUTING.md#a) [b](../cluster/README.md) [x](https://x.y)\n"
    (tmp_path / "docs" / "index.md").write_text(text, encoding="utf-8")
    stage(tmp_path, tmp_path / "staged")
    pages = [*(tmp_path / "staged").rglob("*.md")]
    assert len(pages) == 8
    assert {page.name: broken(page) for page in pages if broken(page)} == {}
    assert (tmp_path / "staged" / "benchmarks" / "f.yaml").is_file()
    assert "(CONTRIBUTING.md#a)" in (tmp_path / "staged" / "index.md").read_text(encoding="utf-8")


def test_the_site_needs_none_of_the_developers_packages() -> None:
    code = (
        "import sys; sys.modules.update(griffe=None, ray=None, torch=None)\n"
        "import tools.docs.site; tools.docs.site.build = lambda root: 7\n"
        "from tools.docs.__main__ import main; sys.exit(main(['site']))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 7


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_the_network() -> None:
    pytest.importorskip("zensical", reason="needs Python 3.11")
    assert build(ROOT) == 0
    loaded = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"')
    pages = [*(ROOT / "build" / "site").rglob("*.html")]
    assert len(pages) > 80
    assert {
        url for page in pages for url in loaded.findall(page.read_text(encoding="utf-8"))
    } == set()
