"""``rayprune evaluate``: measure a checkpoint again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rayprune.cli.options import (
    Address,
    AsJson,
    Checkpoint,
    Debug,
    Episodes,
    person,
    quiet_rllib,
    require_checkpoint,
    require_rllib,
)


def evaluate(
    checkpoint: Checkpoint,
    episodes: Episodes = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the first episode; default: the run's own seeds."),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint; by default on the run's own validation and test seeds.

    Example: rayprune evaluate runs/demo/checkpoints/best --episodes 100 --seed 30000
    """
    require_checkpoint(checkpoint)
    require_rllib()
    quiet_rllib()
    from rayprune.cli.tables import evaluation_table
    from rayprune.rllib.evaluate_checkpoint import evaluate_checkpoint

    result: dict[str, Any] = evaluate_checkpoint(
        checkpoint, episodes=episodes, seed=seed, address=address
    )
    if not as_json:
        person().print(evaluation_table(result, str(checkpoint)))
    return result
