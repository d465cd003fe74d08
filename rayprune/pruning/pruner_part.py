"""`PrunerPart`: a feature of a Pruner that keeps state beside the masks, or writes weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, cast

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
    def accumulates(self) -> frozenset[str]:
        """What is summed up of the gradients while training goes on."""

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        """Every maskable layer by name."""

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """Every parameter that may ever hold a mask, by full name."""

    @property
    def prunable(self) -> Sequence[Any]:
        """The layers to be pruned, protected ones too: `rayprune.pruning.layers.prunable`."""

    @property
    def spared(self) -> frozenset[str]:
        """The full names of parameters that are left alone for being frozen."""

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The prunable parameters by full name, protected ones included."""

    @property
    def heads(self) -> frozenset[str]:
        """The names of the layers of which no unit can go."""

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

    @property
    def wants_gradients(self) -> bool:
        """Whether `on_gradients` shall be called at this step."""
        return True

    def on_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """See the dense gradients of a step, before they are masked; not to be written to."""

    def on_masked_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """Write gradients that were just masked, in place."""

    def on_masked_weights(self) -> None:
        """Write weights that were just masked, in place: after every optimizer step."""

    @property
    def wants_rates(self) -> bool:
        """Whether `after_step` shall be called, for which the caller looks learning rates up."""
        return True

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


P = TypeVar("P", bound=PrunerPart)


class Parts:
    """A Pruner's parts, and for each event the methods of those that override it.

    Args:
        kinds: in the order in which they are called.
    """

    def __init__(self, kinds: Iterable[type[PrunerPart]]) -> None:
        self._held: dict[type[PrunerPart], PrunerPart] = {kind: kind() for kind in kinds}
        self.listening = [x for x in self._held.values() if overrides(x, "on_gradients")]
        """Those that see dense gradients, at the steps where they want them."""
        self.on_masked_gradients = self._methods("on_masked_gradients")
        self.on_masked_weights = self._methods("on_masked_weights")
        self.stepping = [x for x in self._held.values() if overrides(x, "after_step")]
        """Those that write weights after the optimizer's steps, where they want to."""
        self.before_drop = self._methods("before_drop")
        self.after_drop = self._methods("after_drop")
        self.after_commit = self._methods("after_commit")
        self.after_update = self._methods("after_update")
        self.on_compaction = self._methods("on_compaction")

    def __getitem__(self, kind: type[P]) -> P:
        """Return the part of a kind."""
        return cast("P", self._held[kind])

    def attach(self, pruner: PrunerView) -> None:
        """Make all of them parts of a Pruner."""
        for part in self._held.values():
            part.attach(pruner)

    def state_dict(self) -> dict[str, Any]:
        """Return the entries of those that keep a state, by key."""
        return {part.key: part.state_dict() for part in self._held.values() if part.key}

    def unpack(self, state: Mapping[str, Any]) -> list[tuple[PrunerPart, Any]]:
        """Read all entries, and change nothing yet; see `PrunerPart.unpack`."""
        return [
            (part, part.unpack(state.get(part.key))) for part in self._held.values() if part.key
        ]

    def _methods(self, event: str) -> list[Callable[..., Any]]:
        return [getattr(part, event) for part in self._held.values() if overrides(part, event)]


def overrides(part: PrunerPart, event: str) -> bool:
    """Return whether a part does anything at an event."""
    return getattr(type(part), event) is not getattr(PrunerPart, event)
