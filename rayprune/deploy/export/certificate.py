"""The certificate of an exported file: what was proven of it, and what it was made of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.export import ExportedProgram

from rayprune.deploy.formats.base import ExportedFile
from rayprune.deploy.policy.metadata import Metadata

Facts: TypeAlias = dict[str, Any]


def certificate_path(path: Path) -> Path:
    """Return where the certificate of an exported file lies.

    >>> certificate_path(Path("policy.onnx")).name
    'policy.onnx.json'
    """
    return path.with_name(f"{path.name}.json")


def file_facts(path: Path, file: Path, content: str, written: ExportedFile) -> Facts:
    """Return a finished file's size and hashes, and those of what belongs to it.

    Args:
        path: its name.
        file: where it lies until it gets that name.
        content: the hash that it holds.
        written: what stands beside it.
    """
    held = file.read_bytes()
    return {
        "bytes": len(held),
        "sha256": hashlib.sha256(held).hexdigest(),
        "content_sha256": content,
        "beside": {
            path.with_suffix(end).name: hashlib.sha256(text.encode()).hexdigest()
            for end, text in written.beside.items()
        },
        "proven": written.testable,
    }


def policy_facts(masked: torch.nn.Module, metadata: Metadata, written: ExportedFile) -> Facts:
    """Return what went into a file: ports, source, parameters.

    Args:
        masked: the policy as it was given.
        metadata: what the file says of itself.
        written: holds the exported graph.
    """
    return {
        "interface": metadata.interface.to_dict(),
        "about": metadata.about,
        "parameters": _parameters(masked, written.captured),
    }


def _parameters(masked: torch.nn.Module, exported: ExportedProgram) -> dict[str, int]:
    """Count what was masked, critics and whatever else it holds included, and what is exported."""
    given: list[torch.Tensor] = list(masked.parameters())
    kept: list[torch.Tensor] = list(exported.parameters())
    # Whole numbers are no parameters to torch.
    held = [x for _, x in exported.named_buffers() if not x.is_floating_point()]
    kept = kept or [x for x in held if x.dtype == torch.int8]
    weights = [parameter for parameter in kept if parameter.dim() > 1]
    return {
        "given": sum(parameter.numel() for parameter in given),
        "given_zero_weights": sum(int((x == 0).sum()) for x in given if x.dim() > 1),
        "total": sum(parameter.numel() for parameter in kept),
        "weights": sum(weight.numel() for weight in weights),
        "zero_weights": sum(int((weight == 0).sum()) for weight in weights),
    }
