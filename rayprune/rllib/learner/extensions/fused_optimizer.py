"""Fused Adam in place of torch's for-loop one, where ``fused_optimizer`` asks for it."""

from __future__ import annotations

from rayprune.pruning.pruner import Pruner
from rayprune.rllib.learner.extension import Extension
from rayprune.rllib.learner.optimizers import fuse_adam


class FusedOptimizer(Extension):
    """Has the optimizers of pruned modules step in one kernel."""

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """Fuse what steps a module."""
        if pruner.config.fused_optimizer:
            fuse_adam(self._view.optimizers(module_id))
