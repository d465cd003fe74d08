"""Whether an exported file, and what lies beside it, are what was exported."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rayprune.deploy.export.certificate import certificate_path
from rayprune.deploy.export.manifest import manifest_faults, manifest_path
from rayprune.deploy.formats import format_of, metadata_of
from rayprune.deploy.policy.file_hash import broken, file_sha256, require_ours
from rayprune.deploy.policy.metadata import SCHEMA, Metadata, OtherVersionWarning, rayprune_version
from rayprune.errors import InputError


def verify(path: Path) -> dict[str, Any]:
    """Check a file against the hash that it holds, and against its certificate if that is there.

    Args:
        path: what ``rayprune export`` wrote: ``.onnx``, ``.pt2`` or ``.c``.

    Returns:
        ``{"schema", "file", "format", "bytes", "sha256", "whole": bool, "faults": [sentences],
        "notes": [sentences], "certificate": a name or None, "manifest": likewise, "proven",
        "exported_by": version, "about": {...}}``; the last three are None where the file isn't
        whole.

    Raises:
        InputError: there is no such file, or it is none of rayprune's.
    """
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    chosen = format_of(path)
    if not certificate_path(path).is_file():
        require_ours(path)
    content, beside = path.read_bytes(), certificate_path(path)
    digest, fault = hashlib.sha256(content).hexdigest(), broken(path)
    metadata, notes = (None, []) if fault else _metadata_and_notes(path)
    faults = [f"{path.name!r} {fault}."] if fault else []
    if beside.is_file():
        faults += _against_certificate(path, beside, digest)
    else:
        notes.append(
            f"Its certificate {beside.name!r} isn't beside it: only its own hash is known."
        )
    # Of a file that has changed the manifest would only say so once more.
    faults += [] if faults else manifest_faults(path)
    if metadata is not None and not metadata.proven:
        notes.append(chosen.unproven)
    return {
        "schema": SCHEMA,
        "file": path.name,
        "format": chosen.name,
        "bytes": len(content),
        "sha256": digest,
        "whole": not faults,
        "faults": faults,
        "notes": notes,
        "certificate": beside.name if beside.is_file() else None,
        "manifest": manifest_path(path).name if manifest_path(path).is_file() else None,
        "proven": None if metadata is None else metadata.proven,
        "exported_by": None if metadata is None else metadata.version,
        "verified_by": rayprune_version(),
        "about": None if metadata is None else {**metadata.about},
    }


def _metadata_and_notes(path: Path) -> tuple[Metadata, list[str]]:
    """Return what a whole file says of itself, and that another version wrote it if one did."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", OtherVersionWarning)
        metadata = metadata_of(path)
    return metadata, [str(one.message) for one in told if one.category is OtherVersionWarning]


def _against_certificate(path: Path, beside: Path, digest: str) -> Iterator[str]:
    """Yield what a certificate says otherwise."""
    try:
        held = json.loads(beside.read_text(encoding="utf-8"))
        said, others = held["sha256"], held.get("beside", {})
        named: Mapping[str, str] = {**others}
    except (ValueError, KeyError, TypeError, AttributeError):
        yield f"The certificate {beside.name!r} can't be read."
        return
    if said != digest:
        yield f"The certificate {beside.name!r} is of another file: it names another SHA-256."
    for name, wanted in named.items():
        other = path.with_name(Path(name).name)
        if not other.is_file():
            yield f"{other.name!r}, which belongs to it, isn't there."
        elif file_sha256(other) != wanted:
            yield f"{other.name!r}, which belongs to it, has changed since it was exported."
