"""Connects to Ray, resolves `auto`, and refuses at once what the cluster can't give."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune import PlacementGroupFactory

from rayprune.errors import ResourceError
from rayprune.rllib.experiment import AUTO

LOCAL: Final = "local"
PATIENCE_S: Final = 5.0
"""How long a cluster may take to accept a connection."""


def connect(address: str | None, config: AlgorithmConfig) -> bool:
    """Connect to Ray; return whether this call started or joined it, and so should leave it.

    Args:
        address: a cluster's address, ``"local"`` for an own Ray, or None for ``RAY_ADDRESS`` where
            that is set (a job has it) and an own Ray otherwise: whatever cluster happens to run on
            this machine is never joined by accident.
        config: the algorithm that will run; an own Ray declares as many CPUs as it asks for.

    Raises:
        ResourceError: no Ray answers at the address.
    """
    if ray.is_initialized():
        return False
    where = address or os.environ.get("RAY_ADDRESS") or LOCAL
    _check_answers(where)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if where == LOCAL:
            # One thread an actor: several torch processes on few cores fight for them otherwise.
            os.environ.setdefault("OMP_NUM_THREADS", "1")
            cpus = max(os.cpu_count() or 1, int(request(config).get("CPU", 1)))
            ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **quiet)
        else:
            ray.init(address=where, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(where, str(error).splitlines()[0]) from error
    _protect_token()
    return True


def _check_answers(where: str) -> None:
    """Raise ResourceError if nothing listens there: Ray itself would try for minutes."""
    parts = urlsplit(where if "://" in where else f"ray://{where}")
    try:
        if parts.hostname is None or parts.port is None:
            return
        socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_S).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(where, str(error)) from error


def _no_cluster(where: str, reason: str) -> ResourceError:
    return ResourceError(
        f"No Ray cluster answers at {where!r}: {reason.rstrip('.')}. Start one with "
        "`ray start --head`, or leave `--address` out to run on this machine."
    )


def resolve_gpus(config: AlgorithmConfig, asked: object) -> AlgorithmConfig:
    """Return ``config`` with GPUs for its Learners as asked for, ``auto`` resolved.

    Args:
        config: the algorithm.
        asked: `rllib.learners.num_gpus_per_learner`: a number, ``"auto"`` or None.

    `auto` takes one GPU per Learner where the cluster has that many, and none otherwise.
    """
    if asked != AUTO:
        return config
    needed = max(config.num_learners, 1)
    there = ray.cluster_resources().get("GPU", 0) >= needed
    return config.learners(num_gpus_per_learner=1 if there else 0)


def check_resources(config: AlgorithmConfig) -> None:
    """Raise ResourceError if the cluster can't hold what ``config`` asks for.

    A local Learner would fail with an assertion deep inside RLlib, a remote one would wait for
    ever without a word.
    """
    needed, there = request(config), ray.cluster_resources()
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


def _protect_token() -> None:
    """Ray writes its authentication token for everybody to read."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    with contextlib.suppress(OSError):
        path.chmod(0o600)


def learner_gpus(rllib: Mapping[str, Mapping[str, Any]]) -> object:
    """Return what a YAML's `rllib` block says of GPUs per Learner; `auto` if it says nothing."""
    return rllib.get("learners", {}).get("num_gpus_per_learner", AUTO)
