"""Masks that are applied last where a user's own code may write weights or gradients (ADR 0028)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.module_pruners import ModulePruners
from rayprune.rllib.learner.sparse_moments_and_targets import mask_moments
from rayprune.rllib.settings.foreign_code import strangers, unknown_classes

logger = logging.getLogger(__name__)


class FinalMasks:
    """Knows who else may write a Learner's gradients and weights, and masks after them.

    Between RLlib's own Learner and an element-wise optimizer, masked gradients over zero moments
    leave a zero weight where it is, and nothing more is done. Where a user's class stands between
    the two, gradients are masked once more before the step, weights and moments after it, and all
    of it again at the end of each update. What others write between two iterations is masked when
    the next update begins, or when somebody asks for the weights.
    """

    def __init__(self, modules: ModulePruners) -> None:
        self._modules = modules
        self.rewrites = bool(modules.own_methods)
        """Whether the user's Learner may write gradients and weights within a step."""
        self.strangers: list[str] = []
        """Who may write weights beside RLlib, in words."""
        self._within_updates = False
        self._touched = True
        self._told = False

    @property
    def wraps_update(self) -> bool:
        """Whether the user's Learner does something of its own around a whole update."""
        return "update" in self._modules.own_methods

    def look(self) -> None:
        """Look again which users' classes may write: modules are added and removed."""
        learner = self._modules.learner
        modules = [pruner.module for pruner in self._modules.pruners.values()]
        self.strangers = strangers(learner.config, type(learner), modules)
        inside = [type(learner), *map(type, modules)]
        self._within_updates = any(unknown_classes(cls) for cls in inside)
        self._modules.optimizers_of.forget()

    def begin_update(self) -> None:
        """Mask what was written since the last update."""
        self._modules.optimizers_of.look(again=self.rewrites)
        if self._touched or self.rewrites:
            self.mask_all()

    def masked(self, gradients: Mapping[Any, Tensor | None]) -> dict[Any, Tensor | None]:
        """Return gradients, those of pruned weights masked, as well as what the weights hold.

        Args:
            gradients: by parameter, as somebody made them; written to where that can be.
        """
        held = writable(gradients)
        for pruner in self._modules.pruners.values():
            pruner.mask_gradients(held)
            # An optimizer, or a user's own step, may go by these in their place.
            pruner.mask_gradients(
                {
                    p: p.grad
                    for p in pruner.module.parameters()
                    if p.grad is not None and p.grad is not held.get(p)
                }
            )
        return held

    def masking_first(self, clip: Callable[..., Any]) -> Callable[..., Any]:
        """Return a clip function of RLlib's that sees no gradient of a pruned weight."""

        def masked(gradients: dict[Any, Tensor], **options: Any) -> Any:
            # It clips in place, so that the dict has to stay the same.
            gradients.update(writable(gradients))
            for pruner in self._modules.pruners.values():
                pruner.mask_gradients(gradients)
            return clip(gradients, **options)

        return masked

    def end_step(self) -> None:
        """Mask weights after an optimizer step, and moments if they may have seen other gradients.

        Zero gradients over zero moments leave a zero weight where it is for every element-wise
        optimizer; only the others can disturb it, and pay for a multiply.
        """
        optimizers = self._modules.optimizers_of
        for module_id, pruner in self._modules.pruners.items():
            if self.rewrites:
                pruner.mask_weights()
                mask_moments(pruner, optimizers.of(module_id))
            elif pruner.bypasses or not optimizers.step_elementwise(module_id):
                pruner.mask_weights()

    def end_update(self) -> None:
        """Mask all after a Learner or RLModule of the user's own."""
        if self._within_updates:
            self.mask_all()

    def before_reading(self) -> None:
        """Mask all before weights are handed out, if somebody may have written them."""
        if self._touched or self.strangers:
            self.mask_beside_updates()

    def mask_beside_updates(self) -> None:
        """Mask all from a thread that need not be the one that updates.

        An asynchronous Learner may be between a forward and its backward, which a write in place
        would break. None is made where all is zero already.
        """
        pruners = self._modules.pruners.values()
        if not self._is_asynchronous or any(pruner.violations() for pruner in pruners):
            self.mask_all()

    def mask_all(self) -> None:
        """Zero what is pruned: weights, their moments, their target networks."""
        self._modules.mask_all()
        self._touched = False

    def heals(self, violations: Mapping[str, Any]) -> bool:
        """Mask all weights where a user's code has left pruned ones nonzero, and say so once.

        Args:
            violations: by module id; empty where nothing is wrong.

        Returns:
            Whether anything was done.
        """
        self._touched = True  # from now on others have their turn
        found = {module_id: counts for module_id, counts in violations.items() if counts}
        if not found or not self.strangers:
            return False
        self.mask_all()
        self._touched = True
        # An asynchronous Learner may have been read in the middle of its own update.
        if not self._told and not (self.rewrites and self._is_asynchronous):
            self._told = True
            logger.warning(
                "Pruned weights were no longer zero after the Learner's update, and were set to "
                "zero again: %s. Those that may write them are %s.",
                found,
                ", ".join(self.strangers),
            )
        return True

    @property
    def _is_asynchronous(self) -> bool:
        return ranks.is_asynchronous(self._modules.learner)


def writable(gradients: Mapping[Any, Tensor | None]) -> dict[Any, Tensor | None]:
    """Return gradients that can be multiplied in place, copied where that must be.

    >>> import torch
    >>> spread = torch.ones(1, 1).expand(2, 3)
    >>> writable({"w": spread})["w"].mul_(2.0).sum()
    tensor(12.)
    """
    return {
        parameter: gradient.clone() if gradient is not None and _is_spread(gradient) else gradient
        for parameter, gradient in gradients.items()
    }


def _is_spread(gradient: Tensor) -> bool:
    """Whether several elements lie in one place, or nothing may be written at all."""
    lengths = zip(gradient.shape, gradient.stride(), strict=True)
    return gradient.is_inference() or any(n > 1 and step == 0 for n, step in lengths)
