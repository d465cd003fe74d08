"""A pruned policy beside its dense reference: closeness, and what shifts cost both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.rllib.evaluation.closeness import closeness
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import config_of
from rayprune.statistics.intervals import gap_difference, paired_gap, summarise

Policy = tuple[AlgorithmConfig, Path]
"""A config, and a checkpoint of it."""


def dense_policy(directory: Path, like: AlgorithmConfig) -> Policy:
    """Return a dense reference in another policy's environment, whatever its own was.

    Returns of two tasks don't compare.

    Args:
        directory: the reference's checkpoint.
        like: the config whose environment is taken.
    """
    config = config_of(directory).environment(like.env, env_config=dict(like.env_config))
    return config, directory


def returns_of(policy: Policy, first_seed: int, episodes: int) -> list[float]:
    """Return the return of each episode of a checkpoint's policy."""
    config, checkpoint = policy
    evaluator = Evaluator(config)
    try:
        evaluator.load_checkpoint(checkpoint)
        return evaluator.returns(first_seed, episodes)
    finally:
        evaluator.close()


def measure_closeness(
    policy: Policy, dense: Policy, first_seed: int, episodes: int
) -> dict[str, Any]:
    """Return `closeness.closeness`'s dict of two checkpoints."""
    ours, theirs = Evaluator(policy[0], whole=True), Evaluator(dense[0], whole=True)
    try:
        ours.load_checkpoint(policy[1])
        theirs.load_checkpoint(dense[1])
        return closeness(theirs, ours, first_seed, episodes)
    finally:
        ours.close()
        theirs.close()


def measure_shifts(
    policy: Policy,
    dense: Policy | None,
    shifts: Sequence[Mapping[str, Any]],
    first_seed: int,
    unshifted: Sequence[float],
) -> list[dict[str, Any]]:
    """Measure generalisation: the same seeds in variants of the environment.

    Args:
        policy: the one that the summary is about.
        dense: its reference, if there is one.
        shifts: variants of ``env_config``.
        first_seed: of the test episodes.
        unshifted: the policy's returns there without a shift; as many are played.

    Returns:
        Per shift its ``env_config``, `summarise`'s figures, and ``gap``: by how much the IQM is
        lower than without the shift, by a paired bootstrap over the common seeds. ``dense`` has
        the same of the dense policy, and ``gap_over_dense`` says how much larger the pruned
        policy's gap is than the dense one's; both None without a dense reference.
    """
    if not shifts:
        return []
    episodes = len(unshifted)
    base = None if dense is None else returns_of(dense, first_seed, episodes)
    told = []
    for shift in shifts:
        returns = returns_of(_shifted(policy, shift), first_seed, episodes)
        entry = {"env_config": dict(shift), **_with_gap(unshifted, returns)}
        entry.update(dense=None, gap_over_dense=None)
        if dense is not None and base is not None:
            theirs = returns_of(_shifted(dense, shift), first_seed, episodes)
            entry["dense"] = _with_gap(base, theirs)
            entry["gap_over_dense"] = gap_difference((unshifted, returns), (base, theirs))
        told.append(entry)
    return told


def _with_gap(unshifted: Sequence[float], returns: Sequence[float]) -> dict[str, Any]:
    return {**summarise(returns), "gap": paired_gap(unshifted, returns)}


def _shifted(policy: Policy, shift: Mapping[str, Any]) -> Policy:
    config = policy[0].copy(copy_frozen=False)
    config.environment(env_config={**policy[0].env_config, **shift})
    return config, policy[1]
