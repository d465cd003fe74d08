"""Recorded steps drawn as minibatches, as RLlib's Learners ask a Ray Data iterator for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import ray
import torch
from ray.rllib.utils import flatten_dict
from torch import Tensor

Modules: TypeAlias = dict[str, dict[str, Tensor]]
"""Columns by name by module id, each ``(steps, ...)``."""

_ALL: Final = slice(None)


class Draws:
    """An endless iterator of minibatches: each step once, in an order drawn anew, over and over.

    The order is drawn from torch's global generator, which a checkpoint's barrier seeds.

    Args:
        steps: columns by module id; or a reference to them, for a Learner in another process.
        shard: which of the steps.
    """

    def __init__(self, steps: Modules | ray.ObjectRef[Any], shard: slice = _ALL) -> None:
        self._steps = steps
        self._shard = shard

    def minibatches(self, size: int, device: Any = None) -> Iterator[Modules]:
        """Yield minibatches of a size, on a device."""
        held: Any = ray.get(self._steps) if isinstance(self._steps, ray.ObjectRef) else self._steps
        modules = {
            module_id: {name: column[self._shard].to(device) for name, column in columns.items()}
            for module_id, columns in held.items()
        }
        # Every module has its own steps: with one policy there is one.
        (columns,) = modules.values()
        count = len(next(iter(columns.values())))
        order = torch.empty(0, dtype=torch.long)
        while True:
            while len(order) < size:
                order = torch.cat([order, torch.randperm(count)])
            chosen, order = order[:size].to(device), order[size:]
            yield {
                module_id: {name: column.index_select(0, chosen) for name, column in own.items()}
                for module_id, own in modules.items()
            }

    def iter_torch_batches(
        self, *, batch_size: int, device: Any = None, **_: Any
    ) -> Iterator[dict[str, Tensor]]:
        """Yield minibatches as Ray Data would, module and column in one name."""
        for modules in self.minibatches(batch_size, device):
            yield flatten_dict(modules)
