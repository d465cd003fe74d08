"""Resolves `auto`, and refuses at once what the cluster can't give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune import PlacementGroupFactory

from rayprune.errors import ResourceError
from rayprune.rllib.experiment import AUTO


def resolve_gpus(
    config: AlgorithmConfig, asked: object, there: Mapping[str, float] | None = None
) -> AlgorithmConfig:
    """Return ``config`` with GPUs for its Learners as asked for, ``auto`` resolved.

    Args:
        config: the algorithm.
        asked: `rllib.learners.num_gpus_per_learner`: a number, ``"auto"`` or None.
        there: all resources of a cluster; None for those of the one that Ray is on.

    `auto` takes one GPU per Learner where the cluster has that many, and none otherwise.
    """
    if asked != AUTO:
        return config
    needed = max(config.num_learners, 1)
    gpus = (ray.cluster_resources() if there is None else there).get("GPU", 0)
    return config.learners(num_gpus_per_learner=1 if gpus >= needed else 0)


def check_resources(config: AlgorithmConfig, there: Mapping[str, float] | None = None) -> None:
    """Raise ResourceError if the cluster can't hold what ``config`` asks for.

    Args:
        config: the algorithm, its GPUs resolved.
        there: all resources of a cluster; None for those of the one that Ray is on.

    A local Learner would fail with an assertion deep inside RLlib, a remote one would wait for
    ever without a word.
    """
    needed = request(config)
    there = ray.cluster_resources() if there is None else there
    for kind in ("GPU", "CPU"):
        if needed.get(kind, 0) > there.get(kind, 0):
            raise ResourceError(
                f"`rllib` asks for {_number(needed[kind])} {kind}s "
                f"({_shares(config, kind)}), but the cluster has "
                f"{_number(there.get(kind, 0))}. {_way_out(kind)}"
            )


def placement_group(config: AlgorithmConfig) -> PlacementGroupFactory:
    """Return what one run of ``config`` reserves on the cluster, as RLlib asks for it."""
    algorithm: Any = type(config)().algo_class
    factory: PlacementGroupFactory = algorithm.default_resource_request(config)
    return factory


def request(config: AlgorithmConfig) -> dict[str, float]:
    """Return the CPUs and GPUs that one run of ``config`` holds, by Ray's resource names."""
    total: dict[str, float] = {}
    for bundle in placement_group(config).bundles:
        for kind, amount in bundle.items():
            total[kind] = total.get(kind, 0) + amount
    return total


def _shares(config: AlgorithmConfig, kind: str) -> str:
    plural = kind.lower() + "s"
    learners = max(config.num_learners, 1)
    per_learner = getattr(config, f"num_{plural}_per_learner")
    per_runner = getattr(config, f"num_{plural}_per_env_runner")
    return (
        f"{learners} Learner(s) with `num_{plural}_per_learner` {per_learner}, "
        f"{config.num_env_runners} EnvRunner(s) with `num_{plural}_per_env_runner` {per_runner}"
    )


def _way_out(kind: str) -> str:
    if kind == "GPU":
        return "Set `rllib.learners.num_gpus_per_learner` to `auto` or 0, or use --address."
    return "Lower `num_env_runners` or `num_learners`, or use --address."


def _number(amount: float) -> str:
    return f"{amount:g}"


def learner_gpus(rllib: Mapping[str, Mapping[str, Any]]) -> object:
    """Return what a YAML's `rllib` block says of GPUs per Learner; `auto` if it says nothing."""
    return rllib.get("learners", {}).get("num_gpus_per_learner", AUTO)
