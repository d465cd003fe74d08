"""``rayprune record``: a policy's episodes as offline data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import (
    AsJson,
    Checkpoint,
    Debug,
    load_rllib,
    require_checkpoint,
    tell,
)


def record(
    checkpoint: Checkpoint,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="A new folder for the data.", show_default=False)
    ],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to record.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the environment and actions.")] = 50_000,
    explore: Annotated[bool, typer.Option(help="Draw actions as in training.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Record a policy's episodes, for BC and CQL to learn from.

    Example: rayprune record runs/ppo_cartpole --out data/cartpole --episodes 50
    """
    checkpoint = require_checkpoint(checkpoint)
    load_rllib()
    from rayprune.rllib.commands.record import record_episodes

    result = record_episodes(checkpoint, out, episodes=episodes, seed=seed, explore=explore)
    if not as_json:
        tell(
            f"{episodes} episodes, {result['env_steps']:,} steps, mean return "
            f"{result['returns']['mean']:.1f}: {out}"
        )
    return result
