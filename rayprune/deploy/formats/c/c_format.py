"""`CFormat`: what export, opening and the command line know of generated C files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from rayprune.deploy.formats.base import ExportedFile, ExportJob, ExportOptions, Format
from rayprune.deploy.formats.c.compiler import CArtifact, metadata_text
from rayprune.deploy.formats.c.lowering.lower import lower
from rayprune.deploy.formats.c.writer import write_c
from rayprune.deploy.formats.rewriting.batch_norms import fold_batch_norms
from rayprune.deploy.formats.rewriting.channels_last import read_as_it_lies
from rayprune.deploy.formats.rewriting.graphs import rewritten
from rayprune.deploy.formats.rewriting.plain_operators import in_plain_operators
from rayprune.deploy.policy.capture import capture
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import InputError


class CFormat(Format):
    """One ``.c`` file with its header, without a library beneath it."""

    name, label, suffix = "c", "C", ".c"
    beside = (".h",)
    options = frozenset({"lanes", "name", "int8"})
    whole_numbers = True
    unproven = "It is UNPROVEN: there was no C compiler to run it with when it was exported."

    def check(self, options: ExportOptions) -> None:
        """Refuse a name that C doesn't take."""
        name = options.name
        if name is not None and not (name.isascii() and name.isidentifier()):
            raise InputError(
                f"`--name` must be a name in C (letters, digits, _; no digit first), but is "
                f"{name!r}."
            )

    def check_policy(self, policy: DeployablePolicy) -> None:
        """See `Format.check_policy`."""
        lower(_for_c(capture(policy, batch=1)), policy.interface, None)

    def write(self, job: ExportJob, path: Path) -> ExportedFile:
        """See `Format.write`."""
        captured = capture(job.policy, batch=1)
        graph = _for_c(captured)
        source, told = write_c(graph, path, job.metadata, job.name, job.examples, job.options.lanes)
        tested = told["self_test"]["passed"] is not None
        return ExportedFile(captured, told, {".h": source.header}, testable=tested)

    def open(self, path: Path, threads: int = 1) -> CArtifact:
        """See `Format.open`."""
        return CArtifact(path)

    def runtime(self, metadata: Metadata) -> Mapping[str, Any]:
        """See `Format.runtime`."""
        name = metadata.about["c_name"]
        return {"name": "C99", "function": f"{name}_act_in", "workspace": f"{name}_workspace"}

    def metadata_text(self, path: Path) -> str | None:
        """See `Format.metadata_text`."""
        return metadata_text(path)


def _for_c(captured: ExportedProgram) -> ExportedProgram:
    # Writing operators out turns those batch norms that are left into another operator.
    folded = rewritten(captured, fold_batch_norms)
    return rewritten(in_plain_operators(folded), read_as_it_lies)
