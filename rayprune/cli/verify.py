"""``rayprune verify``: is an exported file what was exported?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import AsJson, Debug, tell


def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An exported file.", show_default=False)
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Check an exported file against the hash that it holds, and against its certificate.

    Exit code 0: it is what was exported. 1: it has changed, or its certificate is of another file.
    2: there is no such file, or it isn't one of rayprune's.

    Example: rayprune verify policy.onnx
    """
    from rayprune.deploy.export.verify import verify as run

    result = run(file)
    if not as_json:
        tell(*verify_lines(result))
    return {**result, "exit_code": 0 if result["whole"] else 1}


def verify_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a person reads, the verdict first."""
    yield f"{'Whole' if result['whole'] else 'CHANGED':<15}{result['file']}"
    for fault in result["faults"]:
        yield f"{'':15}{fault}"
    yield f"{'SHA-256':<15}{result['sha256']}"
    about = result["about"] or {}
    if result["exported_by"]:
        yield f"{'Exported by':<15}rayprune {result['exported_by']}"
    for key, name in (("checkpoint", "Checkpoint"), ("env", "Environment"), ("action", "Actions")):
        if about.get(key):
            yield f"{name:<15}{about[key]}"
    for note in result["notes"]:
        yield f"{'Note':<15}{note}"
