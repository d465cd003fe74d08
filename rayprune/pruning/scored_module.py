"""`ScoredModule`: a module whose weights are scored by a criterion, with what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rayprune.pruning.evidence.batches import MEASURED, measure
from rayprune.pruning.evidence.evidence import ACCUMULATED, GRADIENT, NOTHING, Evidence
from rayprune.pruning.evidence.gradients import GradientMeans
from rayprune.pruning.evidence.reduce import Reduce
from rayprune.pruning.naming import by_parameter
from rayprune.pruning.pruned_module import Gradients, PrunedModule
from rayprune.pruning.update.progress import LostReturns
from rayprune.pruning.update.selection import Selection


class ScoredModule(PrunedModule):
    """A module with masks and importance scores; it has the parts that the criterion needs."""

    seed: int
    """Of the random criterion."""

    @property
    def accumulated(self) -> GradientMeans:
        """Sums over training steps, of what `accumulates` names."""
        return self._parts[GradientMeans]

    @property
    def returns(self) -> dict[str, float]:
        """For criterion ``return``: the return lost without each unit; used up by an update."""
        return self._parts[LostReturns].lost

    @returns.setter
    def returns(self, lost: Mapping[str, float]) -> None:
        self._parts[LostReturns].lost = dict(lost)

    @property
    def measures(self) -> frozenset[str]:
        """What must be gathered from minibatches while training goes on.

        Under the objective ``loss`` the gradients are those that training itself computes.
        """
        return self._asked(MEASURED, loss=False)

    @property
    def accumulates(self) -> frozenset[str]:
        """What `observe_gradients` sums up: what the criterion asks for of `ACCUMULATED`."""
        return self._asked(ACCUMULATED, loss=True)

    def _asked(self, kinds: frozenset[str], *, loss: bool) -> frozenset[str]:
        asked = self.config.chosen.criterion.evidence & kinds
        by_loss = self.config.evidence["objective"] == "loss"
        return asked if by_loss is loss else asked - {GRADIENT}

    def observe_gradients(self, gradients: Gradients) -> None:
        """Sum up the dense gradients of one training step, where anything asks for them.

        Args:
            gradients: by parameter or name, before masking and clipping; None counts as zero.

        Raises:
            InputError: a name is not the module's.
        """
        listening = [part for part in self._parts.listening if part.wants_gradients]
        if listening:
            dense = by_parameter("gradients", gradients, self.module)
            for part in listening:
                part.on_gradients(dense)

    def scores(self, batch: Any = None, loss: Any = None) -> dict[str, Tensor]:
        """Score its prunable weights; see `rayprune.Pruner.scores`."""
        phase = self._prunables.phases[0]
        known = self.accumulated.evidence() | self.measure(batch, loss)
        selection = self._selection(known).after({}, phase.config)
        units = self.config.chosen.criterion.scores == "units"
        return selection.all_scores(phase.layers if units else self.prunable)

    def measure(
        self,
        batch: Any = None,
        loss: Any = None,
        across: Reduce | None = None,
        wanted: frozenset[str] | None = None,
    ) -> Evidence:
        """Gather what its criterion asks for; see `rayprune.Pruner.measure`."""
        if batch is None:
            return NOTHING
        wanted = self.config.chosen.criterion.evidence if wanted is None else wanted
        limits = self.config.evidence
        return measure(self.module, self.prunable, wanted, batch, loss, limits, across)

    def _scored_weights(self) -> dict[str, Tensor]:
        """Return what the criterion scores: weights as the layers compute with them.

        Beside a gradient it is the parameter that the gradient is of: what zeroing it would cost.
        """
        asked = self.config.chosen.criterion.evidence & ACCUMULATED
        return dict(self.weights) if asked else self._store.effective

    def _selection(self, evidence: Evidence) -> Selection:
        return Selection(
            self.config,
            self._scored_weights(),
            self._store.eligible,
            self.seed,
            self._progress.updates,
            evidence,
            dict(self.returns),
        )
