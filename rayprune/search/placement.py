"""Whether and how often a trial fits on the cluster, told before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.errors import ResourceError
from rayprune.rllib.resources import check_resources, placement_group
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


def place(config: AlgorithmConfig, search: SearchConfig, trials: int) -> Placement:
    """Work out a trial's resources and count how many fit on the cluster that Ray is on.

    Args:
        config: of a trial, its GPUs resolved.
        search: `resources` may ask for more than RLlib does.
        trials: how many there are.

    Raises:
        ResourceError: not even one fits, or `search.resources` is less than RLlib asks for.
    """
    check_resources(config)
    factory = placement_group(config)
    bundles = _enlarged([dict(bundle) for bundle in factory.bundles], search)
    needed = _total(bundles)
    there = {kind: ray.cluster_resources().get(kind, 0.0) for kind in {**needed, "CPU": 0}}
    at_once = _fits(bundles)
    text = f"A trial needs {_listed(needed)}; the cluster has {_listed(there)}"
    if at_once == 0:
        raise ResourceError(
            f"{text} on {len(_nodes())} node(s), so that none fits. Lower `search.resources`, "
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


def _fits(bundles: list[dict[str, float]]) -> int:
    """Count the trials that fit, packed greedily: a bundle never spans two nodes."""
    free = _nodes()
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


def _nodes() -> list[dict[str, float]]:
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _total(bundles: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for bundle in bundles:
        for kind, amount in bundle.items():
            total[kind] = total.get(kind, 0) + amount
    return {kind: amount for kind, amount in total.items() if amount}


def _listed(amounts: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {kind}" for kind, amount in sorted(amounts.items()))
