"""Local copies of what object stores hold, and what they are called.

The rest of rayprune works on paths. A run that goes to a URL works in a local directory, which is
committed at the moments that `--resume` goes on from; readers fetch what they need. `shown` gives
the name that a person knows such a path by.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rayprune.errors import StorageError
from rayprune.storage.commits import committed_files
from rayprune.storage.mirror import Mirror, download
from rayprune.storage.urls import Place, join, open_url, storage_fault, told_of, url_of

Tell = Callable[[str], None]
"""Takes one sentence for the person who watches."""

Wanted = Callable[[Collection[str], Path], set[str]]
"""Chooses from the paths that are there what a copy needs; given the copy's directory, and called
again until it wants nothing new, because what it needs may be named in what it has got."""

LAST_TRIES: Final = 3
"""How often the last commit is tried, with a growing pause between."""
_FETCHES: Final = 5
"""How often a reader begins anew because the writer has gone on meanwhile."""
_MESSAGE_OF_THE_PROBE: Final = b"a run can be written here\n"

_Seen = dict[str, tuple[str, int, int]]
"""By path: where it was read, its time and its size."""

_urls: dict[Path, str] = {}
"""Local directory -> the URL that it is a copy of."""
_mirrors: dict[Path, tuple[Mirror, Tell]] = {}
_fetched: dict[tuple[str, Wanted], tuple[_Seen, Path]] = {}


@contextmanager
def mirrored(
    out: str | Path,
    *,
    resume: bool,
    marker: str,
    tell: Tell,
    apart: Collection[str] = (),
) -> Iterator[Path]:
    """Give a local directory for results; what is committed in it goes to ``out``.

    Args:
        out: a path, which is given back as it is, or a URL.
        resume: whether something is there to go on with; it is fetched.
        marker: the file that says so.
        tell: told where a commit fails. The run goes on, and the next commit does it all.
        apart: names in ``out`` that somebody else writes.

    Raises:
        StorageError: the place can't be used, holds something, or nothing to resume; or the last
            commit failed, and the files are left where they are.
    """
    url = url_of(out)
    if url is None:
        yield Path(out)
        return
    place = open_url(url)
    _check_vacancy(place, resume, marker)
    home = _directory(url)
    mirror = Mirror(home, place, apart)
    if resume:
        with told_of(url):
            mirror.fetch()
    _mirrors[home] = (mirror, tell)
    try:
        yield home
    except BaseException:
        # What went wrong is worth more than what then goes wrong here, too.
        with suppress(StorageError):
            _commit_at_last(mirror)
        raise
    else:
        _commit_at_last(mirror)
    finally:
        del _mirrors[home]


def commit(directory: Path) -> None:
    """Make what a directory holds now last; nothing to do for one that is no mirror.

    Where the store can't be reached the run's person is told, and the run goes on.

    Args:
        directory: what `mirrored` gave, or something in it: all is committed.
    """
    for mirror, tell in _mirrors.values():
        if directory.absolute().is_relative_to(mirror.home):
            try:
                mirror.commit()
            except OSError as error:
                tell(
                    f"{storage_fault(mirror.place.url, error)} The run goes on, and tries again at "
                    "its next checkpoint."
                )


def place_of(directory: Path) -> Place | None:
    """Return where a directory that `mirrored` gave is kept, None for any other."""
    held = _mirrors.get(directory.absolute())
    return None if held is None else held[0].place


def shown(path: str | Path) -> str:
    """Return what a person calls a path: its URL where it is a copy's.

    >>> shown("runs/a")
    'runs/a'
    """
    whole = Path(path).absolute()
    for home, url in _urls.items():
        if whole.is_relative_to(home):
            inside = whole.relative_to(home).parts
            return join(url, *inside)
    return str(path)


def fetched(source: str | Path, wanted: Wanted) -> Path:
    """Return a local copy of what is at a URL; a path is given back as it is.

    The copy is gone when the process ends. Asked for again, it is the same, unless what is there
    has changed.

    Args:
        source: a path, or a URL of a directory.
        wanted: chooses what to fetch.

    Raises:
        StorageError: nothing is there, or it can't be read.
    """
    url = url_of(source)
    if url is None:
        return Path(source)
    here = _mirrored(url)
    if here is not None:
        return here
    place = open_url(url)
    for _ in range(_FETCHES):
        with told_of(url), suppress(FileNotFoundError):
            return _fetch(place, wanted)
    raise StorageError(f"{url!r} changes faster than it can be read. Try again.")


def fetched_file(source: str | Path) -> Path:
    """Return a local copy of the one file that is at a URL; a path is given back as it is.

    Raises:
        StorageError: it isn't there, or can't be read.
    """
    url = url_of(source)
    if url is None:
        return Path(source)
    head, mark, query = url.partition("?")
    folder, _, name = head.rstrip("/").rpartition("/")
    copy = fetched(f"{folder}{mark}{query}", _Named(name)) / name
    if not copy.is_file():
        raise StorageError(f"There is no file {name!r} at {folder!r}. Check the name.")
    return copy


@dataclass(frozen=True)
class _Named:
    """Wants one file; equal to another that wants the same, so that a copy is found again."""

    name: str

    def __call__(self, paths: Collection[str], copy: Path) -> set[str]:
        return {self.name}.intersection(paths)


def drop(copy: Path) -> None:
    """Delete a copy that `fetched` has made before the process ends; leave any other path alone."""
    for key, (_, home) in list(_fetched.items()):
        if home == copy:
            del _fetched[key]
            shutil.rmtree(home.parent, ignore_errors=True)


def _fetch(place: Place, wanted: Wanted) -> Path:
    tree = _tree(place)
    seen = {path: (info.path, info.mtime_ns, info.size) for path, info in tree.items()}
    known, home = _fetched.get((place.url, wanted), (None, None))
    if home is not None and known == seen:
        return home
    home = _directory(place.url)
    atexit.register(shutil.rmtree, home.parent, ignore_errors=True)
    got = set[str]()
    while more := wanted(tree.keys(), home) - got:
        download(place, {path: tree[path].path for path in more}, home)
        got |= more
    _fetched[place.url, wanted] = (seen, home)
    return home


def _mirrored(url: str) -> Path | None:
    """Return where a URL's content is at home: in the directory that a run is writing."""
    for home in _mirrors:
        inside = url.partition("?")[0].removeprefix(_urls[home].partition("?")[0].rstrip("/"))
        if inside.startswith("/") and (home / inside[1:]).exists():
            return home / inside[1:]
    return None


