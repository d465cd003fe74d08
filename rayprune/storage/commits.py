"""Changes to a tree of objects that happen as a whole, whenever their writer is killed.

An object store replaces one object at a time. So the changes of a commit are laid down beside the
tree first, then named by one object, which is the moment that commits them, and only then moved
into place; whoever finds that object moves the rest (a redo log)::

    .rayprune-pending/files/checkpoints/000000400/...    what changes
    .rayprune-pending/commit.json                        {"changed": [...], "gone": [...]}

Between two commits the tree holds what a local directory would, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from rayprune.storage.urls import OBJECT_STORES

PENDING: Final = ".rayprune-pending"
STAGED: Final = f"{PENDING}/files"
COMMIT: Final = f"{PENDING}/commit.json"
_AT_ONCE: Final = 8
"""Requests; each is mostly waiting."""

_T = TypeVar("_T")


class Commits:
    """One writer's commits to a tree.

    Args:
        files: pyarrow's file system, with the tree's directory as its root.
    """

    def __init__(self, files: Any) -> None:
        self._files = files
        self._unfinished = True

    def recover(self) -> None:
        """Finish a commit that was cut short after it had been named; forget one before.

        Raises:
            OSError: the store fails.
        """
        held = read_commit(self._files)
        if held is not None:
            self._move(held)
        _delete(self._files, f"{PENDING}/")
        self._unfinished = False

    def commit(self, changed: Mapping[str, Path], gone: Collection[str]) -> None:
        """Change the tree as a whole.

        Args:
            changed: path in the tree -> local file that is to be there.
            gone: paths that are to be there no longer; one that ends in a slash is a directory with
                all that is in it.

        Raises:
            OSError: the store fails; the commit has happened or not, and the next one, or
                `recover`, finds out.
        """
        if self._unfinished:
            self.recover()
        self._unfinished = True
        _make_directories(self._files, [f"{STAGED}/{path}" for path in changed])
        there = side_by_side(lambda path: self._stage(changed[path], path), sorted(changed))
        staged = [path for path, is_there in zip(sorted(changed), there, strict=True) if is_there]
        held = {"changed": staged, "gone": sorted(gone)}
        _make_directories(self._files, [COMMIT])
        with self._files.open_output_stream(COMMIT) as stream:
            stream.write(json.dumps(held).encode())
        self._move(held)
        _delete(self._files, f"{PENDING}/")
        self._unfinished = False

    def _move(self, held: Mapping[str, list[str]]) -> None:
        _make_directories(self._files, held["changed"])
        side_by_side(lambda path: self._files.copy_file(f"{STAGED}/{path}", path), held["changed"])
        side_by_side(lambda path: _delete(self._files, path), held["gone"])
        # From here on what is staged means nothing.
        _delete(self._files, COMMIT)

    def _stage(self, source: Path, path: str) -> bool:
        """Upload a file; return whether it was still there: trackers tidy up as they like."""
        from pyarrow import fs

        here = fs.LocalFileSystem()
        if here.get_file_info(str(source)).type != fs.FileType.File:
            return False
        fs.copy_files(
            str(source),
            f"{STAGED}/{path}",
            source_filesystem=here,
            destination_filesystem=self._files,
        )
        return True


def read_commit(files: Any) -> dict[str, list[str]] | None:
    """Return what a commit that has happened changes, None where none waits to be finished."""
    try:
        with files.open_input_stream(COMMIT) as stream:
            held: dict[str, list[str]] = json.loads(stream.read())
    except FileNotFoundError:
        return None
    except ValueError:
        # A store that doesn't write an object at once was cut short before it had committed.
        return None
    return held


def committed_files(files: Any) -> dict[str, Any]:
    """Return path in the tree -> pyarrow's FileInfo of what to read, as of the last commit.

    Raises:
        OSError: the store fails, or has no such bucket.
    """
    from pyarrow import fs

    try:
        # Where a missing directory is allowed, so is a missing bucket.
        found = files.get_file_info(fs.FileSelector("", recursive=True))
    except FileNotFoundError:
        return {}
    there = {info.path: info for info in found if info.type == fs.FileType.File}
    tree = {path: info for path, info in there.items() if not path.startswith(f"{PENDING}/")}
    held = read_commit(files) if COMMIT in there else None
    if held is not None:
        tree.update({path: there[f"{STAGED}/{path}"] for path in held["changed"]})
        for path in held["gone"]:
            tree = {kept: at for kept, at in tree.items() if not _is_in(kept, path)}
    return tree


def side_by_side(action: Callable[[str], _T], paths: Iterable[str]) -> list[_T]:
    """Do something to each path, several at once; the first failure is raised when all are done."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(action, list(paths)))


def _make_directories(files: Any, paths: Iterable[str]) -> None:
    """Object stores have none, and pyarrow would write an empty object for each."""
    if files.base_fs.type_name in OBJECT_STORES:
        return
    for parent in sorted({str(PurePosixPath(path).parent) for path in paths}):
        files.create_dir(parent, recursive=True)


def _is_in(path: str, gone: str) -> bool:
    return path.startswith(gone) if gone.endswith("/") else path == gone


def _delete(files: Any, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # whoever was cut short may have done it
        if path.endswith("/"):
            files.delete_dir(path.rstrip("/"))
        else:
            files.delete_file(path)
