"""``rayprune export``: a checkpoint's policy as one file that runs without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import (
    AsJson,
    Checkpoint,
    Debug,
    Episodes,
    load_rllib,
    require_checkpoint,
    tell,
)
from rayprune.deploy.formats import FORMATS, check_name, format_named


def export(
    checkpoint: Checkpoint,
    format: Annotated[  # noqa: A002  # it is the option's name
        str, typer.Option(metavar="|".join(FORMATS), help="Which kind of file.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file; default: `policy` with the format's ending."),
    ] = None,
    sample: Annotated[
        bool, typer.Option(help="Draw actions, with noise as an input; else the greedy ones.")
    ] = False,
    compact: Annotated[bool, typer.Option(help="Remove dead units first, exactly.")] = True,
    lanes: Annotated[
        int | None,
        typer.Option(
            metavar="4|8|16",
            help="For c and onnx: floats in a vector register of the machine that the file is for. "
            "Default: 8 for c, and what this machine has for onnx.",
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="For c: whole numbers throughout, of a policy trained with `quantise`, or of any "
            "other by its recorded observations. For onnx: int8 weights on top; refused if that is "
            "slower.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="For onnx with --int8: take it though it is slower.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            help="For c: what all that the file defines begins with; default: the file's name. "
            "Give one where a program holds several policies.",
            show_default=False,
        ),
    ] = None,
    episodes: Episodes = None,
    unproven: Annotated[
        bool,
        typer.Option(
            "--unproven",
            help="For c: exit with 0 although there is no C compiler to prove the file with.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Export a policy, observation in, action out, and prove the file on recorded observations.

    Without a C compiler a C file is written unproven, which it says, and the exit code is 1.

    Example: rayprune export runs/ppo_cartpole --format onnx --out policy.onnx
    """
    check_name(format)
    checkpoint = require_checkpoint(checkpoint)
    load_rllib()
    from rayprune.cli.printing.export_lines import export_lines
    from rayprune.rllib.commands.export import export_checkpoint

    result: dict[str, Any] = export_checkpoint(
        checkpoint,
        out or Path(f"policy{format_named(format).suffix}"),
        format,
        sample=sample,
        compacted=compact,
        lanes=lanes,
        quantised=int8,
        forced=force,
        name=name,
        episodes=episodes,
        overwrite=overwrite,
    )
    if not as_json:
        tell(*export_lines(result))
    return {**result, "exit_code": 0 if result["proven"] or unproven else 1}
