"""Soft pruning: weights that are chosen fade to zero over several mask updates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor


class Fading:
    """Which weights fade, and for how many mask updates each has done so.

    A weight that fades still learns, and stays chosen.
    """

    def __init__(self, ages: Mapping[str, Tensor] | None = None) -> None:
        self.ages: dict[str, Tensor] = dict(ages or {})
        """Full parameter name -> uint8 tensor, 0 = not fading; absent when nothing fades."""

    def __bool__(self) -> bool:
        return bool(self.ages)

    def eligible(self, name: str, mask: Tensor | None) -> Tensor | None:
        """Return which weights may still be chosen; None for all of them."""
        if name not in self.ages:
            return mask
        steady = self.ages[name].to(mask.device if mask is not None else None) == 0
        return steady if mask is None else steady & mask

    def forget(self, names: Collection[str]) -> None:
        """Let weights be that faded and have been frozen."""
        self.ages = {name: age for name, age in self.ages.items() if name not in names}

    def pick(self, pick: Callable[[str, Tensor], Tensor]) -> None:
        """Keep what compaction has left of each tensor."""
        self.ages = {name: pick(name, age) for name, age in self.ages.items()}

    def advance(
        self, name: str, weight: Tensor, dropped: Tensor, updates: int, factor: float
    ) -> Tensor:
        """Do one mask update: age what fades, add what was dropped, decay it.

        Args:
            name: the parameter's full name.
            weight: decays in place.
            dropped: bool, what was chosen at this update.
            updates: how many updates a weight takes to zero.
            factor: what a fading weight is multiplied by.

        Returns:
            Bool, the weights that are to be zero from now on.

        >>> fading, weight = Fading(), torch.tensor([1.0, 1.0])
        >>> fading.advance("w", weight, torch.tensor([True, False]), updates=2, factor=0.5)
        tensor([False, False])
        >>> weight
        tensor([0.5000, 1.0000])
        >>> fading.advance("w", weight, torch.tensor([False, False]), updates=2, factor=0.5)
        tensor([ True, False])
        """
        if updates == 1 and name not in self.ages:
            return dropped
        ages = self.ages.pop(name, None)
        if ages is None:
            ages = torch.zeros_like(weight, dtype=torch.uint8)
        ages = ages.to(weight.device)
        ages.add_(ages > 0).masked_fill_(dropped, 1)
        gone = ages >= updates
        ages.masked_fill_(gone, 0)
        fades = ages > 0
        if bool(fades.any()):
            weight.mul_(torch.where(fades, factor, 1.0).to(weight.dtype))
            self.ages[name] = ages
        return gone
