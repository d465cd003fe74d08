"""Format ``c``, from a policy to its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from torch.export import ExportedProgram

from rayprune.deploy.c.compiling import run_self_test
from rayprune.deploy.c.lowering import lower
from rayprune.deploy.c.program import c_name
from rayprune.deploy.c.source import Source, write_source
from rayprune.deploy.interface import Array
from rayprune.deploy.metadata import Metadata
from rayprune.errors import InputError, InvariantError

LANES: Final = (4, 8, 16)
"""Floats in a vector register: 4 of SSE and NEON, 8 of AVX2, 16 of AVX-512."""


def write_c(
    captured: ExportedProgram,
    path: Path,
    metadata: Metadata,
    name: str,
    examples: Sequence[Sequence[Array]],
    lanes: int,
) -> tuple[Source, dict[str, Any]]:
    """Write a policy as a C file, and run its self-test where there is a compiler.

    Args:
        captured: a policy, at batch 1.
        path: the file.
        metadata: goes into a comment.
        name: what the file will be called, without its end; the functions' names begin with it.
        examples: the self-test's inputs and the outputs expected of them.
        lanes: one of `LANES`.

    Returns:
        The texts, and what the certificate says of them.

    Raises:
        InputError: an operator isn't supported.
        InvariantError: the self-test fails.
    """
    if lanes not in LANES:
        raise InputError(f"`lanes` must be one of {list(LANES)}, but is {lanes}.")
    name = c_name(name)
    program = lower(captured, metadata.interface, lanes)
    told = Metadata(metadata.interface, {**metadata.about, "c_name": name})
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
        "working_memory_bytes": sum(4 * size for _, _, size in program.buffers),
    }
