"""Features of a pruning Learner: what each may do, at which events, and what it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar, cast

from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch.optim import Optimizer

from rayprune.pruning.config import PruningConfig
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.reports import MaskChange
from rayprune.rllib.diagnostics import Diagnostics


class LearnerView(Protocol):
    """What an extension may use of a pruning Learner."""

    clock: int
    """Of the last update: env steps, or updates where none are sampled."""
    updates: int
    """Optimizer steps so far."""

    @property
    def learner(self) -> TorchLearner:
        """RLlib's Learner: its config, modules, metrics and device."""

    @property
    def pruners(self) -> Mapping[str, Pruner]:
        """The Pruners by module id; always the same mapping."""

    @property
    def diagnostics(self) -> Diagnostics:
        """Takes what nothing depends on."""

    def module(self, module_id: str) -> Any:
        """Return an RLModule, not wrapped in DDP."""

    def config(self, module_id: str) -> PruningConfig:
        """Return a module's pruning config of now, a driver's signals included."""

    def optimizers(self, module_id: str) -> list[Optimizer]:
        """Return the optimizers that step a module."""

    def before_resize(self, module_id: str) -> None:
        """Tell the others that a module's layers are about to change."""

    def spread(self, module_id: str, sparsity: float) -> None:
        """Have all that belongs to a module's weights follow a change of them."""


class Extension:
    """One feature of a pruning Learner. A method that isn't overridden is never called.

    A Learner calls its extensions in the order of `rayprune.rllib.learner.mixin.EXTENSIONS`. Where
    it says *locked*, no other thread reads or writes the Learner's weights meanwhile (ADR 0016).

    Args:
        view: of the Learner; what it holds is read at use time.
    """

    key: ClassVar[str] = ""
    """Of its entry in the Learner's state, where it has one."""

    def __init__(self, view: LearnerView) -> None:
        self._view = view

    def on_optimizers(self) -> None:
        """Optimizers were made, and nothing has stepped them yet."""

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """A module is pruned from now on."""

    def detach(self, module_id: str) -> None:
        """A module is gone."""

    def before_update(self, module_id: str, pruner: Pruner) -> None:
        """An update begins: the minibatches of one batch."""

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """A minibatch's losses are about to be computed; by module id."""

    def on_losses(
        self, losses: dict[str, Any], fwd_out: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> None:
        """A minibatch's losses are known, and may be changed; all by module id."""

    def on_masked_gradients(self, gradients: Mapping[Any, Any]) -> None:
        """A minibatch's gradients are masked, and not clipped yet; by parameter."""

    def after_step(self) -> None:
        """The optimizers have done a step."""

    def before_masks(self) -> None:
        """An update has ended, and masks may be due."""

    def before_mask_update(self, module_id: str, pruner: Pruner) -> None:
        """A module's masks may change next. Locked."""

    def after_mask_update(self, module_id: str, pruner: Pruner, change: MaskChange) -> None:
        """A mask update was done; moments and targets haven't followed yet. Locked."""

    def on_spread(self, module_id: str) -> None:
        """Moments and targets have followed a change of the masks or of the weights. Locked."""

    def after_masks(self, module_id: str, pruner: Pruner) -> None:
        """A module's turn at the end of an update is over, whether masks were due. Locked."""

    def before_resize(self, module_id: str) -> None:
        """A module's layers are about to change. Locked."""

    def on_barrier(self) -> None:
        """A checkpoint was written: what it doesn't hold must be given up."""

    def before_restore(self, state: Mapping[str, Any]) -> None:
        """A state is about to be loaded; empty after a component alone was. Locked."""

    def after_restore(self) -> None:
        """All of a state has been loaded. Locked."""

    def get_state(self) -> Any:
        """Return the entry under `key`."""

    def set_state(self, state: Any) -> None:
        """Take over what `get_state` returned; None from a Learner that had none."""


E = TypeVar("E", bound=Extension)
Listeners = list[Callable[..., None]]


class Extensions:
    """A Learner's extensions, and for each event the methods of those that override it.

    Args:
        kinds: in the order in which they are called.
        view: of the Learner.
    """

    def __init__(self, kinds: Iterable[type[Extension]], view: LearnerView) -> None:
        self._held = {kind: kind(view) for kind in kinds}
        self.on_optimizers = self._listeners("on_optimizers")
        self.attach = self._listeners("attach")
        self.detach = self._listeners("detach")
        self.before_update = self._listeners("before_update")
        self.on_batch = self._listeners("on_batch")
        self.on_losses = self._listeners("on_losses")
        self.on_masked_gradients = self._listeners("on_masked_gradients")
        self.after_step = self._listeners("after_step")
        self.before_masks = self._listeners("before_masks")
        self.before_mask_update = self._listeners("before_mask_update")
        self.after_mask_update = self._listeners("after_mask_update")
        self.on_spread = self._listeners("on_spread")
        self.after_masks = self._listeners("after_masks")
        self.before_resize = self._listeners("before_resize")
        self.on_barrier = self._listeners("on_barrier")
        self.before_restore = self._listeners("before_restore")
        self.after_restore = self._listeners("after_restore")

    def of(self, kind: type[E]) -> E:
        """Return the extension of a kind."""
        return cast("E", self._held[kind])

    def get_state(self) -> dict[str, Any]:
        """Return the entries of those that have a key."""
        return {held.key: held.get_state() for held in self._held.values() if held.key}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over the entries of a Learner's state, which may lack some."""
        for held in self._held.values():
            if held.key:
                held.set_state(state.get(held.key))

    def _listeners(self, event: str) -> Listeners:
        return [
            getattr(held, event)
            for kind, held in self._held.items()
            if getattr(kind, event) is not getattr(Extension, event)
        ]
