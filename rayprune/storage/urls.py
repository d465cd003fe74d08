"""URLs of object stores, and pyarrow's file systems behind them.

Credentials and endpoints come from the environment, or endpoints from the URL's query, as
``pyarrow.fs.FileSystem.from_uri`` reads both.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

from rayprune.errors import StorageError, did_you_mean
from rayprune.extras import pip_line

SCHEMES: Final = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""Those that pyarrow has a file system for."""
OBJECT_STORES: Final = ("s3", "gcs", "abfs")
"""pyarrow's names of the file systems that have no directories of their own."""

PATIENCE_S: Final = 5
"""How long an endpoint may take to answer anything."""

_URL: Final = re.compile(r"([A-Za-z][\w+.-]+):/+(.*)")
_WAYS_OUT: Final = {
    "NO_SUCH_BUCKET": "There is no such bucket. Make it first, or mend the name.",
    "Bucket '": "There is no such bucket. Make it first, or mend the name.",
    "NETWORK_CONNECTION": (
        "Its endpoint does not answer. Check AWS_ENDPOINT_URL, or the URL's endpoint_override and "
        "scheme, and the network."
    ),
    "ACCESS_DENIED": (
        "Access is denied. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to "
        "credentials that may list, read, write and delete there."
    ),
}
"""By what pyarrow's message holds."""
_WAYS_OUT_OF_DENIALS: Final = (
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "INVALID_CLIENT_TOKEN_ID",
    "EXPIRED_TOKEN",
    "MISSING_AUTHENTICATION_TOKEN",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory of an object store."""

    url: str
    base: Any
    """pyarrow's file system of the whole store."""
    path: str
    """In ``base``."""
    files: Any
    """pyarrow's file system with this directory as its root."""


def url_of(place: str | Path) -> str | None:
    """Return the URL that a command line's argument is, None for a path.

    >>> url_of("s3://bucket/run"), url_of(Path("s3://bucket/run")), url_of("runs/a")
    ('s3://bucket/run', 's3://bucket/run', None)
    """
    # `Path` has made one slash of two. A drive's name is one letter.
    found = _URL.fullmatch(str(place))
    return None if found is None else f"{found[1]}://{found[2]}"


def join(place: str | Path, *parts: str) -> str:
    """Return what lies in a directory or under a URL, whose query stays at its end.

    >>> join("s3://bucket/run?scheme=http", "checkpoints", "7"), join("runs/a", "b")
    ('s3://bucket/run/checkpoints/7?scheme=http', 'runs/a/b')
    """
    url = url_of(place)
    if url is None:
        return str(Path(place).joinpath(*parts))
    head, mark, query = url.partition("?")
    return "/".join([head.rstrip("/"), *parts]) + mark + query


def check_url(url: str) -> None:
    """Raise StorageError for a URL that is none of an object store, or holds a secret.

    >>> check_url("ftp://host/run")
    Traceback (most recent call last):
    rayprune.errors.StorageError: 'ftp://host/run': there is no storage of the kind 'ftp'. ...
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise StorageError(
            f"{url!r}: there is no storage of the kind {parts.scheme!r}. Give a path, or a URL of "
            f"one of {list(SCHEMES)}.{did_you_mean(parts.scheme, SCHEMES)}"
        )
    if parts.password is not None:
        shown = url.replace(f":{parts.password}@", ":...@")
        raise StorageError(
            f"{shown!r} holds a password, and URLs are written to files and logs. Give it in the "
            "environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    if not parts.netloc or not parts.path.strip("/"):
        raise StorageError(f"{url!r} names no directory: give {parts.scheme}://BUCKET/NAME.")


def open_url(url: str) -> Place:
    """Return the place that a URL names; whether it is there hasn't been asked yet.

    Raises:
        StorageError: pyarrow can't make a file system of it, or the endpoint that it or the
            environment names does not answer.
    """
    check_url(url)
    try:
        import pyarrow
    except ImportError as error:
        raise StorageError(f"{url!r} needs pyarrow: {pip_line('rllib')}.") from error
    try:
        with told_of(url):
            base, path = _file_system(url)
    except pyarrow.ArrowInvalid as error:
        raise StorageError(f"{url!r} is refused by pyarrow: {error}.") from error
    _check_answers(url)
    path = path.rstrip("/")
    files = pyarrow.fs.SubTreeFileSystem(path, base)
    return Place(url=url, base=base, path=path, files=files)


@contextmanager
def told_of(url: str) -> Iterator[None]:
    """Turn what pyarrow raises inside the block into a sentence with a way out."""
    try:
        yield
    except OSError as error:
        raise storage_fault(url, error) from error


def storage_fault(url: str, error: OSError) -> StorageError:
    """Return what the person should read when a store fails."""
    told = str(error)
    way_out = next((way for sign, way in _WAYS_OUT.items() if sign in told), None)
    if way_out is None and any(sign in told for sign in _WAYS_OUT_OF_DENIALS):
        way_out = _WAYS_OUT["ACCESS_DENIED"]
    return StorageError(f"{url!r} can't be used. {way_out or told.splitlines()[0]}")


def _check_answers(url: str) -> None:
    """Raise StorageError if an endpoint of one's own is silent: pyarrow would wait for minutes."""
    endpoint = _endpoint(url)
    if endpoint is None:
        return
    try:
        urlopen(endpoint, timeout=PATIENCE_S).close()
    except HTTPError as error:
        error.close()  # whatever it says, it answers
    except (OSError, HTTPException) as error:
        if not isinstance(getattr(error, "reason", error), ssl.SSLError):  # for pyarrow to judge
            raise storage_fault(url, OSError(f"NETWORK_CONNECTION: {error}")) from error


def _endpoint(url: str) -> str | None:
    """Return the URL of the S3 endpoint that is named anywhere, in the order of pyarrow's search.

    >>> _endpoint("s3://bucket/run?endpoint_override=host:9000&scheme=http")
    'http://host:9000'
    """
    parts = urlsplit(url)
    if parts.scheme != "s3":
        return None
    query = dict(parse_qsl(parts.query))
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = query.get("endpoint_override") or environment
    if not endpoint or "://" in endpoint:
        return endpoint or None
    return f"{query.get('scheme', 'https')}://{endpoint}"


def _file_system(url: str) -> tuple[Any, str]:
    """Return pyarrow's file system and the path in it."""
    from pyarrow import ArrowInvalid, fs

    if url.startswith("s3://") and "allow_delayed_open" not in url:
        with suppress(ArrowInvalid):  # an older pyarrow, or a fault that the next line finds, too
            # A small file is one request: pyarrow begins an upload in parts otherwise.
            mark = "&" if "?" in url else "?"
            made: tuple[Any, str] = fs.FileSystem.from_uri(f"{url}{mark}allow_delayed_open=true")
            return made
    plain: tuple[Any, str] = fs.FileSystem.from_uri(url)
    return plain
