"""One network whose layers are pruned alone and put back, and what each costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity import granularity_of
from rayprune.pruning.layers.attach import maskable_layers
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.pruner import LayerCount, Pruner
from rayprune.rllib.algorithms.target_networks import target_networks
from rayprune.rllib.evaluation.closeness import Seen, differences
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.evaluation.visited_states import VisitedStates
from rayprune.rllib.modules.groups import group_of
from rayprune.rllib.modules.heads import heads_of
from rayprune.statistics.intervals import paired_gap, summarise

_CLOSE: Final = ("agreement", "action_difference", "kl", "value_rmse")


class LayerScan:
    """A checkpoint's network, whose weights are swapped for each point and put back.

    Args:
        policy: the checkpoint's; the caller closes it.
        pruning: from sparsities by layer to the config that prunes these layers and no others.
        first_seed: of the episodes.
        episodes: how many for each point.
    """

    def __init__(
        self,
        policy: OpenPolicy,
        pruning: Callable[[Mapping[str, float]], PruningConfig],
        first_seed: int,
        episodes: int,
    ) -> None:
        self._evaluator, self._pruning = policy.whole, pruning
        self._first_seed, self._episodes = first_seed, episodes
        module = self._evaluator.module
        self._targets = target_networks(module)
        self._heads = heads_of(module, self._targets)
        self._weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        self._masks = policy.saved.pruner
        pruner = self._pruned({})
        self.sparsity_now = pruner.sparsity()
        """Of the prunable weights."""
        self.layers = [layer for layer in pruner.layer_counts() if not layer.exempt]
        """What may be pruned."""
        self.units = self._counted()
        """What a layer's sparsity counts: weights, or units."""

    def play(self) -> None:
        """Play the unpruned policy's episodes, whose returns and states all points are seen by."""
        self._recording = VisitedStates()
        self._returns = self._evaluator.returns(
            self._first_seed, self._episodes, self._recording.watch
        )
        self._seen = self._recording.ask(self._evaluator.module)

    def unpruned(self) -> dict[str, Any]:
        """Return the unpruned policy's figures."""
        return {**summarise(self._returns), **_base_figures(self._seen)}

    def point(
        self, name: str, distribution: Mapping[str, float], sparsity: float | None, *, play: bool
    ) -> dict[str, Any]:
        """Return what these sparsities cost.

        Args:
            name: the layer's; or what stands for several.
            distribution: sparsity by layer.
            sparsity: the layer's.
            play: whether episodes tell it, beside the states of the unpruned policy.
        """
        pruner = self._pruned(distribution)
        reached = {layer.name: layer.sparsity for layer in pruner.layer_counts()}
        seen = self._recording.ask(self._evaluator.module)
        row: dict[str, Any] = {"layer": name, "sparsity": sparsity}
        row["reached"] = reached.get(name, pruner.sparsity())
        row.update(dict.fromkeys(("episodes", "mean", "iqm", "ci95", "gap")))
        if play:
            returns = self._evaluator.returns(self._first_seed, self._episodes)
            row.update(summarise(returns), gap=paired_gap(self._returns, returns))
        found = differences(self._evaluator.module, self._seen, seen)
        row.update({key: found[key] for key in _CLOSE}, value_unexplained=_unexplained(found))
        return row

    def _pruned(self, distribution: Mapping[str, float]) -> Pruner:
        """Put the checkpoint's weights and masks back, and prune."""
        module = self._evaluator.module
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(self._weights[name])
        for layer in maskable_layers(module, exclude=self._targets).values():
            layer.masks.clear()
        pruner = Pruner(
            module,
            self._pruning(distribution),
            groups=group_of,
            heads=self._heads,
            exclude=self._targets,
        )
        if self._masks is not None:
            pruner.load_state_dict(self._masks)
        if any(distribution.values()):
            pruner.prune_to()
        return pruner

    def _counted(self) -> dict[str, int]:
        found = maskable_layers(self._evaluator.module, exclude=self._targets)
        granularity = granularity_of(self._pruning({}).granularity)

        def count(layer: LayerCount) -> int:
            return granularity.count([PrunableLayer(layer.name, found[layer.name], layer.group)])

        return {layer.name: count(layer) for layer in self.layers}


def _base_figures(seen: Seen) -> dict[str, Any]:
    std = float(seen.all_values().std()) if seen.values else None
    return {"states": len(seen.actions), "value_std": std}


def _unexplained(found: Mapping[str, Any]) -> float | None:
    error, spread = found["value_rmse"], found["value_std"]
    if error is None:
        return None
    if not spread:
        return 0.0 if error == 0 else None
    return float((error / spread) ** 2)
