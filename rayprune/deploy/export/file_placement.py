"""Putting files where they belong, all of them or none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rayprune.errors import StorageError


def require_writable(folder: Path, name: str) -> None:
    """Refuse a folder that no file can be made in, before any work is done.

    Raises:
        StorageError: says why.
    """
    if not folder.is_dir():
        what = "is a file, no folder" if folder.exists() else "isn't there"
        raise StorageError(
            f"There is no folder {str(folder)!r} to write {name!r} to: it {what}. Make it, or give "
            "another `--out`."
        )
    try:
        # Rights alone don't tell: a file system may be read-only to anybody.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise cannot_write(folder / name, error) from error


def place(files: Mapping[Path, bytes | Path]) -> None:
    """Write files under their names, the last one last; if one can't be written, none is.

    Args:
        files: by their names, what is to be in them, or a file that becomes it.

    Raises:
        OSError: one can't be written; files that were there are as they were.
    """
    ready: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            if isinstance(content, Path):
                ready[path] = content
                continue
            ready[path] = path.with_name(f".{os.getpid()}-{path.name}")
            ready[path].write_bytes(content)
        for path, temporary in ready.items():
            temporary.replace(path)
    finally:
        for temporary in ready.values():
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> StorageError:
    """Return the error that says why a file can't be written."""
    return StorageError(
        f"{str(path)!r} can't be written: {error.strerror or error}. Nothing was written. Give "
        "another `--out`, or make room for it."
    )
