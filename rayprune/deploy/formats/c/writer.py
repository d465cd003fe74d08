"""Format ``c``, from a policy to its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from rayprune.deploy.formats.base import Examples
from rayprune.deploy.formats.c import compiler
from rayprune.deploy.formats.c.compiler import run_self_test
from rayprune.deploy.formats.c.lowering.lower import lower
from rayprune.deploy.formats.c.program import c_name
from rayprune.deploy.formats.c.source_file import Source, write_source
from rayprune.deploy.formats.c.workspace import workspace_bytes
from rayprune.deploy.policy.interface import Interface
from rayprune.deploy.policy.metadata import Metadata
from rayprune.errors import InputError, InvariantError


def write_c(
    captured: ExportedProgram,
    path: Path,
    metadata: Metadata,
    name: str,
    examples: Examples,
    lanes: int | None,
) -> tuple[Source, dict[str, Any]]:
    """Write a policy as a C file, and run its self-test where there is a compiler.

    Args:
        captured: a policy, at batch 1.
        path: the file.
        metadata: goes into a comment.
        name: what all that the file defines begins with, as far as C takes it.
        examples: the self-test's.
        lanes: floats in a vector register: 4, 8 or 16; None leaves it to the compiler.

    Returns:
        The texts, and what the certificate says of them.

    Raises:
        InputError: an operator isn't supported, two ports would have one name, or an observation
            needs more than 32 bits.
        InvariantError: the self-test fails.
    """
    name = c_name(name)
    _refuse_one_name_for_two(metadata.interface)
    compiler.require_32_bits(metadata.interface, examples.inputs)
    program = lower(captured, metadata.interface, lanes)
    proven = compiler.find_compiler() is not None
    told = Metadata(metadata.interface, {**metadata.about, "c_name": name}, proven)
    source = write_source(program, told, name, examples)
    path.write_text(source.code, encoding="utf-8")
    tested = run_self_test(path)
    if tested["passed"] is False:
        raise InvariantError(
            f"The C file's self-test fails: {tested['said']}. Nothing was written. Please report "
            "it with the checkpoint."
        )
    return source, {
        "self_test": tested,
        "lanes": lanes,
        "layouts": program.layouts,
        "working_memory_bytes": workspace_bytes(program),
    }


def _refuse_one_name_for_two(ports: Interface) -> None:
    taken: dict[str, str] = {}
    for port in (*ports.inputs, *ports.outputs):
        # In capitals, as the header's sizes are.
        other = taken.setdefault(c_name(port.name).upper(), port.name)
        if other != port.name:
            raise InputError(
                f"`{other}` and `{port.name}` can't be told apart by their names in C. Rename one "
                "in the observation space (gymnasium.wrappers.TransformObservation), or take "
                "`--format onnx`."
            )
