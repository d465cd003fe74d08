"""Keeps a second run out of a directory that a living one writes to.

The lock is the operating system's, and goes with the process that holds it, however that ends: what
was killed can be resumed at once. It also holds between hosts that share a file system with locks
(NFS has them). Where there are none, a process of the same host is looked up by its number.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rayprune.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE: Final = ".rayprune.lock"


@contextmanager
def occupied(directory: Path) -> Iterator[None]:
    """Let no other process write a run into ``directory``, which is there, inside the block.

    Raises:
        StorageError: a living process does so already.
    """
    path = directory / LOCK_FILE
    try:
        descriptor = _open(path)
    except OSError:
        # A directory that can't be written is told of by who writes to it.
        yield
        return
    try:
        _write(descriptor)
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def check_unoccupied(directory: Path) -> None:
    """Raise StorageError if a living process writes a run into ``directory``."""
    path = directory / LOCK_FILE
    if path.is_file():
        with contextlib.suppress(OSError):
            os.close(_open(path))


def _open(path: Path) -> int:
    """Return the lock's descriptor, locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                raise _refusal(path.parent, _holder(descriptor))
            # Its last holder may have removed it since it was opened.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Return whether nobody else holds it."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return not _is_alive(_holder(descriptor))


def _is_alive(holder: dict[str, Any]) -> bool:
    if holder.get("host") != socket.gethostname() or holder.get("pid") in (None, os.getpid()):
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        held = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _write(descriptor: int) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    about = {"host": socket.gethostname(), "pid": os.getpid(), "started": now}
    with contextlib.suppress(OSError):  # a full disk; the lock holds without it
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)


def _refusal(directory: Path, holder: dict[str, Any]) -> StorageError:
    who = "another process"
    if holder:
        who = f"process {holder['pid']} on {holder['host']!r}, since {holder['started']}"
    return StorageError(
        f"{str(directory)!r} is in use: {who}, writes a run there. Wait for its end or stop it, or "
        "give another directory with --out."
    )
