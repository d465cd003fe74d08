"""``policy.onnx.manifest.json``: what a program needs to know to load an exported file and feed it.

The certificate beside it says what was proven; the manifest names it, and repeats none of it. Both
are written with the file, all or none. What the manifest says of ports is what the file itself
holds, in the form of a list that needs nothing of rayprune to be read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rayprune.deploy.formats.base import Format
from rayprune.deploy.policy.file_hash import file_sha256
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.metadata import Metadata
from rayprune.errors import InputError

SCHEMA: Final = 1
_PROVENANCE: Final = (
    "algorithm",
    "env",
    "env_config",
    "checkpoint",
    "weights_sha256",
    "recorded",
    "exported",
)
_ELEMENTS: Final = ("names", "low", "high", "mean", "std")


def manifest_path(path: Path) -> Path:
    """Return where the manifest of an exported file lies.

    >>> manifest_path(Path("policy.onnx")).name
    'policy.onnx.manifest.json'
    """
    return path.with_name(f"{path.name}.manifest.json")


def manifest(
    path: Path,
    chosen: Format,
    metadata: Metadata,
    certificate: Mapping[str, Any],
    beside: Mapping[str, str],
) -> dict[str, Any]:
    """Return a file's manifest.

    Args:
        path: its name.
        chosen: its format.
        metadata: what it says of itself.
        certificate: of the file, as `certificate_path` names it.
        beside: texts of what belongs to it, by their files' ends.

    Returns:
        ``{"schema", "name", "format", "files": [{"file", "bytes", "sha256"}], "certificate",
        "proven", "runtime": {...}, "inputs": [port], "outputs": [port], "versions",
        "provenance"}``. A port is ``{"name", "role", "shape": ["batch", ...], "dtype",
        "elements"}``, where ``elements`` are the ``names``, ``low`` and ``high`` (None: unbounded),
        and the ``mean`` and ``std`` that were met, of each element or one for all; only
        observations and the action have them.
    """
    about = metadata.about
    files = [{"file": path.name, "bytes": certificate["bytes"], "sha256": certificate["sha256"]}]
    for end, text in beside.items():
        held = text.encode()
        name, digest = path.with_suffix(end).name, hashlib.sha256(held).hexdigest()
        files.append({"file": name, "bytes": len(held), "sha256": digest})
    return {
        "schema": SCHEMA,
        "name": path.stem,
        "format": chosen.name,
        "files": files,
        "certificate": f"{path.name}.json",
        "proven": metadata.proven,
        "runtime": {**chosen.runtime(metadata)},
        **_ports(metadata.interface, about),
        "versions": {"rayprune": metadata.version, **about.get("versions", {})},
        "provenance": {key: about[key] for key in _PROVENANCE if key in about},
    }


def manifest_faults(path: Path) -> Iterator[str]:
    """Yield what a file's manifest says otherwise; nothing where it has none."""
    beside = manifest_path(path)
    if not beside.is_file():
        return
    try:
        held = json.loads(beside.read_text(encoding="utf-8"))
        files = {str(one["file"]): str(one["sha256"]) for one in held["files"]}
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        yield f"The manifest {beside.name!r} can't be read."
        return
    if files.get(path.name) != file_sha256(path):
        yield f"The manifest {beside.name!r} is of another file: it names another SHA-256."


def require_manifest(path: Path) -> None:
    """Refuse a file beside which another file's manifest lies.

    Raises:
        InputError: says so.
    """
    for fault in manifest_faults(path):
        raise InputError(
            f"{fault} Copy {path.name!r} anew with what lies beside it, or export it again."
        )


def _ports(ports: Interface, about: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    roles = {port.name: "observation" for port in ports.observations}
    if ports.noise is not None:
        roles[ports.noise.name] = f"noise, standard {ports.noise_kind}"
    roles |= {ports.action.name: "action", ports.dist_inputs.name: "distribution"}
    told = {**about.get("inputs", {}), **about.get("outputs", {})}
    return {
        "inputs": _listed(ports.inputs, roles, told),
        "outputs": _listed(ports.outputs, roles, told),
    }


def _listed(
    ports: Sequence[Port], roles: Mapping[str, str], told: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return [
        {
            "name": port.name,
            "role": roles.get(port.name, "state"),
            "shape": ["batch", *port.shape],
            "dtype": port.dtype,
            **({"elements": _elements(told[port.name])} if port.name in told else {}),
        }
        for port in ports
    ]


def _elements(told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: told[key] for key in _ELEMENTS if key in told}
