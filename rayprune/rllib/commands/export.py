"""``rayprune export``: a checkpoint's policy as one file that runs without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayprune.deploy.export.export import check_export, write_policy
from rayprune.deploy.formats.base import ExportOptions
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import module_run
from rayprune.pruning.quantisation.quantiser import told_layers
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.export.policy import deployable
from rayprune.rllib.export.recorded import Recorded
from rayprune.rllib.export.source import source_of


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    format: str,  # noqa: A002  # as `export_policy` calls it
    *,
    sample: bool = False,
    compacted: bool = True,
    lanes: int | None = None,
    quantised: bool = False,
    forced: bool = False,
    name: str | None = None,
    episodes: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a checkpoint's policy, and prove the file on the policy's own observations.

    Those are recorded from greedy episodes on the experiment's validation seeds.

    Args:
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.
        out: the file.
        format: a key of `rayprune.deploy.formats.FORMATS`.
        compacted: remove dead units first, exactly.
        lanes: as `export_policy` takes it.
        quantised: as `export_policy` takes it.
        forced: likewise.
        name: as `export_policy` takes it.
        sample: the file draws actions with noise that it is given; else it acts greedily.
        episodes: how many to record; None for as many as the experiment evaluates with.
        overwrite: replace files that are there.

    Returns:
        The certificate, with the checkpoint it is of.

    Raises:
        InputError: no checkpoint, or a policy that can't be exported; says what is in the way.
        InvariantError: the file doesn't compute what the policy does. Nothing was written.
    """
    options = ExportOptions(lanes=lanes, int8=quantised, forced=forced, name=name)
    chosen = check_export(out, format, options, overwrite=overwrite)
    with OpenPolicy.at(checkpoint) as opened:
        # Before episodes are played: a policy that can't be exported is refused at once.
        rounding = told_layers(opened.evaluator.module)
        greedy = policy = plain_copy(deployable(opened.evaluator))
        if quantised and chosen.whole_numbers:
            # Not a plain copy, which rounds nothing that layers read.
            policy = deployable(opened.evaluator, sample=sample)
        elif sample:
            policy = plain_copy(deployable(opened.evaluator, sample=True))
        first, count = opened.evaluation.validation_seed, episodes or opened.evaluation.episodes
        recorded = Recorded(greedy.interface)
        opened.evaluator.returns(first, count, recorded.watch)
        about = {
            **source_of(opened, sample=sample),
            "recorded": {"first_seed": first, "episodes": count, "greedy": True},
            **_as_rllib(recorded, greedy, rounding),
        }
    inputs = recorded.inputs(policy.interface)
    certificate = write_policy(
        policy, out, chosen, options, recorded=inputs, about=about, compacted=compacted
    )
    return {"out": str(out), "checkpoint": about["checkpoint"], **certificate}


def _as_rllib(
    recorded: Recorded, greedy: DeployablePolicy, rounding: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a file says of what the policy did in RLlib; one that rounds only comes near."""
    if not rounding:
        return {"as_rllib": recorded.proven(module_run(greedy)).to_dict()}
    return {"as_rllib": recorded.near(module_run(greedy)), "trained_quantised": rounding}
