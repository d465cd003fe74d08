"""What a Learner does at the end of a lottery ticket's round: go back to early weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from rayprune.pruning.schedules.rewinding import Rewinding
from rayprune.rllib.algorithms.target_networks import target_pairs
from rayprune.rllib.learner.extensions import unsaved_state as unsaved
from rayprune.rllib.learner.optimizers import forget_state

if TYPE_CHECKING:
    from rayprune.pruning.pruner import Pruner
    from rayprune.rllib.learner.mixin import PruningMixin


class Rewinder:
    """Holds each module's snapshot, and puts it back with all that belongs to it.

    Beside the weights go back PPO's KL coefficient and SAC's temperature; the optimizers forget
    their moments, and target networks are copied from the rewound source. Clock, learning-rate
    schedule, replay buffer and observation filters go on.
    """

    def __init__(self, learner: PruningMixin) -> None:
        self._learner = learner
        self._held: dict[str, Rewinding] = {}
        self._values: dict[str, dict[str, Any]] = {}

    def take(self, module_id: str, pruner: Pruner, step: int) -> None:
        """Take the snapshot of a lottery ticket, once its time has come.

        Args:
            module_id: whose.
            pruner: the module's.
            step: the clock.
        """
        if not pruner.config.rewinds or module_id in self._held:
            return
        schedule: Any = pruner.config.build_schedule(0.0)
        if step >= schedule.rewind_to:
            self._held[module_id] = rewinding = Rewinding(_target_prefixes(pruner.module))
            rewinding.take(pruner.module)
            self._values[module_id] = unsaved.learned_values(self._learner, module_id)

    @torch.no_grad()
    def rewind(self, module_id: str, pruner: Pruner) -> None:
        """Put the snapshot back under the masks of now, if there is one."""
        rewinding = self._held.get(module_id)
        if rewinding is None:
            return
        rewinding.rewind(pruner.module, pruner.held_masks)
        pruner.mask_weights()  # biases of silent hidden units, which hold no mask of their own
        for source, target in _target_tensors(pruner.module):
            target.copy_(source)
        forget_state(self._learner, module_id)
        unsaved.put_back(self._learner, self._values[module_id])

    def detach(self, module_id: str) -> None:
        """Forget a module's snapshot: the module is gone."""
        self._held.pop(module_id, None)
        self._values.pop(module_id, None)

    def get_state(self) -> dict[str, Any]:
        """Return the snapshots by module id."""
        return {
            module_id: {**held.state_dict(), "values": self._values[module_id]}
            for module_id, held in self._held.items()
        }

    def set_state(self, state: Mapping[str, Any], pruners: Mapping[str, Pruner]) -> None:
        """Take over what `get_state` returned."""
        self._held.clear()
        for module_id, held in state.items():
            if module_id in pruners:
                module = pruners[module_id].module
                self._held[module_id] = rewinding = Rewinding(_target_prefixes(module))
                rewinding.load_state_dict(held, module)
                self._values[module_id] = dict(held["values"])


def _target_prefixes(module: Any) -> tuple[str, ...]:
    targets = {id(target) for _, target in target_pairs(module)}
    named = module.named_modules(remove_duplicate=False)
    return tuple(f"{name}." for name, part in named if id(part) in targets)


def _target_tensors(module: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield each tensor of a target network with its source's."""
    for source, target in target_pairs(module):
        yield from zip(source.state_dict().values(), target.state_dict().values(), strict=True)
