"""Tensors of a module that are looked up once, for as long as they are the module's."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, nn


class HeldTensors:
    """A module's parameters and buffers as they lie, without a walk over its layers each time.

    Args:
        module: any.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        entries = [
            (own, name, held)
            for layer in module.modules()
            for own in (layer._parameters, layer._buffers, layer._modules)
            for name, held in own.items()
        ]
        self._owners: list[dict[str, Any]] = [own for own, _, _ in entries]
        self._names = [name for _, name, _ in entries]
        self._held = [held for _, _, held in entries]
        self.by_name: dict[str, Tensor] = module.state_dict(keep_vars=True)
        """As ``state_dict`` names them; themselves, so that what is put in their `data` is seen."""

    def are_of(self, module: Any) -> bool:
        """Whether a module still holds these: layers and tensors may be replaced, not added."""
        now = map(dict.get, self._owners, self._names)
        return module is self._module and all(map(operator.is_, now, self._held))
