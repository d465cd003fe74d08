"""`OnnxFormat`: what export, opening and the command line know of ONNX files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rayprune.deploy.formats.base import ExportedFile, ExportJob, ExportOptions, Format
from rayprune.deploy.formats.onnx.int8 import write_int8
from rayprune.deploy.formats.onnx.model_file import write_onnx
from rayprune.deploy.formats.onnx.packages import SESSION, require
from rayprune.deploy.formats.onnx.runtime import OnnxArtifact
from rayprune.deploy.policy.capture import capture
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.metadata import KEY, Metadata


class OnnxFormat(Format):
    """One ``.onnx`` file."""

    name, label, suffix = "onnx", "ONNX", ".onnx"
    options = frozenset({"lanes", "int8"})

    def check(self, options: ExportOptions) -> None:
        """Refuse where a package is missing: an export writes, opens and runs its file."""
        del options
        require(("onnx", "onnxscript", "onnxruntime"))

    def write(self, job: ExportJob, path: Path) -> ExportedFile:
        """See `Format.write`."""
        captured = capture(job.policy)
        # Convolutions of int8 take longer in any other form.
        lanes = None if job.options.int8 else job.options.lanes or _lanes_here()
        write_onnx(captured, path, job.metadata, lanes)
        return ExportedFile(captured, {"lanes": lanes})

    def open(self, path: Path, threads: int = 1) -> OnnxArtifact:
        """See `Format.open`."""
        return OnnxArtifact(path, threads)

    def metadata_text(self, path: Path) -> str | None:
        """See `Format.metadata_text`."""
        require(("onnx",))
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            held = onnx.load(path, load_external_data=False).metadata_props
        except DecodeError:
            return None
        return next((prop.value for prop in held if prop.key == KEY), None)

    def quantise(self, path: Path, small: Path, recorded: Sequence[Array]) -> str:
        """See `Format.quantise`."""
        return write_int8(path, small, recorded)

    def runtime(self, metadata: Metadata) -> Mapping[str, Any]:
        """See `Format.runtime`."""
        del metadata
        return {"name": "onnxruntime", **SESSION}

    def load_runtime(self) -> None:
        """See `Format.load_runtime`."""
        import onnxruntime

        onnxruntime.get_available_providers()


def _lanes_here() -> int:
    return {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)
