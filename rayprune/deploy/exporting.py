"""`export_policy`: a policy to a file that is checked before it gets its name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.export import ExportedProgram

from rayprune.deploy.artifact import SUFFIXES, open_artifact
from rayprune.deploy.capture import capture, plain_copy
from rayprune.deploy.checking import TOLERANCE, Agreement, agreement
from rayprune.deploy.interface import Array, Interface, Port
from rayprune.deploy.metadata import Metadata
from rayprune.deploy.onnx_file import write_onnx
from rayprune.deploy.policy import DeployablePolicy
from rayprune.deploy.shrinking import Shrunk, shrink, unshrunk
from rayprune.deploy.torch_file import write_torch
from rayprune.errors import InputError, InvariantError, StorageError

RANDOM_OBSERVATIONS: Final = 1000
_AT_ONCE: Final = 256
Run = Callable[[list[Array]], list[Array]]
Writer = Callable[[ExportedProgram, Path, Metadata], None]
WRITERS: Final[Mapping[str, Writer]] = {"onnx": write_onnx, "torch": write_torch}
"""Format -> what writes a captured policy."""


def export_policy(
    policy: DeployablePolicy,
    path: Path,
    format: str,  # noqa: A002  # the word that the command line and the certificate use
    *,
    recorded: list[Array],
    about: Mapping[str, Any],
    compacted: bool = True,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a policy to ``path``, and what was proven of the file to ``<path>.json``.

    The file is opened and run before it gets its name: on the recorded inputs, and on random ones
    of their spread. If an output differs by more than `TOLERANCE`, nothing is written.

    Args:
        policy: masked or not; left as it is.
        path: its name ends as `SUFFIXES` says.
        format: a key of `WRITERS`.
        recorded: the policy's inputs as they were met, in the interface's order.
        about: what the file shall say of its source; JSON only.
        compacted: remove dead units first, exactly.
        seed: of the random inputs.
        overwrite: replace files that are there.

    Returns:
        The certificate.

    Raises:
        InputError: the policy can't be exported so.
        InvariantError: the file doesn't compute what the policy computes.
        StorageError: a file is in the way, or can't be written.
    """
    check_path(path, format, overwrite=overwrite)
    plain = plain_copy(policy)
    small = shrink(plain, recorded) if compacted else unshrunk(plain)
    metadata = Metadata(small.policy.interface, about)
    inputs = {
        "recorded": recorded,
        "random": random_inputs(policy.interface, recorded, RANDOM_OBSERVATIONS, seed),
    }
    captured = capture(small.policy)
    # The format is told by the name's end, which is to be the same while it is unproven.
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        WRITERS[format](captured, temporary, metadata)
        artifact = open_artifact(temporary)
        proven = {
            name: _proven(small, module_run(plain), artifact.run, given, name)
            for name, given in inputs.items()
        }
        certificate = {
            "schema": 1,
            "artifact": path.name,
            "format": format,
            "bytes": temporary.stat().st_size,
            "sha256": hashlib.sha256(temporary.read_bytes()).hexdigest(),
            "interface": small.policy.interface.to_dict(),
            "about": {**about},
            "parameters": _parameters(plain, captured),
            "compaction": small.certificate,
            "equivalence": {name: found.to_dict() for name, found in proven.items()},
        }
        _place(temporary, path, certificate)
    except OSError as error:
        raise StorageError(f"{str(path)!r} can't be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return certificate


def check_path(path: Path, format: str, *, overwrite: bool) -> None:  # noqa: A002
    """Refuse a place that an export can't be written to, before any work is done.

    Raises:
        InputError: the name's end isn't the format's.
        StorageError: a file is in the way, or there is no such folder.
    """
    if path.suffix != SUFFIXES[format]:
        raise InputError(
            f"The name of a file of format {format!r} must end in {SUFFIXES[format]!r}, "
            f"but is {path.name!r}."
        )
    if not path.parent.is_dir():
        raise StorageError(f"There is no folder {str(path.parent)!r} to write {path.name!r} to.")
    taken = [file for file in (path, certificate_path(path)) if file.exists()]
    if taken and not overwrite:
        raise StorageError(
            f"{str(taken[0])!r} exists. Give another `--out`, or `--overwrite` to replace it."
        )


def certificate_path(path: Path) -> Path:
    """Return where the certificate of an exported file lies.

    >>> certificate_path(Path("policy.onnx")).name
    'policy.onnx.json'
    """
    return path.with_name(f"{path.name}.json")


def random_inputs(
    interface: Interface, recorded: Sequence[Array], count: int, seed: int
) -> list[Array]:
    """Return random inputs of the recorded ones' spread, three standard deviations wide.

    Whole numbers are drawn from those recorded, each entry by itself; noise from what it has to be.
    """
    draw = np.random.default_rng(seed)
    return [
        _noise(interface, count, draw)
        if port == interface.noise
        else _like(port, values, count, draw)
        for port, values in zip(interface.inputs, recorded, strict=True)
    ]


def draw_noise(interface: Interface, count: int, seed: int) -> list[Array]:
    """Return the noise that ``count`` sampled actions want; an empty list for greedy ones."""
    if interface.noise is None:
        return []
    return [_noise(interface, count, np.random.default_rng(seed))]


def module_run(module: torch.nn.Module) -> Run:
    """Return what runs a policy on arrays, as `Artifact.run` does."""

    def run(inputs: list[Array]) -> list[Array]:
        with torch.inference_mode():
            return [x.numpy() for x in module(*(torch.from_numpy(given) for given in inputs))]

    return run


def _proven(small: Shrunk, expected: Run, got: Run, inputs: list[Array], name: str) -> Agreement:
    """Compare a file's outputs with those of the policy that was to be exported, masked as it was.

    Raises:
        InvariantError: they differ.
    """
    interface = small.policy.interface
    wanted = small.outputs(_in_parts(expected, inputs))
    had = _in_parts(got, small.inputs(inputs))
    noise = None
    if interface.noise_kind == "gumbel":
        noise = wanted[1] + inputs[len(interface.observations)]
    found = agreement(interface, wanted, had, noise)
    if not found.holds:
        raise InvariantError(
            f"The exported file doesn't compute what the policy does: on {found.observations} "
            f"{name} observations `{found.worst}` differs by {found.max_error:.2e} (allowed: "
            f"{TOLERANCE:.0e}), and {found.differing_actions} action(s) differ. Nothing was "
            "written. Please report it with the checkpoint."
        )
    return found


def _in_parts(run: Run, inputs: Sequence[Array]) -> list[Array]:
    count = len(inputs[0])
    parts = [run([x[i : i + _AT_ONCE] for x in inputs]) for i in range(0, count, _AT_ONCE)]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _like(port: Port, values: Array, count: int, draw: np.random.Generator) -> Array:
    if np.issubdtype(values.dtype, np.integer):
        flat = values.reshape(len(values), -1)
        rows = draw.integers(len(flat), size=(count, flat.shape[1]))
        return np.take_along_axis(flat, rows, axis=0).reshape(count, *port.shape)
    mean, std = values.mean(axis=0), values.std(axis=0)
    spread = draw.standard_normal((count, *port.shape))
    wide: Array = (mean + 3.0 * std * spread).astype(port.dtype)
    return wide


def _noise(interface: Interface, count: int, draw: np.random.Generator) -> Array:
    assert interface.noise is not None
    shape = (count, *interface.noise.shape)
    drawn = draw.gumbel(size=shape) if interface.noise_kind == "gumbel" else draw.normal(size=shape)
    return drawn.astype(np.float32)


def _parameters(masked: torch.nn.Module, exported: ExportedProgram) -> dict[str, int]:
    """Count what was masked, critics and whatever else it holds included, and what is exported."""
    given, kept = list(masked.parameters()), list(exported.parameters())
    weights = [parameter for parameter in kept if parameter.dim() > 1]
    return {
        "given": sum(parameter.numel() for parameter in given),
        "given_zero_weights": sum(int((x == 0).sum()) for x in given if x.dim() > 1),
        "total": sum(parameter.numel() for parameter in kept),
        "weights": sum(weight.numel() for weight in weights),
        "zero_weights": sum(int((weight == 0).sum()) for weight in weights),
    }


def _place(temporary: Path, path: Path, certificate: Mapping[str, Any]) -> None:
    # Whoever finds the file finds its certificate.
    certificate_path(path).write_text(json.dumps(certificate, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
