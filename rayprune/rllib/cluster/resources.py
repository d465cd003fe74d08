"""Resolves `auto`, and refuses at once what the cluster can't give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune import PlacementGroupFactory

from rayprune.errors import ResourceError

AUTO: Final = "auto"
"""As many GPUs a Learner as the cluster has for it, one or none."""
_COUNTED: Final = ("CPU", "GPU")
"""The resources that RLlib has settings of their own for."""


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

    A local Learner would fail with an assertion deep inside RLlib, a remote one or an EnvRunner
    would wait for ever without a word. The CPU of the algorithm's own process is not counted: a
    driver reserves none, and a trial's is counted with its whole placement.
    """
    needed = request(config)
    needed["CPU"] = needed.get("CPU", 0) - placement_group(config).bundles[0].get("CPU", 0)
    there = ray.cluster_resources() if there is None else there
    for kind in sorted(needed, key=lambda kind: (kind != "GPU", kind)):
        if needed[kind] > there.get(kind, 0):
            what = f"{kind}s" if kind in _COUNTED else f"of the resource {kind!r}"
            raise ResourceError(
                f"`rllib` asks for {_number(needed[kind])} {what} "
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
    learners = max(config.num_learners, 1)
    if kind in _COUNTED:
        key = f"num_{kind.lower()}s_per"
        of_learner = getattr(config, f"{key}_learner")
        of_runner = getattr(config, f"{key}_env_runner")
    else:
        key = "custom_resources_per"
        of_learner = (config.custom_resources_per_learner or {}).get(kind, 0)
        of_runner = config.custom_resources_per_env_runner.get(kind, 0)
    return (
        f"{learners} Learner(s) with `{key}_learner` {of_learner}, "
        f"{config.num_env_runners} EnvRunner(s) with `{key}_env_runner` {of_runner}"
    )


def _way_out(kind: str) -> str:
    if kind == "GPU":
        return "Set `rllib.learners.num_gpus_per_learner` to `auto` or 0, or use --address."
    if kind == "CPU":
        return "Lower `num_env_runners` or `num_learners`, or use --address."
    return f"Start nodes with `ray start --resources '{{\"{kind}\": ...}}'`, or use --address."


def _number(amount: float) -> str:
    return f"{amount:g}"


def learner_gpus(rllib: Mapping[str, Mapping[str, Any]]) -> object:
    """Return what a YAML's `rllib` block says of GPUs per Learner; `auto` if it says nothing."""
    return rllib.get("learners", {}).get("num_gpus_per_learner", AUTO)
