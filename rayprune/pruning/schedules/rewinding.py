"""Rewinding: a module's earlier weights, put back under the masks of now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayprune.errors import CheckpointError


class Snapshot:
    """One module's snapshot: every parameter and buffer, prunable or not.

    Frankle & Carbin 2019 (arXiv:1803.03635), Frankle et al. 2020 (arXiv:1912.05671).

    Args:
        skip: prefixes of names that are not its own: target networks, which follow their source.

    >>> layer, snapshot = nn.Linear(2, 1), Snapshot()
    >>> snapshot.take(layer)
    >>> early = layer.weight.detach().clone()
    >>> _ = layer.weight.data.add_(1.0)
    >>> snapshot.rewind(layer, {"weight": torch.tensor([[True, False]])})
    >>> torch.equal(layer.weight, early * torch.tensor([[1.0, 0.0]])), snapshot.rewinds
    (True, 1)
    """

    def __init__(self, skip: tuple[str, ...] = ()) -> None:
        self.weights: dict[str, Tensor] | None = None
        self.rewinds = 0
        """How often the weights have gone back."""
        self._skip = skip

    @torch.no_grad()
    def take(self, module: nn.Module) -> None:
        """Copy the weights of now."""
        self.weights = {
            name: value.detach().clone() for name, value in self._tensors(module).items()
        }

    @torch.no_grad()
    def rewind(self, module: nn.Module, masks: Mapping[str, Tensor]) -> None:
        """Write the snapshot into the module, in place, zero where a mask says so.

        Args:
            module: the one that `take` saw; its parameters keep their identity.
            masks: by full parameter name, True = keep.
        """
        assert self.weights is not None
        for name, tensor in self._tensors(module).items():
            tensor.copy_(self.weights[name])
            if name in masks:
                # Not a product: -1 * 0 is -0, and an early NaN would stay one.
                tensor.masked_fill_(~masks[name].to(tensor.device), 0)
        self.rewinds += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshot as NumPy arrays, None before it is taken, and the count."""
        held = self.weights
        return {
            "rewinds": self.rewinds,
            "snapshot": None if held is None else {n: t.cpu().numpy() for n, t in held.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], module: nn.Module) -> None:
        """Take a snapshot over.

        Raises:
            CheckpointError: it is of another network.
        """
        held, own = state["snapshot"], self._tensors(module)
        if held is not None and {n: v.shape for n, v in held.items()} != {
            n: tuple(t.shape) for n, t in own.items()
        }:
            raise CheckpointError(
                "The weights to rewind to are of another network. Build the module as it was "
                "trained."
            )
        self.rewinds = int(state["rewinds"])
        self.weights = None
        if held is not None:
            copies = {name: torch.from_numpy(np.array(value)) for name, value in held.items()}
            self.weights = {name: value.to(own[name].device) for name, value in copies.items()}

    def _tensors(self, module: nn.Module) -> dict[str, Tensor]:
        state: dict[str, Tensor] = module.state_dict()
        return {name: t for name, t in state.items() if not name.startswith(self._skip)}
