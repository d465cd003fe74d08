"""How many updates a CQL Learner has done, which decides whether it still clones actions."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.cql.torch.cql_torch_learner import CQLTorchLearner

from rayprune.pruning.pruner import Pruner
from rayprune.rllib.learner.extension import Extension
from rayprune.rllib.learner.updates.loss_state import UPDATES, updates_counted


class UpdateCount(Extension):
    """Tells CQL's loss how many updates came before this one.

    It clones actions for `bc_iters` updates. RLlib 2.60 counts them in a sum that begins anew with
    each iteration, so that it clones for ever where an iteration has fewer updates than that.
    """

    def before_update(self, module_id: str, pruner: Pruner) -> None:
        """Add what RLlib has forgotten."""
        del module_id, pruner
        learner: Any = self._view.learner
        if not isinstance(learner, CQLTorchLearner):
            return
        missing = self._view.updates - updates_counted(learner)
        if missing:
            learner.metrics.log_value(UPDATES, missing, reduce="sum")
