"""Format ``onnx``: for ONNX Runtime, and whatever else reads ONNX."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from rayprune.deploy.artifact import Artifact
from rayprune.deploy.capture import quiet, recapture
from rayprune.deploy.interface import Array
from rayprune.deploy.metadata import KEY, Metadata
from rayprune.deploy.single_step import sees_single_steps, written_out
from rayprune.errors import InputError


def write_onnx(captured: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write a captured policy as one ``.onnx`` file.

    Raises:
        InputError: an extra package is missing, or an operator has no counterpart in ONNX.
    """
    require(("onnx", "onnxscript"))
    ports = metadata.interface
    try:
        with quiet():
            program: Any = torch.onnx.export(
                _without_sequences(captured),
                dynamo=True,
                verbose=False,
                input_names=[port.name for port in ports.inputs],
                output_names=[port.name for port in ports.outputs],
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(
            f"The policy can't be exported to ONNX: {_operator(error)} Take `--format torch`, or "
            "build the module of operators that torch.onnx knows."
        ) from error
    program.model.metadata_props[KEY] = metadata.to_json()
    # One file: weights beside it would be left behind when it is copied.
    program.save(str(path), external_data=False)


def _without_sequences(captured: ExportedProgram) -> ExportedProgram:
    if not sees_single_steps(captured):
        return captured
    return recapture(written_out(captured), captured)


class OnnxArtifact(Artifact):
    """A policy that ONNX Runtime runs on the CPU.

    Args:
        path: an ``.onnx`` file.
        threads: how many it computes with; 0 for one a core.

    Raises:
        InputError: it isn't one, or ONNX Runtime is missing.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        require(("onnxruntime",))
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise InputError(f"{str(path)!r} is no ONNX file that can be read: {error}") from error
        held = self.session.get_modelmeta().custom_metadata_map
        super().__init__(path, Metadata.from_json(held.get(KEY), path))
        # What the outputs don't depend on is no input of the file.
        taken = {given.name for given in self.session.get_inputs()}
        names = [port.name for port in self.interface.inputs]
        self._taken = [(index, name) for index, name in enumerate(names) if name in taken]
        self._given = [given.name for given in self.session.get_outputs()]
        self._bound = threading.local()

    def run(self, inputs: list[Array]) -> list[Array]:
        """Run the session; see `Artifact.run`."""
        binding = self._binding(len(inputs[0]))
        for index, name in self._taken:
            binding.bind_cpu_input(name, inputs[index])
        self.session.run_with_iobinding(binding)
        outputs: list[Array] = binding.copy_outputs_to_cpu()
        return outputs

    def _binding(self, batch: int) -> Any:
        """Return this thread's, made once for calls of one batch size: a control loop's are.

        A call of `session.run` takes 3 us more, of 14 to 20 for a pruned network.
        """
        if getattr(self._bound, "batch", None) != batch:
            binding = self.session.io_binding()
            for name in self._given:
                binding.bind_output(name, "cpu")
            self._bound.binding, self._bound.batch = binding, batch
        return self._bound.binding


def require(packages: Sequence[str]) -> None:
    """Refuse where an extra package is missing.

    Raises:
        InputError: says which, and how to install it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"This needs {' and '.join(missing)}: pip install 'rayprune[deploy]'. "
            "`--format torch` and `--format c` need neither."
        )


def _operator(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
