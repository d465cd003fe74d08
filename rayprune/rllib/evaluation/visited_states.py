"""The states that a policy meets, kept as the module's inputs, to ask changed weights about."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.utils.spaces.space_utils import unbatch

from rayprune.rllib.evaluation.closeness import Seen, flat, values_of
from rayprune.rllib.evaluation.steps import Acted

MOST_STATES: Final = 4096
"""As many are enough for a mean, and fit into memory as images too."""


class VisitedStates:
    """Takes every n-th step of an evaluation; n doubles whenever there are too many states.

    Recurrent policies are asked with the recurrent state that was recorded: what a change does to
    one step, not what it adds up to.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[dict[str, Any], list[Any]]] = []
        self._stride, self._count = 1, 0

    def watch(self, acted: Acted) -> None:
        """Keep one step's inputs and actions."""
        if self._count % self._stride == 0:
            self._steps.append((_tensors(acted.batch), acted.actions))
        self._count += 1
        while sum(len(actions) for _, actions in self._steps) > 2 * MOST_STATES:
            self._steps = self._steps[::2]
            self._stride *= 2

    def batch(self) -> dict[str, Any]:
        """Return the recorded states as one batch of the module's inputs."""
        batches = [batch for batch, _ in self._steps]
        joined: dict[str, Any] = tree.map_structure(lambda *parts: torch.cat(parts), *batches)
        return joined

    def batch_with_actions(self) -> dict[str, Any]:
        """Return them with what was done there, as a Learner has it, where actions are numbers."""
        taken = [action for _, actions in self._steps for action in actions]
        if isinstance(taken[0], (dict, tuple)):
            return self.batch()
        return {**self.batch(), Columns.ACTIONS: torch.as_tensor(np.stack(taken))}

    def ask(self, module: Any) -> Seen:
        """Return what a whole module does in the recorded states, all in one forward pass."""
        batch = self.batch()
        taken = [action for _, actions in self._steps for action in actions]
        with torch.no_grad():
            outputs = module.forward_inference(dict(batch))
        logits = outputs.get(Columns.ACTION_DIST_INPUTS)
        seen = Seen(actions=_greedy(module, outputs, len(taken)))
        if logits is not None:
            seen.logits.append(flat(logits, len(taken)))
        values = values_of(module, batch, taken)
        if values is not None:
            seen.values.append(values)
        return seen


def _greedy(module: Any, outputs: dict[str, Any], states: int) -> list[Any]:
    actions = outputs.get(Columns.ACTIONS)
    if actions is None:
        kind = module.get_inference_action_dist_cls()
        logits = flat(outputs[Columns.ACTION_DIST_INPUTS], states)
        actions = kind.from_logits(logits).to_deterministic().sample()
    found: list[Any] = unbatch(tree.map_structure(_to_numpy, actions))
    return found


def _to_numpy(values: torch.Tensor) -> Any:
    return values.cpu().numpy()


def _tensors(batch: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tree.map_structure(torch.clone, value)
        for key, value in batch.items()
        if all(isinstance(leaf, torch.Tensor) for leaf in tree.flatten(value))
    }
