"""Format ``onnx``: for ONNX Runtime, and whatever else reads ONNX."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from torch.export import ExportedProgram

from rayprune.deploy.formats.rewriting.channels_last import read_as_it_lies
from rayprune.deploy.formats.rewriting.direct_actions import compute_action_directly
from rayprune.deploy.formats.rewriting.graphs import rewritten
from rayprune.deploy.formats.rewriting.narrow_filters import fill_registers
from rayprune.deploy.formats.rewriting.single_step import sees_single_steps, written_out
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.capture import quiet, recapture
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.metadata import KEY, Metadata
from rayprune.deploy.policy.seal import BLANK
from rayprune.deploy.policy.seal import KEY as SEAL
from rayprune.errors import InputError


def write_onnx(
    captured: ExportedProgram, path: Path, metadata: Metadata, lanes: int | None
) -> None:
    """Write a captured policy as one ``.onnx`` file.

    Args:
        captured: for any batch size.
        path: the file.
        metadata: goes into it.
        lanes: floats in a vector register of the machine that it is for; None leaves convolutions
            as they are.

    Raises:
        InputError: an extra package is missing, or an operator has no counterpart in ONNX.
    """
    require(("onnx", "onnxscript"))
    ports = metadata.interface
    try:
        with quiet():
            program: Any = torch.onnx.export(
                _for_onnx_runtime(captured, lanes),
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
    path.write_bytes(_plain(program.model, metadata).SerializeToString())


def _plain(model: Any, metadata: Metadata) -> Any:
    """Return a model's protobuf without what torch remarks on each node and value.

    That is half of a small file: stack traces with this machine's paths, names of modules, shapes.
    """
    from onnx_ir import serde
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.metadata_props[KEY] = metadata.to_json()
    model.metadata_props[SEAL] = BLANK
    # One file: weights beside it would be left behind when it is copied.
    proto = serde.serialize_model(model)
    del proto.graph.value_info[:]
    told = metadata.about.get("inputs", {})
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
        for key, held in told.get(value.name, {}).items():
            value.metadata_props.add(key=f"rayprune.{key}", value=json.dumps(held))
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:  # the only one whose length isn't known
                axis.dim_param = "batch"
    return proto


def _for_onnx_runtime(captured: ExportedProgram, lanes: int | None) -> ExportedProgram:
    if sees_single_steps(captured):
        captured = recapture(written_out(captured), captured)
    if lanes is not None:
        captured = rewritten(captured, read_as_it_lies, fill_registers(lanes))
    return rewritten(captured, compute_action_directly)


def metadata_text(path: Path) -> str | None:
    """Return the JSON that a file holds of itself, None if there is none.

    Raises:
        InputError: the package that reads it is missing.
    """
    require(("onnx",))
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        held = onnx.load(path, load_external_data=False).metadata_props
    except DecodeError:
        return None
    return next((prop.value for prop in held if prop.key == KEY), None)


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
        # Without it, calls at small batches take 1 to 3 % less, others the same.
        options.enable_cpu_mem_arena = False
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise InputError(f"{str(path)!r} is no ONNX file that can be read: {error}") from error
        held = self.session.get_modelmeta().custom_metadata_map
        super().__init__(path, Metadata.from_json(held.get(KEY), path))
        # What the outputs don't depend on is no input of the file.
        self._taken = {given.name for given in self.session.get_inputs()}
        self._own = threading.local()

    def run(self, inputs: list[Array]) -> list[Array]:
        """Run the session; see `Artifact.run`."""
        batch = len(inputs[0])
        calls: dict[int, _Call] = self._own.__dict__.setdefault("calls", {})
        if batch not in calls:
            if len(calls) >= _SIZES:
                calls.clear()
            calls[batch] = _bound(self.session, self.interface, self._taken, batch)
        return calls[batch](inputs)


_Call: TypeAlias = Callable[[list[Array]], list[Array]]
_SIZES: Final = 8
"""Batch sizes that memory is kept for, in each thread: binding it takes as long as some calls."""
_COPIED: Final = 16_384
"""Bytes up to which copying an input takes less than binding it."""


def _bound(session: Any, interface: Interface, taken: Collection[str], batch: int) -> _Call:
    """Return a function that runs a session on memory of its own, for one thread and batch size.

    A call of `session.run` takes 5 us more, of 11 to 16 for a pruned network.

    Args:
        session: ONNX Runtime's.
        interface: its ports.
        taken: the inputs that it has.
        batch: the batch size.
    """
    binding, execute = session.io_binding(), session.run_with_iobinding
    copied: list[tuple[Array, int]] = []
    bound_anew: list[tuple[str, int]] = []
    for place, port in enumerate(interface.inputs):
        memory = port.zeros(batch)
        if port.name not in taken:
            continue
        if memory.nbytes > _COPIED:
            bound_anew.append((port.name, place))
        else:
            binding.bind_input(*_memory(port.name, memory))
            copied.append((memory, place))
    outputs = [port.zeros(batch) for port in interface.outputs]
    for port, memory in zip(interface.outputs, outputs, strict=True):
        binding.bind_output(*_memory(port.name, memory))

    def call(inputs: list[Array]) -> list[Array]:
        for memory, place in copied:
            memory[...] = inputs[place]
        for name, place in bound_anew:
            binding.bind_cpu_input(name, inputs[place])
        execute(binding)
        return [memory.copy() for memory in outputs]

    return call


def _memory(name: str, memory: Array) -> tuple[Any, ...]:
    return name, "cpu", 0, memory.dtype.type, memory.shape, memory.ctypes.data


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
