"""Whether and how often a trial fits on the cluster, told before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.errors import ResourceError
from rayprune.rllib.cluster.resources import check_resources, placement_group
from rayprune.search.config import SearchConfig

NAMES = {"CPU": "cpu", "GPU": "gpu"}
"""Ray's resource -> key of `search.resources`."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What one trial reserves, and how many fit at once."""

    bundles: tuple[dict[str, float], ...]
    strategy: str
    at_once: int
    text: str
    """All of it in a sentence."""

    def factory(self) -> tune.PlacementGroupFactory:
        """Return it as Tune wants it."""
        return tune.PlacementGroupFactory(list(self.bundles), strategy=self.strategy)


def place(
    config: AlgorithmConfig,
    search: SearchConfig,
    trials: int,
    nodes: Sequence[Mapping[str, float]] | None = None,
) -> Placement:
    """Work out a trial's resources and count how many fit on a cluster.

    Args:
        config: of a trial, its GPUs resolved.
        search: `resources` may ask for more than RLlib does.
        trials: how many there are.
        nodes: what each node has; None for those of the cluster that Ray is on.

    Raises:
        ResourceError: not even one fits, or `search.resources` is less than RLlib asks for.
    """
    nodes = present_nodes() if nodes is None else nodes
    has = total(nodes)
    check_resources(config, has)
    factory = placement_group(config)
    bundles = _enlarged([dict(bundle) for bundle in factory.bundles], search)
    needed = total(bundles)
    there = {kind: has.get(kind, 0.0) for kind in {**needed, "CPU": 0}}
    at_once = _fits(bundles, nodes)
    text = f"A trial needs {listed(needed)}; the cluster has {listed(there)}"
    if at_once == 0:
        raise ResourceError(
            f"{text} on {len(nodes)} node(s), so that none fits. Lower `search.resources`, "
            "`num_env_runners` or `num_learners`, or use --address."
        )
    at_once = min(at_once, trials)
    text = f"{text}: {at_once} of {trials} run at once."
    return Placement(tuple(bundles), factory.strategy, at_once, text)


def _enlarged(bundles: list[dict[str, float]], search: SearchConfig) -> list[dict[str, float]]:
    for kind, name in NAMES.items():
        given = (search.resources or {}).get(name)
        if given is None:
            continue
        needed = sum(bundle.get(kind, 0) for bundle in bundles)
        if given < needed:
            raise ResourceError(
                f"`search.resources.{name}` must be at least {needed:g}, which RLlib asks for, "
                f"but is {given:g}: the trial would be killed. Raise it, or leave it out."
            )
        if given > needed:
            bundles[0][kind] = bundles[0].get(kind, 0) + given - needed
    return bundles


def _fits(bundles: list[dict[str, float]], nodes: Sequence[Mapping[str, float]]) -> int:
    """Count the trials that fit, packed greedily: a bundle never spans two nodes."""
    free = [dict(node) for node in nodes]
    count = 0
    while count < 10_000 and all(_take(bundle, free) for bundle in bundles):
        count += 1
    return count


def _take(bundle: dict[str, float], free: list[dict[str, float]]) -> bool:
    for node in free:
        if all(node.get(kind, 0) + 1e-9 >= amount for kind, amount in bundle.items()):
            for kind, amount in bundle.items():
                node[kind] = node.get(kind, 0) - amount
            return True
    return False


def present_nodes() -> list[dict[str, float]]:
    """Return what each living node of the cluster that Ray is on has."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def total(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of bundles, or of nodes, by kind of resource."""
    summed: dict[str, float] = {}
    for part in parts:
        for kind, amount in part.items():
            summed[kind] = summed.get(kind, 0) + amount
    return {kind: amount for kind, amount in summed.items() if amount}


def listed(amounts: Mapping[str, float]) -> str:
    """Return ``2 CPU, 1 GPU``."""
    return ", ".join(f"{amount:g} {kind}" for kind, amount in sorted(amounts.items()))
