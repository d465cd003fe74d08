"""A pruned policy beside its dense reference: closeness, and what shifts cost both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.rllib.evaluation.closeness import closeness
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.experiment.algorithm_config import settings_of
from rayprune.statistics.intervals import gap_difference, paired_gap, summarise


def dense_policy(checkpoint: Path, like: AlgorithmConfig) -> OpenPolicy:
    """Return a dense reference in another policy's environment, whatever its own was.

    Returns of two tasks don't compare.

    Args:
        checkpoint: the reference's, or its run's directory.
        like: the config whose environment is taken.
    """
    held = settings_of(checkpoint)
    config = held.config.environment(like.env, env_config=dict(like.env_config))
    return OpenPolicy(config, held.directory)


def measure_closeness(
    policy: OpenPolicy, dense: OpenPolicy, first_seed: int, episodes: int
) -> dict[str, Any]:
    """Return `closeness.closeness`'s dict of two policies."""
    return closeness(dense.whole, policy.whole, first_seed, episodes)


def measure_shifts(
    policy: OpenPolicy,
    dense: OpenPolicy | None,
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
    base = None if dense is None else dense.returns(first_seed, episodes)
    told = []
    for shift in shifts:
        returns = _shifted_returns(policy, shift, first_seed, episodes)
        entry = {"env_config": dict(shift), **_with_gap(unshifted, returns)}
        entry.update(dense=None, gap_over_dense=None)
        if dense is not None and base is not None:
            theirs = _shifted_returns(dense, shift, first_seed, episodes)
            entry["dense"] = _with_gap(base, theirs)
            entry["gap_over_dense"] = gap_difference((unshifted, returns), (base, theirs))
        told.append(entry)
    return told


def _with_gap(unshifted: Sequence[float], returns: Sequence[float]) -> dict[str, Any]:
    return {**summarise(returns), "gap": paired_gap(unshifted, returns)}


def _shifted_returns(
    policy: OpenPolicy, shift: Mapping[str, Any], first_seed: int, episodes: int
) -> list[float]:
    with policy.shifted(shift) as shifted:
        return shifted.returns(first_seed, episodes)
