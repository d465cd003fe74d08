"""Where a user's own modules are looked for: the working directory too, as `python -m` has it."""

from __future__ import annotations

import sys
from pathlib import Path


def search_here(*folders: str | Path) -> None:
    """Let modules of the working directory be imported, which a console script doesn't search.

    What is installed comes first.

    Args:
        folders: more of them, before it.
    """
    for folder in (*folders, Path.cwd()):
        place = str(Path(folder).resolve())
        if place not in sys.path and not ("" in sys.path and place == str(Path.cwd())):
            sys.path.append(place)
