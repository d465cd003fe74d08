"""Format ``torch``: a ``.pt2`` archive that torch alone loads and runs.

::

    policy = torch.export.load("policy.pt2").module()
    action, dist_inputs = policy(observations)
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram

from rayprune.deploy.artifact import Artifact
from rayprune.deploy.capture import quiet
from rayprune.deploy.interface import Array
from rayprune.deploy.metadata import KEY, Metadata
from rayprune.errors import InputError


def write_torch(captured: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write a captured policy as a ``.pt2`` archive."""
    with quiet():
        torch.export.save(captured, str(path), extra_files={KEY: metadata.to_json()})


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
