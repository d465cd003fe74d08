"""`PrunerPart`: a feature of a Pruner that keeps state beside the masks, or writes weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from rayprune.pruning.reports import MaskChange

Pick = Callable[[str, Tensor], Tensor]
"""Takes what a compaction has left out of a tensor shaped like the parameter of that name."""


class PrunerView(Protocol):
    """What a part may see of its Pruner, as it is at the moment."""

    @property
    def config(self) -> Any:
        """The `rayprune.PruningConfig`, which knows the parts, so that they can't know it."""

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The prunable parameters by full name, protected ones included."""

    @property
    def held_masks(self) -> Mapping[str, Tensor]:
        """The masks by full parameter name, the live tensors; a name is absent until pruned."""


class PrunerPart:
    """One feature of a Pruner. Every event does nothing unless it is overridden.

    A Pruner calls its parts in one order, `rayprune.pruning.pruner.PARTS`, and at each event only
    those that override it.

    >>> class Counter(PrunerPart):
    ...     key, updates = "updates", 0
    ...
    ...     def after_update(self, change):
    ...         self.updates += 1
    >>> overrides(Counter(), "after_update"), overrides(Counter(), "after_step")
    (True, False)
    """

    key: ClassVar[str] = ""
    """Of its entry in the Pruner's state; empty if it keeps none."""
    pruner: PrunerView
    """The Pruner that it is part of."""

    def attach(self, pruner: PrunerView) -> None:
        """Become part of a Pruner, once, before any event."""
        self.pruner = pruner

    def on_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """See the dense gradients of a step, before they are masked; not to be written to."""

    def on_masked_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """Write gradients that were just masked, in place."""

    def on_masked_weights(self) -> None:
        """Write weights that were just masked, in place: after every optimizer step."""

    def after_step(self, clock: float, rates: Mapping[nn.Parameter, float]) -> None:
        """Write weights after an optimizer step, in place.

        Args:
            clock: env steps, or optimizer updates where none are sampled.
            rates: the learning rate by parameter.
        """

    def before_drop(self, name: str, weight: nn.Parameter) -> None:
        """See a parameter of which weights may go at this mask update, before any does."""

    def after_drop(self, name: str, weight: nn.Parameter) -> float | None:
        """Write a parameter of which weights have just gone, in place.

        Returns:
            What all of it was multiplied by, for target networks to follow; None for nothing.
        """
        return None

    def after_commit(self, change: MaskChange) -> None:
        """See the masks that a mask update has left, or that were made in one shot."""

    def after_update(self, change: MaskChange) -> None:
        """Let go of what was gathered for a mask update of the schedule, which is done."""

    def on_compaction(self, pick: Pick) -> None:
        """Follow parameters that have shrunk, with what is kept in their shape."""

    def state_dict(self) -> Any:
        """Return the state as plain values and CPU tensors."""

    def unpack(self, state: Any) -> Any:
        """Read what `state_dict` returned, and change nothing yet.

        Args:
            state: the saved entry; None if there is none, which clears.

        Returns:
            What `restore` takes.

        Raises:
            Exception: the state is broken; of any built-in kind.
        """
        return state

    def restore(self, unpacked: Any) -> None:
        """Take over what `unpack` returned, once the masks are those of the saved state."""


def overrides(part: PrunerPart, event: str) -> bool:
    """Return whether a part does anything at an event."""
    return getattr(type(part), event) is not getattr(PrunerPart, event)
