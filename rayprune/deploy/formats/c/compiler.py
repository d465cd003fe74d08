"""Compiling generated C: for its self-test, and to run it from Python."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from rayprune.deploy.formats.c.source_file import MARK
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.interface import Array, Interface, Port
from rayprune.deploy.policy.metadata import Metadata
from rayprune.errors import InputError

_FLAGS: Final = (
    ("-O3", "-march=native", "-ffp-contract=fast", "-fno-trapping-math"),
    ("-O3", "-mcpu=native", "-ffp-contract=fast", "-fno-trapping-math"),
    ("-O2",),
)
"""Tried in this order: which of the first two a compiler takes depends on the processor."""
_PATIENCE: Final = 600


def find_compiler() -> str | None:
    """Return the C compiler: what ``CC`` names, or the first found of cc, gcc and clang."""
    return next(
        filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))), None
    )


def compile_c(source: Path, out: Path, *options: str) -> list[str]:
    """Compile a generated file; return the command that did it.

    Raises:
        InputError: there is no compiler, or it fails.
    """
    found = find_compiler()
    if found is None:
        raise InputError(
            "There is no C compiler: none of $CC, cc, gcc and clang was found. Install one, or "
            "export the policy as `.onnx` or `.pt2`."
        )
    told = ""
    for flags in _FLAGS:
        command = [found, *flags, *options, str(source), "-o", str(out), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
        if done.returncode == 0:
            return command
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        told = errors[0] if errors else "it gives no reason"
    raise InputError(f"{found} can't compile {source.name}: {told}")


def run_self_test(source: Path) -> dict[str, Any]:
    """Compile a file's self-test and run it, for this machine and as if it had no vectors.

    What came of it goes into the certificate. Without a compiler it says that nothing was tested.
    """
    if find_compiler() is None:
        return {"passed": None, "why": "no C compiler was found (cc, gcc, clang): not tested"}
    here, plain = _tested(source), _tested(source, "-DPOLICY_PLAIN", "-O1")
    failed = plain if here["passed"] else here
    return {
        **here,
        "passed": here["passed"] and plain["passed"],
        "said": failed["said"] if not failed["passed"] else here["said"],
        "without_vectors": {key: plain[key] for key in ("passed", "flags", "said")},
    }


def _tested(source: Path, *options: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "test"
        given = ("-std=c99", "-DPOLICY_SELFTEST", *_own_flags(source), *options)
        command = compile_c(source, program, *given)
        done = subprocess.run([program], capture_output=True, text=True, timeout=_PATIENCE)
    flags = [part for part in command[1:] if part.startswith("-")]
    return {
        "passed": done.returncode == 0,
        "compiler": Path(command[0]).name,
        "flags": [flag for flag in flags if flag != "-o"],
        "said": done.stdout.strip() or f"it ended with {done.returncode}",
    }


def metadata_text(path: Path) -> str | None:
    """Return the JSON that a generated file holds of itself, None if there is none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().rstrip()
    return first.removeprefix(MARK).removesuffix(" */") if first.startswith(MARK) else None


def _own_flags(path: Path) -> list[str]:
    """Return what a file wants besides: one of whole numbers equals its model to the bit."""
    about = Metadata.from_json(metadata_text(path), path).about
    return ["-ffp-contract=off"] if about.get("int8") else []


class CArtifact(Artifact):
    """A policy in C, compiled for this machine when it is opened.

    Args:
        path: a generated ``.c`` file.

    Raises:
        InputError: it isn't one, or there is no compiler.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, Metadata.from_json(metadata_text(path), path))
        # Kept for as long as the library is loaded.
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        library = Path(folder) / "policy.so"
        self.command = compile_c(path, library, "-shared", "-fPIC", *_own_flags(path))
        loaded = ctypes.CDLL(str(library))
        self.function: Any = loaded[f"{self.metadata.about['c_name']}_act_many"]
        self.function.restype = None
        self._given = [_type(port) for port in self.interface.inputs]

    def run(self, inputs: list[Array]) -> list[Array]:
        """Run the compiled function; see `Artifact.run`.

        Raises:
            InputError: an observation needs more than 32 bits.
        """
        require_32_bits(self.interface, inputs)
        batch = len(inputs[0])
        given = _as(inputs, self._given)
        made = [np.empty((batch, *port.shape), _type(port)) for port in self.interface.outputs]
        self.function(batch, *(ctypes.c_void_p(array.ctypes.data) for array in [*given, *made]))
        return _as(made, [np.dtype(port.dtype) for port in self.interface.outputs])


def require_32_bits(interface: Interface, inputs: Sequence[Array]) -> None:
    """Refuse whole numbers that a C file would take for others.

    Raises:
        InputError: names the input.
    """
    for port, array in zip(interface.inputs, inputs, strict=True):
        # What is of 64 bits in Python is of 32 in C.
        if port.dtype == "int64" and array.size:
            ends = int(array.min()), int(array.max())
            odd = [end for end in ends if not -(2**31) <= end < 2**31]
            if odd:
                raise InputError(
                    f"`{port.name}` must hold whole numbers of 32 bits, as C files have them, but "
                    f"holds {odd[0]:,}. Export with `--format onnx`, or wrap the environment so "
                    "that it gives smaller ones."
                )


def _type(port: Port) -> np.dtype[Any]:
    return np.dtype("int32" if port.dtype == "int64" else port.dtype)


def _as(arrays: Sequence[Array], types: Sequence[np.dtype[Any]]) -> list[Array]:
    pairs = zip(arrays, types, strict=True)
    return [np.ascontiguousarray(array, dtype=kind) for array, kind in pairs]
