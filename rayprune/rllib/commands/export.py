"""``rayprune export``: a checkpoint's policy as one file that runs without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayprune.deploy.export.export import ExportRequest
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import module_run
from rayprune.pruning.quantisation.quantiser import told_layers
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.export.policy import deployable
from rayprune.rllib.export.recorded import Recorded
from rayprune.rllib.export.source import source_of


def export_checkpoint(checkpoint: Path, asked: ExportRequest) -> dict[str, Any]:
    """Export a checkpoint's policy, and prove the file on the policy's own observations.

    Those are recorded from greedy episodes on the experiment's validation seeds.

    Args:
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.
        asked: the file.

    Returns:
        The certificate, with the checkpoint it is of.

    Raises:
        InputError: no checkpoint, or a policy that can't be exported; says what is in the way.
        InvariantError: the file doesn't compute what the policy does. Nothing was written.
    """
    chosen = asked.check()
    with OpenPolicy.at(checkpoint) as opened:
        # Before episodes are played: a policy that can't be exported is refused at once.
        rounding = told_layers(opened.evaluator.module)
        greedy = policy = plain_copy(deployable(opened.evaluator))
        if asked.rounds(chosen):
            # Not a plain copy, which rounds nothing that layers read.
            policy = deployable(opened.evaluator, sample=asked.sample)
        elif asked.sample:
            policy = plain_copy(deployable(opened.evaluator, sample=True))
        first = opened.evaluation.validation_seed
        count = asked.episodes or opened.evaluation.episodes
        recorded = Recorded(greedy.interface)
        opened.evaluator.returns(first, count, recorded.watch)
        about = {
            **source_of(opened, sample=asked.sample),
            "recorded": {"first_seed": first, "episodes": count, "greedy": True},
            **_as_rllib(recorded, greedy, rounding),
        }
    return asked.write(policy, chosen, recorded.inputs(policy.interface), about)


def _as_rllib(
    recorded: Recorded, greedy: DeployablePolicy, rounding: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a file says of what the policy did in RLlib; one that rounds only comes near."""
    if not rounding:
        return {"as_rllib": recorded.proven(module_run(greedy)).to_dict()}
    return {"as_rllib": recorded.near(module_run(greedy)), "trained_quantised": rounding}
