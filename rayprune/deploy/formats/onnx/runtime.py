"""An ONNX file, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, TypeAlias

from rayprune.deploy.formats.onnx.packages import SESSION, require
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.metadata import KEY, Metadata
from rayprune.errors import InputError


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
        options.inter_op_num_threads = SESSION["inter_op_num_threads"]
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
