"""``rayprune export``: a checkpoint's policy as one file that runs without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayprune.cli import completion
from rayprune.cli.options import (
    ActionSpace,
    AsJson,
    Debug,
    Env,
    EnvConfig,
    Episodes,
    Normalise,
    ObservationSpace,
    Trust,
    foreign_options,
    load_rllib,
    require_checkpoint,
    tell,
)
from rayprune.deploy.formats import FORMATS, check_name, format_named, suffixes
from rayprune.errors import InputError

if TYPE_CHECKING:
    from rayprune.policies.foreign_policy import ForeignOptions


def export(
    policy: Annotated[
        Path,
        typer.Argument(
            metavar="POLICY",
            help="A checkpoint or run (directory or URL), a Stable-Baselines3 zip, or a module of "
            "your own: nets.py:make, nets.py:make@weights.pt.",
            show_default=False,
        ),
    ],
    format: Annotated[  # noqa: A002  # it is the option's name
        str | None,
        typer.Option(
            metavar="|".join(FORMATS),
            help=f"Which kind of file: {', '.join(FORMATS)}. Default: by how `--out` ends.",
            show_default=False,
            autocompletion=completion.formats,
        ),
    ] = None,
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
    env: Env = None,
    env_config: EnvConfig = None,
    normalise: Normalise = None,
    observation_space: ObservationSpace = None,
    action_space: ActionSpace = None,
    trust: Trust = False,
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

    Example: rayprune export runs/ppo_cartpole --out policy.onnx
    Example: rayprune export ppo.zip --env CartPole-v1 --format c --out policy.c
    """
    chosen = _chosen(format, out)
    source = foreign_options(
        [policy],
        env=env,
        env_config=env_config,
        normalise=normalise,
        observation_space=observation_space,
        action_space=action_space,
        trust=trust,
    )
    asked = {
        "sample": sample,
        "compacted": compact,
        "lanes": lanes,
        "quantised": int8,
        "forced": force,
        "name": name,
        "episodes": episodes,
        "overwrite": overwrite,
    }
    place = out or Path(f"policy{format_named(chosen).suffix}")
    result = _exported(policy, source, {"out": place, "format": chosen, **asked})
    from rayprune.cli.printing.export_lines import export_lines

    if not as_json:
        tell(*export_lines(result))
    return {**result, "exit_code": 0 if result["proven"] or unproven else 1}


def _chosen(name: str | None, out: Path | None) -> str:
    """Return the format that is asked for, by its name or by how the file's name ends.

    Raises:
        InputError: neither tells.
    """
    if name is not None:
        check_name(name)
        return name
    if out is None:
        raise InputError(
            f"`--format` is missing: give one of {sorted(FORMATS)}, or `--out` a file whose name "
            "ends as one of theirs, such as policy.onnx."
        )
    known = suffixes()
    if out.suffix not in known:
        raise InputError(
            f"`--format` is missing, and `--out` {str(out)!r} tells none: its name must end in one "
            f"of {sorted(known)}. Give `--format`, one of {sorted(FORMATS)}."
        )
    return known[out.suffix]


def _exported(policy: Path, source: ForeignOptions | None, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the certificate of a checkpoint's policy, or of one from elsewhere."""
    if source is not None:
        from rayprune.deploy.export.export import ExportRequest
        from rayprune.policies.export import export_foreign

        return export_foreign(policy, source, ExportRequest(**asked))
    checkpoint = require_checkpoint(policy)
    load_rllib()
    from rayprune.deploy.export.export import ExportRequest
    from rayprune.rllib.commands.export import export_checkpoint

    result: dict[str, Any] = export_checkpoint(checkpoint, ExportRequest(**asked))
    return result
