"""``python -m tools.docs``: write the reference pages anew, or build the site.

Run in the repository's root::

    python -m tools.docs reference   # docs/reference/*.md, from the code
    python -m tools.docs site        # build/site, which opens from disk
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(arguments: list[str]) -> int:
    """Do what the one argument names; return the exit code."""
    # Each by itself: the site needs the extra `docs` alone, the reference those of developers.
    if arguments == ["reference"]:
        from tools.docs.reference import PAGES

        for name, page in PAGES.items():
            path = ROOT / "docs" / "reference" / name
            path.write_text(page(), encoding="utf-8")
            sys.stderr.write(f"{path.relative_to(ROOT)}\n")
        return 0
    if arguments == ["site"]:
        from tools.docs.site import build

        return build(ROOT)
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
