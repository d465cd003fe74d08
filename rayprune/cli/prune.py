"""``rayprune prune``: prune a trained policy in one shot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rayprune.cli import completion
from rayprune.cli.options import (
    Address,
    AsJson,
    Checkpoint,
    Debug,
    Overrides,
    load_rllib,
    require_checkpoint,
    tell,
)
from rayprune.errors import ConfigError

if TYPE_CHECKING:
    from rayprune.pruning.config import PruningConfig


def prune(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pruned checkpoint goes.")],
    sparsity: Annotated[
        float | None, typer.Option(help="Fraction of weights to prune.", show_default=False)
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            help="See `rayprune list criteria`; default: l1.", autocompletion=completion.criteria
        ),
    ] = None,
    granularity: Annotated[
        str | None, typer.Option(help="See `rayprune list granularities`; default: weight.")
    ] = None,
    distribution: Annotated[
        str | None, typer.Option(help="See `rayprune list distributions`; default: uniform.")
    ] = None,
    overrides: Overrides = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes before and after.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 20_000,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Prune a checkpoint in one shot, RLlib's own too, and measure it before and after.

    With a recipe, or pruning.remedies.reconstruct=true, what is left makes up for the cut.

    Example: rayprune prune runs/dense --out runs/pruned --sparsity 0.9 --set
    pruning.recipe=recommended
    """
    named = {
        "sparsity": sparsity,
        "criterion": criterion,
        "granularity": granularity,
        "distribution": distribution,
    }
    pruning = pruning_config(
        {key: value for key, value in named.items() if value is not None}, overrides or ()
    )
    checkpoint = require_checkpoint(checkpoint)
    load_rllib()
    from rayprune.cli.printing.tables import summary_table
    from rayprune.rllib.commands.prune import prune_checkpoint

    result: dict[str, Any] = prune_checkpoint(
        checkpoint, pruning, out, episodes=episodes, seed=seed, address=address
    )
    if not as_json:
        checkpoint_line = f"Checkpoint     {out / str(result['checkpoint'])}"
        tell(summary_table(result, "before", "after"), checkpoint_line)
    return result


_TARGETS: Final = frozenset({"recipe", "sparsity", "threshold"})
"""Keys that say how much is pruned."""


def pruning_config(named: dict[str, Any], overrides: Sequence[str]) -> PruningConfig:
    """Return the config that the options and ``--set pruning.*`` give, the latter on top."""
    from rayprune import yaml12
    from rayprune.pruning.config import PruningConfig

    raw: dict[str, Any] = {"pruning": named}
    faults = yaml12.apply_overrides(raw, overrides)
    others = sorted(raw.keys() - {"pruning"})
    faults += [f"`{key}` can't be set here: only `pruning.*` can." for key in others]
    held = raw["pruning"]
    if isinstance(held, dict) and not held.keys() & _TARGETS:
        faults += [
            "`--sparsity` is missing: give a fraction, such as 0.5, or a threshold by "
            "`--set pruning.threshold.absolute=0.01`."
        ]
    else:
        faults += PruningConfig.faults_of(held, prefix="pruning.")
    if faults:
        raise ConfigError(faults)
    return PruningConfig.from_dict(held)
