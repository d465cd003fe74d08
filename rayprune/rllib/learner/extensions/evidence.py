"""Evidence for criteria, from the minibatches that a Learner trains on.

The Learner's last minibatches are kept by reference, and looked at when a mask update is due. The
measuring is `rayprune.pruning`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch import nn

from rayprune.errors import InputError
from rayprune.pruning.evidence.batches import COALITIONS, sample_count
from rayprune.pruning.evidence.evidence import Evidence
from rayprune.pruning.group_pruner import GroupPruner
from rayprune.pruning.pruner import Pruner
from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.learner.module_objective import ModuleObjective, valid_rows


class MinibatchEvidence(Extension):
    """Keeps a Learner's last minibatches, and measures on them when a mask update is due."""

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._held: dict[str, deque[dict[str, Any]]] = {}
        self._given: dict[str, Evidence] = {}
        self.convergence: dict[str, dict[str, dict[str, float]]] = {}
        """Of Shapley values: module id -> layer's parameter -> standard error and agreement."""

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Keep a reference to a minibatch, where a criterion will look at it."""
        for module_id, pruner in self._view.pruners.items():
            if module_id not in batch or not pruner.measures:
                continue
            limits = _limits_of(pruner)
            held = self._held.setdefault(module_id, deque())
            # Observations first: their rows are what counts as samples.
            held.append({Columns.OBS: batch[module_id][Columns.OBS], **batch[module_id]})
            while len(held) > 1 and (
                len(held) > limits["minibatches"] or _rows_in(held) > limits["observations"]
            ):
                held.popleft()

    def on_barrier(self) -> None:
        """Let all minibatches go: a checkpoint holds none, and a run resumed must equal one not."""
        self._held.clear()

    def gather(self, module_id: str, pruner: Pruner, *, at_once: bool = False) -> Evidence:
        """Gather what a Pruner's criteria ask for, the same on every Learner.

        Args:
            module_id: of its module.
            pruner: those of its groups are asked that have a mask update due.
            at_once: ask all of them.

        Raises:
            InputError: no minibatch was seen, or the objective isn't the module's.
        """
        found = Evidence()
        for member in pruner.members:
            if member.measures and (at_once or member.due(self._view.clock)):
                found = found.beside(self._measure(module_id, member))
        if found.tables:
            self._given[module_id] = found
        return found

    def _measure(self, module_id: str, pruner: GroupPruner) -> Evidence:
        config, wanted = pruner.config, pruner.measures
        held = self._held.get(module_id)
        if not held:
            raise InputError(
                f"`criterion` {config.criterion!r} needs observations from training, and there are "
                "none yet. Use `rayprune train` (with `start_from` for a policy that is trained "
                "already), or a criterion that reads weights only, such as 'l1'."
            )
        module, learner = self._view.module(module_id), self._view.learner
        name = config.evidence["objective"]
        objective = ModuleObjective(learner, module_id, name, wanted).build()
        # SAC's modules draw actions when they are run; training must not notice.
        with generator_kept(pruner.seed, module):
            return pruner.measure(list(held), objective, ranks.over_learners(), wanted)

    def on_spread(self, module_id: str) -> None:
        """Keep how far Shapley values have converged, once they were used, and no more of it."""
        games = self._given.pop(module_id, Evidence()).tables.get(COALITIONS, {})
        found = {name: game.estimate for name, game in games.items() if game.estimate is not None}
        if found:
            self.convergence[module_id] = {
                name: {
                    "standard_error": float(estimate.standard_error.mean()),
                    "agreement": estimate.agreement,
                }
                for name, estimate in found.items()
            }


@contextmanager
def generator_kept(seed: int, module: nn.Module) -> Iterator[None]:
    """Seed torch's generator for a while, and give it back as it was."""
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[device.index or 0 for device in devices]):
        torch.manual_seed(seed)
        yield


def _limits_of(pruner: Pruner) -> dict[str, int]:
    """Return how much is kept: as much as whichever criterion looks at most."""
    asking = [member.config.evidence for member in pruner.members if member.measures]
    return {key: max(held[key] for held in asking) for key in ("minibatches", "observations")}


def _rows_in(batches: Sequence[dict[str, Any]] | deque[dict[str, Any]]) -> int:
    return sum(_row_count(batch) for batch in batches)


def _row_count(batch: dict[str, Any]) -> int:
    """Count a minibatch's observations: time steps that are no padding."""
    valid = valid_rows(batch)
    if valid is not None:
        return int(valid.sum())
    # Rewards have one entry a step, whatever observations and actions look like.
    return int(batch[Columns.REWARDS].numel()) if Columns.REWARDS in batch else sample_count(batch)
