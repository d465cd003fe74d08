"""How far each mask update moves the policy, on the Learner's last minibatches."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from rayprune.errors import ConfigError
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.reports import MaskChange, PolicyChange
from rayprune.pruning.update.trust_region import Compare, Divergence, TrustRegion
from rayprune.rllib.algorithms import family_of_module
from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.learner.policy_outputs import ModuleOutputs

MINIBATCHES: Final = 4
"""So many of the last are looked at."""
NAME: Final = "policy change of mask updates"
"""What the measurement is called where it fails."""


class PolicyChanges(Extension):
    """Keeps a Learner's last minibatches, and looks at the policy there when masks change.

    The minibatches are kept by reference, and nothing is computed until a mask update is due.
    """

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._held: deque[Mapping[str, Any]] = deque(maxlen=MINIBATCHES)
        self._taken: dict[str, list[dict[str, Any]]] = {}

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """Refuse a bound on what the module hasn't got.

        Raises:
            ConfigError: it has no distribution, or no values.
        """
        family = family_of_module(pruner.module)
        faults = []
        if pruner.config.max_kl is not None and family.acts_by_values:
            faults.append(NO_KL)
        if pruner.config.max_value_change is not None and not family.has_values(pruner.module):
            faults.append(
                "`pruning.max_value_change` bounds the change of values, which "
                f"{type(pruner.module).__name__} hasn't got. Give `pruning.max_kl`."
            )
        if faults:
            raise ConfigError(faults)

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Keep a reference to a minibatch."""
        self._held.append(batch)

    def on_barrier(self) -> None:
        """Let all minibatches go: a checkpoint holds none, and a run resumed must equal one not."""
        self._held.clear()

    def divergence(self, module_id: str, pruner: Pruner) -> Divergence:
        """Return what a Pruner asks when a mask update is due; the same on every Learner."""
        look = partial(self._look, module_id)
        if TrustRegion.of(pruner.config):
            return look
        diagnostics = self._view.diagnostics

        def tried() -> Compare | None:
            compare = diagnostics.take(NAME, module_id, look, None)
            if compare is None:
                return None
            nothing: PolicyChange | float = PolicyChange()
            return lambda: diagnostics.take(NAME, module_id, compare, nothing)

        return tried

    def _look(self, module_id: str) -> Compare | None:
        """Look at a module in its last minibatches; None where no Learner has any."""
        batches = [batch[module_id] for batch in self._held if module_id in batch]
        if not ranks.any_has(bool(batches), self._view.learner):
            return None
        module = self._view.module(module_id)
        return ModuleOutputs(module, batches, ranks.over_learners()).compare

    def after_mask_update(self, module_id: str, pruner: Pruner, change: MaskChange) -> None:
        """Note what a mask update did to the policy."""
        moved = {} if change.policy is None else change.policy.to_dict()
        self._taken.setdefault(module_id, []).append(
            {
                "step": self._view.clock,
                "pruned": change.pruned,
                "sparsity": change.sparsity,
                **moved,
                **({"taken": change.taken} if TrustRegion.of(pruner.config) else {}),
            }
        )

    def take(self) -> dict[str, list[dict[str, Any]]]:
        """Return the mask updates since the last call, by module id."""
        taken, self._taken = self._taken, {}
        return taken


NO_KL: Final = (
    "`pruning.max_kl` bounds the change of an action distribution, but DQN acts by its Q-values. "
    "Give `pruning.max_value_change`: the mean absolute change of Q as a share of its standard "
    "deviation, such as 0.1."
)
