"""A run's files: the append-only record, and files that are whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rayprune.errors import StorageError
from rayprune.storage.occupancy import LOCK_FILE, check_unoccupied
from rayprune.storage.urls import check_url, url_of

LEAST_FREE_BYTES = 64 * 2**20
"""A run isn't started on a disk with less left: its checkpoints would not fit."""

_JOBS_FILES = "working_dir_files"
"""Where Ray (2.60) unpacks what a job has sent along."""
_UNBEGUN = re.compile(rf"{re.escape(LOCK_FILE)}|\.probe\.\d+|\..+\.\d+\.tmp")
"""Names of what a process leaves that is killed before its first file is whole."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


class Record:
    """The rows of one run, one JSON object a line, on disk as soon as `append` returns.

    Made by `Record.open`, closed by `close` or as a context manager.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: str | Path, keep_until: int | None = None) -> Record:
        """Open the record for appending; repair what an interruption left behind.

        A last line that was cut short is dropped. So are, on resuming, the rows of steps that the
        resumed run will do again. The file is replaced at once, so no reader sees half of it.

        Args:
            path: the file; made when it isn't there.
            keep_until: drop the rows whose clock (``env_steps``, or ``updates`` where none are
                sampled) is above it; None keeps all.

        Returns:
            The open record.

        Raises:
            StorageError: it can't be read or written, or a line before the last isn't JSON.
        """
        path = Path(path)
        if path.is_file():
            _repair(path, keep_until)
        return cls(path, _open_for_appending(path))

    def append(self, *rows: Mapping[str, object]) -> None:
        """Write rows, all or none; several cost the disk as much as one.

        Args:
            rows: values that JSON has, NumPy scalars and arrays; NaN and infinities become null.

        Raises:
            StorageError: the disk is full, read-only or gone; the earlier rows are unharmed.
        """
        lines = "".join(to_json(row) + "\n" for row in rows).encode()
        try:
            before = os.fstat(self._descriptor).st_size
            try:
                _write_all(self._descriptor, lines)
                _sync(self._descriptor)
            except OSError:
                # Where even this fails, the torn line is dropped when the record is opened again.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, before)
                raise
        except OSError as error:
            raise storage_error(error, self._path) from error

    def replace(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Put other rows in place of all; a reader sees the old or the new.

        Raises:
            StorageError: the disk is full, read-only or gone; the old rows are unharmed.
        """
        write_atomic(self._path, "".join(to_json(row) + "\n" for row in rows))
        self.close()
        self._descriptor = _open_for_appending(self._path)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a record, without a last line that was cut short.

    Raises:
        StorageError: the file can't be read, or a line before the last isn't a JSON object.
    """
    path = Path(path)
    return list(_rows(_content(path).splitlines(), path))


def step_of(row: Mapping[str, Any]) -> int:
    """Return a row's place in time: env steps, or updates where none are sampled (offline).

    >>> step_of({"env_steps": 400, "updates": 12}), step_of({"env_steps": 0, "updates": 12})
    (400, 12)
    """
    return int(row.get("env_steps") or row.get("updates") or 0)


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Replace the file at ``path`` by ``content``: a reader sees the old or the new, whole.

    Raises:
        StorageError: the disk is full, read-only or forbidden; an old file is unharmed.
    """
    path = Path(path)
    # Beside the target, because a rename is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            _write_file(temporary, content.encode() if isinstance(content, str) else content)
            temporary.replace(path)
            _sync_directory(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error(error, path) from error


def prepare_out(out: str | Path, resume: bool, marker: str = "config.yaml") -> None:
    """Make sure that a run can be written to ``out``, before anything expensive starts.

    Args:
        out: the run's directory; made when it isn't there.
        resume: whether a run is there to go on with.
        marker: the file that says so.

    Raises:
        StorageError: the directory holds something, or nothing to resume, is written to by a run
            that lives, or can't be written.
    """
    out = check_out(out, resume, marker)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _probe(out)
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise storage_error(error, out) from error
    if free < LEAST_FREE_BYTES:
        raise StorageError(
            f"The disk of {str(out)!r} has {free / 2**20:.0f} MiB left, and a run needs at least "
            f"{LEAST_FREE_BYTES >> 20}. Free some, or give a directory elsewhere with --out."
        )


def check_out(out: str | Path, resume: bool, marker: str) -> Path:
    """Return the directory that a run may be written to; it isn't made yet.

    Args:
        out: as `prepare_out` takes it.
        resume: likewise.
        marker: likewise.

    Raises:
        StorageError: the directory holds something, or nothing to resume, or is written to by a
            run that lives, or can't be made.
    """
    if (url := url_of(out)) is not None:
        raise StorageError(
            f"'--out {url}' is no path, and this command writes to paths only. `rayprune train` "
            "and `rayprune sweep` write to URLs."
        )
    out = Path(out)
    check_lasting(out)
    try:
        if out.exists() and not out.is_dir():
            raise StorageError(f"{str(out)!r} is a file: give a directory with --out.")
        if resume and not (out / marker).is_file():
            raise StorageError(
                f"{str(out)!r} holds no run to resume (no {marker}): start one without --resume."
            )
        check_unoccupied(out)
        if (
            not resume
            and out.is_dir()
            and any(not _UNBEGUN.fullmatch(p.name) for p in out.iterdir())
        ):
            raise StorageError(
                f"{str(out)!r} is not empty: give another directory with --out, or go on with its "
                "run by --resume, which `rayprune train`, `sweep` and `fit` have."
            )
        _probe(next(place for place in (out, *out.absolute().parents) if place.exists()))
    except OSError as error:
        raise storage_error(error, out) from error
    return out


def _probe(directory: Path) -> None:
    """Raise OSError unless something can be written there."""
    probe = directory / f".probe.{os.getpid()}"
    _write_file(probe, b"a run can be written here\n")
    probe.unlink()


def check_lasting(out: str | Path) -> None:
    """Raise StorageError if results at ``out`` would not be where they are looked for.

    >>> check_lasting("s3://bucket/run")
    >>> check_lasting("s4://bucket/run")
    Traceback (most recent call last):
    rayprune.errors.StorageError: 's4://bucket/run': there is no storage of the kind 's4'. ...
    """
    if (url := url_of(out)) is not None:
        check_url(url)
        return
    if _JOBS_FILES in Path(out).absolute().parts:
        raise StorageError(
            f"'--out {out}' lies in the job's own directory, which goes with the job: give an "
            "absolute path that all nodes share, or a URL such as s3://BUCKET/NAME."
        )


def storage_error(error: OSError, path: str | Path) -> StorageError:
    """Return what the person should read when ``path`` could not be written."""
    if error.errno in _FULL:
        return StorageError(
            f"The disk of {str(path)!r} is full. Free some space and go on with --resume, or give "
            "a directory elsewhere with --out."
        )
    if error.errno == errno.EROFS:
        return StorageError(
            f"{str(path)!r} is on a read-only file system: give a directory elsewhere with --out."
        )
    if error.errno in _FORBIDDEN:
        return StorageError(
            f"{str(path)!r} may not be written by this user: change its permissions, or give "
            "another directory with --out."
        )
    return StorageError(
        f"{str(path)!r} can't be written: {error.strerror or error}. Give another directory with "
        "--out."
    )


def to_json(value: object, indent: int | None = None) -> str:
    """Return strict JSON: NaN and infinities as null, NumPy's values as Python's.

    >>> to_json({"return_mean": float("nan"), "steps": (1, 2)})
    '{"return_mean": null, "steps": [1, 2]}'
    """
    return json.dumps(_jsonable(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _jsonable(value: object) -> object:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(item) for item in value]
    # NumPy's scalars and arrays and torch's tensors, without importing either.
    if hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    return str(value)


def _open_for_appending(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise storage_error(error, path) from error


def _repair(path: Path, keep_until: int | None) -> None:
    """Rewrite the file without its torn last line and without rows that will be done again."""
    # Read once: what another process appends in between is no damage.
    held = _content(path)
    rows = _rows(held.splitlines(), path)
    kept = [row for row in rows if keep_until is None or step_of(row) <= keep_until]
    content = "".join(to_json(row) + "\n" for row in kept).encode()
    if content != held:
        write_atomic(path, content)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{str(path)!r} can't be read: {error.strerror}.") from error


def _rows(lines: list[bytes], path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError as error:
            # A process killed while it wrote leaves a torn last line; any other is damage.
            if number == len(lines):
                return
            raise StorageError(
                f"Line {number} of {str(path)!r} is not a JSON object: the record is damaged. "
                "Remove the line, or start again with another --out."
            ) from error
        yield row


def _write_file(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write_all(descriptor, content)
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    """A nearly full disk takes a part of a write, and refuses the next one."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Pipes and some network file systems have no fsync.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync_directory(path: Path) -> None:
    """Make a rename last through a power cut; Windows can't open a directory."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
