"""``rayprune evaluate``: measure a checkpoint again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import (
    Address,
    AsJson,
    Checkpoint,
    Debug,
    Episodes,
    load_rllib,
    require_checkpoint,
    tell,
)
from rayprune.storage.copies import shown


def evaluate(
    checkpoint: Checkpoint,
    episodes: Episodes = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the first episode; default: the run's own seeds."),
    ] = None,
    dense: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="A dense checkpoint to compare with: agreement, KL and value error on its states.",
        ),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint; by default on the run's own validation and test seeds.

    Example: rayprune evaluate runs/demo/checkpoints/best --episodes 100 --seed 30000
    """
    checkpoint = require_checkpoint(checkpoint)
    if dense is not None:
        dense = require_checkpoint(dense)
    load_rllib()
    from rayprune.cli.printing.tables import closeness_line, evaluation_table, sensor_lines
    from rayprune.rllib.commands.evaluate import evaluate_checkpoint

    result: dict[str, Any] = evaluate_checkpoint(
        checkpoint, episodes=episodes, seed=seed, address=address, dense=dense
    )
    if not as_json:
        close = [closeness_line(result["closeness"])] if "closeness" in result else []
        tell(evaluation_table(result, shown(checkpoint)), *close, *sensor_lines(result))
    return result
