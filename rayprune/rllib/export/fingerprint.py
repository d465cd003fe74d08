"""Who a policy is: the hash of what it computes with, who wrote it, and when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from rayprune import yaml12
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.file_hash import file_sha256
from rayprune.errors import InputError
from rayprune.policies.foreign_policy import ForeignPolicy
from rayprune.policies.identity import now, portable
from rayprune.rllib.checkpoints.files import CONFIG_FILE
from rayprune.rllib.checkpoints.saved_policy import SavedPolicy

_RLLIBS_FILES: Final = ("rllib_checkpoint.json", "metadata.json")


def checkpoint_identity(policy: SavedPolicy) -> dict[str, Any]:
    """Return who a checkpoint's policy is.

    Returns:
        ``{"name", "kind": "checkpoint", "sha256": of the weights, "version": what wrote it,
        "date": when, UTC}``; the version is None where the checkpoint doesn't say.
    """
    return {
        "name": portable(policy.directory),
        "kind": "checkpoint",
        "sha256": policy.sha256(),
        "version": _written_by(policy.directory),
        "date": _date(policy.place),
    }


def file_identity(artifact: Artifact) -> dict[str, Any]:
    """Return who an exported file is, as `checkpoint_identity` does; the hash is the file's."""
    about = artifact.metadata.about
    return {
        "name": portable(artifact.path),
        "kind": "file",
        "sha256": file_sha256(artifact.path),
        "version": f"rayprune {artifact.metadata.version}",
        "date": about.get("exported") or _date(artifact.path),
        "checkpoint": about.get("checkpoint"),
        "weights_sha256": about.get("weights_sha256"),
        "format": artifact.path.suffix.removeprefix("."),
        "int8": bool(about.get("int8")),
    }


def foreign_identity(policy: ForeignPolicy) -> dict[str, Any]:
    """Return who a policy from elsewhere is, as `checkpoint_identity` does."""
    return {
        "name": policy.name,
        "kind": policy.library,
        "sha256": policy.sha256(),
        "version": None,
        "date": now() if policy.file is None else _date(policy.file),
    }


def require_two(
    dense: Mapping[str, Any],
    pruned: Mapping[str, Any],
    nonzero: tuple[int | None, int | None],
) -> None:
    """Refuse to compare a policy with itself, or a pruned one that has more weights than the dense.

    Args:
        dense: its identity.
        pruned: likewise.
        nonzero: how many parameters of each aren't zero, dense first; None: unknown.

    Raises:
        InputError: says which.
    """
    exported_twice = _made_alike(dense) is not None and _made_alike(dense) == _made_alike(pruned)
    if exported_twice or (dense["kind"], dense["sha256"]) == (pruned["kind"], pruned["sha256"]):
        raise InputError(
            f"DENSE and PRUNED are the same policy (SHA-256 {weights_of(dense)[:12]}): "
            f"{dense['name']!r} and {pruned['name']!r}; give two."
        )
    ours, theirs = nonzero
    if ours is not None and theirs is not None and theirs > ours:
        raise InputError(
            f"PRUNED ({pruned['name']!r}) is denser than DENSE ({dense['name']!r}): {theirs:,} of "
            f"its parameters aren't zero, of DENSE's {ours:,}; give the denser one first."
        )


def weights_of(identity: Mapping[str, Any]) -> str:
    """Return the hash of the weights that a policy is made of; of a file that doesn't say, its own.

    >>> weights_of({"sha256": "a"}), weights_of({"sha256": "a", "weights_sha256": "b"})
    ('a', 'b')
    """
    return str(identity.get("weights_sha256") or identity["sha256"])


def _made_alike(file: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return what two exports of one policy have in common; None for what is none."""
    if file.get("weights_sha256") is None:
        return None
    return file["weights_sha256"], file["format"], file["int8"]


def _written_by(directory: Path) -> str | None:
    config = directory / CONFIG_FILE
    if config.is_file():
        versions = yaml12.read_mapping(config).get("versions")
        if isinstance(versions, Mapping):
            named = [name for name in ("rayprune", "ray") if name in versions]
            return ", ".join(f"{name} {versions[name]}" for name in named) or None
    for name in _RLLIBS_FILES:
        path = directory / name
        if path.is_file():
            version = json.loads(path.read_text(encoding="utf-8")).get("ray_version")
            return None if version is None else f"ray {version}"
    return None


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