def _tree(place: Place) -> dict[str, Any]:
    tree = committed_files(place.files)
    if not tree:
        raise StorageError(
            f"There is nothing at {place.url!r}. `rayprune train` and `sweep` write there with "
            "--out; check the name."
        )
    return tree


def _check_vacancy(place: Place, resume: bool, marker: str) -> None:
    """Raise StorageError unless a run can begin, or go on, at a place; leave nothing there."""
    with told_of(place.url):
        # Writing asks for more than reading, and tells a missing bucket from an empty one.
        probe = ".rayprune-probe"
        with place.files.open_output_stream(probe) as stream:
            stream.write(_MESSAGE_OF_THE_PROBE)
        place.files.delete_file(probe)
        found = committed_files(place.files)
    if resume and marker not in found:
        raise StorageError(
            f"{place.url!r} holds no run to resume (no {marker}): start one without --resume."
        )
    if not resume and found:
        raise StorageError(
            f"{place.url!r} is not empty: go on with its run by --resume, or give another place "
            "with --out."
        )


def _commit_at_last(mirror: Mirror) -> None:
    for attempt in range(LAST_TRIES):
        try:
            mirror.commit()
        except OSError as error:
            fault = error
            time.sleep(attempt)
        else:
            shutil.rmtree(mirror.home.parent, ignore_errors=True)
            return
    raise StorageError(
        f"{storage_fault(mirror.place.url, fault)} What is not there yet is in {mirror.home}: copy "
        "that directory to it, or go on with --resume from what was committed."
    )


def _directory(url: str) -> Path:
    """Make a directory that is called like a URL's last part; reports name runs by it."""
    root = Path(tempfile.mkdtemp(prefix="rayprune-")).resolve()
    home = root / (url.partition("?")[0].rstrip("/").rpartition("/")[2])
    home.mkdir()
    _urls[home] = url
    return home
