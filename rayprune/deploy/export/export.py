"""`ExportRequest`, `export_policy`: a policy to a file that is checked before it gets its name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rayprune.deploy.export.certificate import certificate_path, file_facts, policy_facts
from rayprune.deploy.export.file_placement import cannot_write, place, require_writable
from rayprune.deploy.export.file_proof import FileProof
from rayprune.deploy.export.manifest import manifest, manifest_path
from rayprune.deploy.export.quantisation import quantise
from rayprune.deploy.export.shrink import shrink, unshrunk
from rayprune.deploy.export.whole_numbers import prove_bits, told_of
from rayprune.deploy.formats import check_options, format_named, metadata_of, open_artifact
from rayprune.deploy.formats.base import ExportedFile, ExportJob, ExportOptions, Format
from rayprune.deploy.integer.policy import Quantised, integer_policy
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.element_facts import described
from rayprune.deploy.policy.file_hash import seal
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.metadata import SCHEMA, Metadata, rayprune_version
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import in_parts, module_run
from rayprune.errors import InputError, InvariantError, StorageError


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A file that a policy is to be exported to."""

    out: Path
    """The file."""
    format: str
    """A key of `rayprune.deploy.formats.FORMATS`."""
    sample: bool = False
    """Whether it draws actions with noise that it is given; else it acts greedily."""
    compacted: bool = True
    """Whether dead units are removed first, exactly."""
    lanes: int | None = None
    """As `export_policy` takes it."""
    quantised: bool = False
    """Likewise."""
    forced: bool = False
    """Likewise."""
    name: str | None = None
    """Likewise."""
    episodes: int | None = None
    """How many are recorded; None for as many as the policy is evaluated with."""
    overwrite: bool = False
    """Whether files that are there are replaced."""

    @property
    def options(self) -> ExportOptions:
        """What the format is asked for."""
        return ExportOptions(
            lanes=self.lanes, int8=self.quantised, forced=self.forced, name=self.name
        )

    def check(self) -> Format:
        """Return the format; refuse place and options before any work is done.

        Raises:
            InputError: see `check_export`.
        """
        return check_export(self.out, self.format, self.options, overwrite=self.overwrite)

    def rounds(self, chosen: Format) -> bool:
        """Whether the file will hold whole numbers: it is made of no `plain_copy` then."""
        return chosen.whole_numbers and self.quantised

    def write(
        self,
        policy: DeployablePolicy,
        chosen: Format,
        recorded: list[Array],
        about: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write the file, proven; return its certificate, with where the policy lies.

        Args:
            policy: a `plain_copy` unless the file `rounds`.
            chosen: what `check` returned.
            recorded: the policy's inputs as they were met.
            about: what the file says of its source; its ``checkpoint`` among it.

        Raises:
            InputError: the policy can't be exported so.
            InvariantError: the file doesn't compute what the policy does. Nothing was written.
        """
        certificate = write_policy(
            policy,
            self.out,
            chosen,
            self.options,
            recorded=recorded,
            about=about,
            compacted=self.compacted,
        )
        return {"out": str(self.out), "checkpoint": about["checkpoint"], **certificate}


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
    forced: bool = False,
    name: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a policy to ``path``, and what was proven of the file to ``<path>.json``.

    What a program needs to load it goes to ``<path>.manifest.json``.

    The file is opened and run before it gets its name: on the recorded inputs, and on random ones
    of their spread. If an output differs by more than `TOLERANCE`, nothing is written.

    Args:
        policy: masked or not; left as it is.
        path: its name ends as the format says.
        format: a key of `rayprune.deploy.formats.FORMATS`.
        recorded: the policy's inputs as they were met, in the interface's order.
        about: what the file shall say of its source; JSON only. ``inputs`` and ``outputs`` may hold
            ``names``, ``low`` and ``high`` of a port's elements, as `described` gives them.
        compacted: remove dead units first, exactly.
        lanes: of formats ``c`` and ``onnx``: floats in a vector register of the machine that the
            file is for, 4, 8 or 16; None for 8 in C, and for this machine's in ONNX. None where
            ``quantised``.
        quantised: of format ``onnx``: int8 on top, which then only comes close, and is refused if
            it is slower. Of format ``c``: whole numbers throughout, of a policy that was trained so
            or is calibrated on the recorded inputs; the file equals their model to the bit.
        forced: of format ``onnx``: take int8 though it is slower.
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
    options = ExportOptions(lanes=lanes, int8=quantised, forced=forced, name=name)
    chosen = check_export(path, format, options, overwrite=overwrite)
    return write_policy(
        policy if chosen.whole_numbers and options.int8 else plain_copy(policy),
        path,
        chosen,
        options,
        recorded=recorded,
        about=about,
        compacted=compacted,
        seed=seed,
    )


def write_policy(
    policy: DeployablePolicy,
    path: Path,
    chosen: Format,
    options: ExportOptions,
    *,
    recorded: list[Array],
    about: Mapping[str, Any],
    compacted: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Do what `export_policy` does, once `check_export` has allowed it.

    Args:
        policy: a `plain_copy`; where the file will hold whole numbers, not one.
        path: as there.
        chosen: what `check_export` returned.
        options: what it was given.
        recorded: as in `export_policy`.
        about: likewise.
        compacted: likewise.
        seed: likewise.
    """
    _check_types(policy)
    exact, whole = policy, None
    if options.int8 and chosen.whole_numbers:
        whole = integer_policy(policy, recorded, compacted=compacted)
        exact, policy = plain_copy(exact), whole.policy
    small = shrink(policy, recorded) if compacted and whole is None else unshrunk(policy)
    if whole is not None:
        small.certificate["removed"] = whole.removed
    proof = FileProof(policy, small, recorded, seed)
    told = {**about, **_elements(policy, recorded, about)}
    metadata = Metadata(small.policy.interface, {**told, "int8": True} if options.int8 else told)
    # The format is told by the name's end, which is to be the same while it is unproven.
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        job = ExportJob(
            small.policy, metadata, options.name or path.stem, proof.examples(), options
        )
        written, content, shown = _written(chosen, job, proof, small.inputs(recorded), temporary)
        runnable = temporary if written.testable else None
        certificate = {
            "schema": SCHEMA,
            "rayprune": rayprune_version(),
            "artifact": path.name,
            "format": chosen.name,
            **file_facts(path, temporary, content, written),
            **policy_facts(exact, metadata, written),
            "compaction": small.certificate,
            **shown,
            **(_whole_numbers(whole, exact, runnable, recorded, seed) if whole else {}),
        }
        told = manifest(path, chosen, metadata_of(temporary), certificate, written.beside)
        _place(temporary, path, written, certificate, told)
    except InvariantError as error:
        raise proof.explained(error) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return certificate


def _elements(
    policy: DeployablePolicy, recorded: list[Array], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is known of the elements of observations and actions."""
    ports, actions = policy.interface, in_parts(module_run(policy), recorded)[0]
    observed = recorded[: len(ports.observations)]
    return {
        "inputs": described(ports.observations, observed, about.get("inputs", {})),
        "outputs": described((ports.action,), (actions,), about.get("outputs", {})),
    }


def check_export(
    path: Path,
    format: str,  # noqa: A002
    options: ExportOptions,
    *,
    overwrite: bool,
) -> Format:
    """Refuse a place that an export can't be written to, and options, before any work is done.

    Returns:
        The format.

    Raises:
        InputError: the name's end isn't the format's, or it doesn't take the options.
        StorageError: a file is in the way, or there is no such folder.
    """
    chosen = format_named(format)
    _check_path(path, chosen, overwrite=overwrite)
    check_options(chosen, options)
    return chosen


def _written(
    chosen: Format, job: ExportJob, proof: FileProof, recorded: list[Array], file: Path
) -> tuple[ExportedFile, str, dict[str, Any]]:
    """Write a file and prove it; return its content's hash, and what the certificate says of it."""
    written = chosen.write(job, file)
    content = seal(file)
    equivalence = proof.equivalence(file) if written.testable else {}
    rounded: dict[str, Any] = {}
    if job.options.int8 and not chosen.whole_numbers:
        content, rounded["int8"] = quantise(file, recorded, forced=job.options.forced)
    odd = proof.nan_and_infinity(file) if written.testable else {}
    shown = {"equivalence": equivalence, "nan_and_infinity": odd}
    return written, content, {**shown, **written.certificate, **rounded}


def _whole_numbers(
    whole: Quantised,
    exact: DeployablePolicy,
    file: Path | None,
    recorded: list[Array],
    seed: int,
) -> dict[str, Any]:
    """Prove a file to the bit, if it can be run here; return what its certificate says of it."""
    told = told_of(whole, exact, recorded)
    if file is not None:
        told["equal_to_the_bit"] = prove_bits(whole.policy, open_artifact(file), recorded, seed)
    return {"whole_numbers": told}


def _check_types(policy: DeployablePolicy) -> None:
    for name, parameter in policy.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise InputError(
                f"Exported policies take and give float32, but {name!r} is {parameter.dtype}. "
                "Convert the policy's network with `.float()` first."
            )


def _check_path(path: Path, chosen: Format, *, overwrite: bool) -> None:
    if path.suffix != chosen.suffix:
        raise InputError(
            f"The name of a file of format {chosen.name!r} must end in {chosen.suffix!r}, "
            f"but is {path.name!r}."
        )
    require_writable(path.parent, path.name)
    told = (certificate_path(path), manifest_path(path))
    files = [path, *told, *(path.with_suffix(end) for end in chosen.beside)]
    folders = [file for file in files if file.is_dir()]
    if folders:
        raise StorageError(f"{str(folders[0])!r} is a folder. Give another `--out`.")
    taken = [file for file in files if file.exists()]
    if taken and not overwrite:
        raise StorageError(
            f"{str(taken[0])!r} exists. Give another `--out`, or `--overwrite` to replace it."
        )


def _place(
    temporary: Path,
    path: Path,
    written: ExportedFile,
    certificate: Mapping[str, Any],
    told: Mapping[str, Any],
) -> None:
    texts = {certificate_path(path): certificate, manifest_path(path): told}
    beside = {path.with_suffix(end): text.encode() for end, text in written.beside.items()}
    # Whoever finds the file finds its certificate.
    json_files = {at: f"{json.dumps(held, indent=2)}\n".encode() for at, held in texts.items()}
    place({**json_files, **beside, path: temporary})
