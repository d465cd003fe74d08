"""`export_policy`: a policy to a file that is checked before it gets its name."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from rayprune.deploy.export.int8 import quantise
from rayprune.deploy.export.placing import cannot_write, place, require_writable
from rayprune.deploy.export.shrink import Shrunk, shrink, unshrunk
from rayprune.deploy.formats import LANES, WRITERS, Order, Written
from rayprune.deploy.formats.c.selftest import EXAMPLES, Examples
from rayprune.deploy.policy.artifact import SUFFIXES, open_artifact
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.metadata import SCHEMA, Metadata, rayprune_version
from rayprune.deploy.policy.odd_inputs import odd_cases, odd_inputs, poisonous, prove_odd
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import explained, module_run, proven, random_inputs
from rayprune.deploy.policy.seal import seal
from rayprune.deploy.policy.sensors import described
from rayprune.errors import InputError, InvariantError, StorageError

RANDOM_OBSERVATIONS: Final = 1000


def export_policy(
    policy: DeployablePolicy,
    path: Path,
    format: str,  # noqa: A002  # the word that the command line and the certificate use
    *,
    recorded: list[Array],
    about: Mapping[str, Any],
    compacted: bool = True,
    lanes: int | None = None,
    quantised: bool = False,
    name: str | None = None,
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
        about: what the file shall say of its source; JSON only. ``inputs`` may hold ``names``,
            ``low`` and ``high`` of an input's elements, as `described` gives them.
        compacted: remove dead units first, exactly.
        lanes: of formats ``c`` and ``onnx``: floats in a vector register of the machine that the
            file is for, one of `LANES`; None for 8 in C, and for this machine's in ONNX. None where
            ``quantised``.
        quantised: of format ``onnx``: int8 on top, which then only comes close.
        name: of format ``c``: what all that the file defines begins with, for programs that hold
            several policies; None for the file's name.
        seed: of the random inputs.
        overwrite: replace files that are there.

    Returns:
        The certificate.

    Raises:
        InputError: the policy can't be exported so, or float32 rounds it too much to tell.
        InvariantError: the file doesn't compute what the policy computes.
        StorageError: a file is in the way, or can't be written.
    """
    check_path(path, format, overwrite=overwrite)
    if lanes is not None and lanes not in LANES:
        raise InputError(f"`lanes` must be one of {list(LANES)}, but is {lanes}.")
    if lanes is not None and (format == "torch" or quantised):
        kind = "int8" if quantised else f"format {format!r}"
        raise InputError(f"`lanes` changes nothing in a file of {kind}. Leave it out.")
    if quantised and format != "onnx":
        raise InputError(f"`--int8` is for `--format onnx`, but the format is {format!r}.")
    check_name(name, format)
    _check_types(policy)
    plain = plain_copy(policy)
    small = shrink(plain, recorded) if compacted else unshrunk(plain)
    inputs = {
        "recorded": recorded,
        "random": random_inputs(policy.interface, recorded, RANDOM_OBSERVATIONS, seed),
    }
    about = {**about, "inputs": described(policy.interface, recorded, about.get("inputs", {}))}
    if quantised:
        about["int8"] = True
    # The format is told by the name's end, which is to be the same while it is unproven.
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        order = Order(
            policy=small.policy,
            metadata=Metadata(small.policy.interface, about),
            name=name or path.stem,
            examples=_examples(small, plain, recorded, seed),
            lanes=lanes,
            rounds=quantised,
        )
        written = WRITERS[format](order, temporary)
        seal(temporary)
        found = _equivalence(small, plain, temporary, inputs) if written.testable else {}
        rounded = {"int8": quantise(temporary, small.inputs(recorded))} if quantised else {}
        content = seal(temporary)
        odd = _odd(small, temporary, recorded, seed) if written.testable else {}
        certificate = {
            "schema": SCHEMA,
            "rayprune": rayprune_version(),
            "artifact": path.name,
            "format": format,
            "bytes": temporary.stat().st_size,
            "sha256": hashlib.sha256(temporary.read_bytes()).hexdigest(),
            "content_sha256": content,
            "beside": {
                path.with_suffix(end).name: hashlib.sha256(text.encode()).hexdigest()
                for end, text in written.beside.items()
            },
            "proven": written.testable,
            "interface": small.policy.interface.to_dict(),
            "about": about,
            "parameters": _parameters(plain, written.captured),
            "compaction": small.certificate,
            "equivalence": found,
            "nan_and_infinity": odd,
            **written.certificate,
            **rounded,
        }
        _place(temporary, path, written, certificate)
    except InvariantError as error:
        raise explained(error, plain, inputs.values()) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return certificate


def _check_types(policy: DeployablePolicy) -> None:
    for name, parameter in policy.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise InputError(
                f"Exported policies take and give float32, but {name!r} is {parameter.dtype}. "
                "Convert the policy's network with `.float()` first."
            )


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
    require_writable(path.parent, path.name)
    files = [path, certificate_path(path), *([path.with_suffix(".h")] if format == "c" else [])]
    folders = [file for file in files if file.is_dir()]
    if folders:
        raise StorageError(f"{str(folders[0])!r} is a folder. Give another `--out`.")
    taken = [file for file in files if file.exists()]
    if taken and not overwrite:
        raise StorageError(
            f"{str(taken[0])!r} exists. Give another `--out`, or `--overwrite` to replace it."
        )


def check_name(name: str | None, format: str) -> None:  # noqa: A002
    """Refuse a name that C doesn't take, or that another format has no use for.

    Raises:
        InputError: says why.
    """
    if name is None:
        return
    if format != "c":
        raise InputError(f"`--name` is for `--format c`, but the format is {format!r}.")
    if not name.isascii() or not name.isidentifier():
        raise InputError(
            f"`--name` must be a name in C (letters, digits, _; no digit first), but is {name!r}."
        )


def certificate_path(path: Path) -> Path:
    """Return where the certificate of an exported file lies.

    >>> certificate_path(Path("policy.onnx")).name
    'policy.onnx.json'
    """
    return path.with_name(f"{path.name}.json")


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


def _examples(small: Shrunk, plain: DeployablePolicy, recorded: list[Array], seed: int) -> Examples:
    """Return recorded inputs, the outputs expected of them, and what has to give NaN alone."""
    some = small.grounded([x[:EXAMPLES] for x in recorded])
    inputs, outputs = small.inputs(some), small.outputs(module_run(plain)(some))
    cases = odd_cases(small.policy.interface, seed)
    made = module_run(small.policy)(odd_inputs(inputs, cases))
    return Examples(inputs, outputs, list(itertools.compress(cases, poisonous(made))))


def _equivalence(
    small: Shrunk, plain: DeployablePolicy, path: Path, inputs: Mapping[str, list[Array]]
) -> dict[str, Any]:
    artifact = open_artifact(path)
    expected = module_run(plain)
    return {
        name: proven(small, expected, artifact.run, given, name).to_dict()
        for name, given in inputs.items()
    }


def _odd(small: Shrunk, path: Path, recorded: list[Array], seed: int) -> dict[str, Any]:
    given = small.inputs(small.grounded([x[:1] for x in recorded]))
    return prove_odd(small.policy, open_artifact(path).run, given, seed)


def _place(temporary: Path, path: Path, written: Written, certificate: Mapping[str, Any]) -> None:
    # Whoever finds the file finds its certificate.
    told = json.dumps(certificate, indent=2) + "\n"
    beside = {path.with_suffix(end): text.encode() for end, text in written.beside.items()}
    place({certificate_path(path): told.encode(), **beside, path: temporary})
