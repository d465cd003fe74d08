"""A file's own hash, in the file: SHA-256 of its bytes, with zeros where the hash itself stands.

It shows that a file is what `rayprune export` wrote, not who wrote it: whoever changes a file on
purpose can seal it again. For that there is the hash of the whole file in its certificate.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import Final

from rayprune.errors import InputError

KEY: Final = "rayprune.sha256"
BLANK: Final = f"rayprune-sha256:{64 * '0'}"
"""What a writer puts into its file, for `seal` to fill in."""
_SEAL: Final = re.compile(rb"rayprune-sha256:([0-9a-f]{64})")


def seal(path: Path) -> str:
    """Fill in a file's hash; return it.

    Raises:
        ValueError: there is no place for it.
    """
    content = path.read_bytes()
    found = _SEAL.search(content)
    if found is None:
        raise ValueError(f"{path.name} has no place for its hash.")
    digest = _digest(content, found.span(1))
    begin, end = found.span(1)
    path.write_bytes(content[:begin] + digest.encode() + content[end:])
    return digest


def add_to_archive(path: Path) -> None:
    """Put the place for the hash into a zip archive, as its comment; what it holds stays."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = BLANK.encode()


def broken(path: Path) -> str | None:
    """Return in which way a file isn't what was exported; None where its hash is right."""
    content = path.read_bytes()
    found = _SEAL.search(content)
    if found is None:
        return (
            "holds no hash of its content, so that it can't be told whether it is whole: an older "
            "rayprune wrote it, or it was cut short"
        )
    if _digest(content, found.span(1)) != found.group(1).decode():
        return "isn't what was exported: its content doesn't have the SHA-256 that it holds"
    return None


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of all of a file's bytes, as its certificate has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def require_ours(path: Path) -> None:
    """Refuse a file in which nothing is rayprune's.

    Raises:
        InputError: says so.
    """
    if b"rayprune" not in path.read_bytes():
        raise InputError(
            f"{str(path)!r} wasn't exported by rayprune, or only its beginning is there. Make it "
            "with `rayprune export`."
        )


def require_whole(path: Path) -> None:
    """Refuse a file that has changed since it was exported, or that never was.

    Raises:
        InputError: says so.
    """
    require_ours(path)
    fault = broken(path)
    if fault is not None:
        raise InputError(
            f"{str(path)!r} {fault}. Copy it anew, or export it again with `rayprune export`."
        )


def _digest(content: bytes, place: tuple[int, int]) -> str:
    digest = hashlib.sha256(content[: place[0]])
    digest.update(64 * b"0")
    digest.update(content[place[1] :])
    return digest.hexdigest()
