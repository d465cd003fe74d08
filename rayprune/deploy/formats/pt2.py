"""Format ``torch``: a ``.pt2`` archive that torch alone loads and runs.

::

    policy = torch.export.load("policy.pt2").module()
    action, dist_inputs = policy(observations)
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from torch.export import ExportedProgram

from rayprune.deploy.formats.base import ExportedFile, ExportJob, Format
from rayprune.deploy.formats.rewriting.batch_norms import fold_batch_norms
from rayprune.deploy.formats.rewriting.graphs import rewritten
from rayprune.deploy.formats.semi_structured import report
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.capture import capture, quiet
from rayprune.deploy.policy.file_hash import add_to_archive
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.metadata import KEY, Metadata
from rayprune.errors import InputError


def write_torch(captured: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write a captured policy as a ``.pt2`` archive."""
    for node in captured.graph.nodes:
        # Paths of this machine, and what was called where.
        for about in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(about, None)
    held = io.BytesIO()
    with quiet():
        torch.export.save(captured, held, extra_files={KEY: metadata.to_json()})
    # torch's own writer says nothing of why it can't write.
    path.write_bytes(held.getvalue())
    add_to_archive(path)


class TorchArtifact(Artifact):
    """A policy that torch runs, operator by operator.

    Args:
        path: a ``.pt2`` archive.

    Raises:
        InputError: it isn't one.
    """

    def __init__(self, path: Path) -> None:
        extra = {KEY: ""}
        try:
            with quiet():
                captured = torch.export.load(str(path), extra_files=extra)
                self.module = captured.module()
        except Exception as error:  # zipfile's, pickle's, torch's own
            raise InputError(
                f"{str(path)!r} is no torch archive (.pt2) that can be read."
            ) from error
        super().__init__(path, Metadata.from_json(extra[KEY], path))

    def run(self, inputs: list[Array]) -> list[Array]:
        """Run the graph; see `Artifact.run`."""
        with torch.inference_mode():
            outputs = self.module(*(torch.from_numpy(given) for given in inputs))
        return [output.numpy() for output in outputs]


class TorchFormat(Format):
    """One ``.pt2`` archive."""

    name, label, suffix = "torch", "torch", ".pt2"

    def write(self, job: ExportJob, path: Path) -> ExportedFile:
        """See `Format.write`."""
        captured = rewritten(capture(job.policy), fold_batch_norms)
        write_torch(captured, path, job.metadata)
        inputs = [torch.from_numpy(given) for given in job.examples.inputs]
        told = report(job.policy, inputs)
        return ExportedFile(captured, {"semi_structured": told} if told["packed"] else {})

    def open(self, path: Path, threads: int = 1) -> TorchArtifact:
        """See `Format.open`."""
        return TorchArtifact(path)

    def metadata_text(self, path: Path) -> str | None:
        """See `Format.metadata_text`."""
        try:
            with zipfile.ZipFile(path) as archive:
                found = [name for name in archive.namelist() if name.endswith(f"/{KEY}")]
                return archive.read(found[0]).decode() if found else None
        except (zipfile.BadZipFile, UnicodeDecodeError):
            return None
