"""A local directory whose contents are committed to a place in an object store."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from rayprune.storage.commits import Commits, committed_files, side_by_side
from rayprune.storage.urls import Place

_TEMPORARY: Final = re.compile(r"(^|/)\.(.*\.tmp|probe\.\d+|rayprune\.lock)(/|$)")
"""What is being written, or was when its writer was killed; and a lock, which is of one host."""


class _Mark(NamedTuple):
    """By what a file is known to have changed."""

    changed: int
    size: int
    inode: int


class Mirror:
    """Keeps a place in step with a local directory, commit by commit.

    Args:
        home: the local directory, empty.
        place: where it is kept.
        apart: names in it that are somebody else's, to be neither fetched nor changed.
    """

    def __init__(self, home: Path, place: Place, apart: Collection[str] = ()) -> None:
        self.home, self.place = home, place
        self._apart = frozenset(apart)
        self._commits = Commits(place.files)
        self._kept: dict[str, _Mark] = {}

    def fetch(self) -> None:
        """Bring down all that is there, as of the last commit; what was cut short is mended.

        Raises:
            OSError: the store fails, or the disk.
        """
        self._commits.recover()
        tree = {
            path: info.path
            for path, info in committed_files(self.place.files).items()
            if path.split("/")[0] not in self._apart
        }
        download(self.place, tree, self.home)
        self._kept = self._local()

    def commit(self) -> None:
        """Make the place hold what the directory holds now.

        Raises:
            OSError: the store fails; nothing is lost, the next commit does it all.
        """
        now = self._local()
        changed = [path for path, mark in now.items() if self._kept.get(path) != mark]
        gone = whole_directories(self._kept.keys() - now.keys(), left=now.keys())
        if changed or gone:
            self._commits.commit({path: self.home / path for path in changed}, gone)
        self._kept = now

    def _local(self) -> dict[str, _Mark]:
        found: dict[str, _Mark] = {}
        for directory, directories, names in os.walk(self.home):
            if Path(directory) == self.home:
                directories[:] = [name for name in directories if name not in self._apart]
            for name in names:
                path = Path(directory, name)
                relative = path.relative_to(self.home).as_posix()
                # W&B links to files of its own, some of them outside.
                if path.is_symlink() or _TEMPORARY.search(relative):
                    continue
                status = path.stat()
                found[relative] = _Mark(status.st_mtime_ns, status.st_size, status.st_ino)
        return found


def whole_directories(gone: Collection[str], left: Collection[str]) -> list[str]:
    """Return what is gone, with a directory in place of its files where none of them is left.

    An object store deletes a thousand at once, and keeps an empty object for a directory whose last
    file is deleted alone.

    >>> whole_directories(["a/1/x", "a/1/y", "a/2/x"], left=["a/2/z"])
    ['a/1/', 'a/2/x']
    """
    alive = {parent for path in left for parent in PurePosixPath(path).parents}
    shorter = set()
    for path in gone:
        outermost = (p for p in reversed(PurePosixPath(path).parents) if p not in alive)
        above = next((p for p in outermost if str(p) != "."), None)
        shorter.add(path if above is None else f"{above}/")
    return sorted(shorter)


def download(place: Place, tree: dict[str, str], target: Path) -> None:
    """Fetch files.

    Args:
        place: where from.
        tree: path below ``target`` -> path in the place.
        target: a local directory.

    Raises:
        FileNotFoundError: one is there no longer; its writer goes on.
        OSError: the store fails, or the disk.
    """

    def fetch(path: str) -> None:
        to = target / path
        to.parent.mkdir(parents=True, exist_ok=True)
        with place.files.open_input_stream(tree[path]) as source, to.open("wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)

    side_by_side(fetch, tree)
