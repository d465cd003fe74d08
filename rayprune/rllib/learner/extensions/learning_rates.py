"""Learning rates of a restored Learner: its own config's, or on from where schedulers were.

RLlib makes torch's schedulers (`_torch_lr_scheduler_classes`) at the first optimizer step and
leaves them out of its state. It does restore the learning rates that they have come to, but a
restored run would schedule from there as from a start.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, Final

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rayprune.rllib.learner.extension import Extension, LearnerView

Options = list[dict[str, Any]]
"""An optimizer's param groups without their parameters."""

_RATES: Final = ("lr", "initial_lr", "max_lr", "min_lr")
_SCHEDULED: Final = (*_RATES, "betas", "momentum", "max_momentum", "base_momentum")


class LearningRates(Extension):
    """Lets a restored Learner's own config speak where RLlib takes the checkpoint's.

    RLlib restores the optimizers' hyper-parameters too, so that a clone made by population-based
    training would go on with its donor's learning rate (ray-project/ray#62173).
    """

    key = "lr_schedulers"

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._base: dict[str, float] = {}
        self._own: dict[str, Options] = {}
        self._saved: Mapping[str, Any] = {}

    def on_optimizers(self) -> None:
        """Note the rates before any scheduler has moved them."""
        self._base = base_rates(self._view.learner) | self._base

    def before_restore(self, state: Mapping[str, Any]) -> None:
        """Keep this Learner's own options."""
        named = self._view.learner._named_optimizers
        self._own = {name: options_of(optimizer) for name, optimizer in named.items()}
        self._saved = {}

    def after_restore(self) -> None:
        """Put the own options back, and the schedulers on."""
        learner = self._view.learner
        if learner._lr_scheduler_classes:
            put_back(learner, self._saved, self._own, self._base)
            return
        for name, groups in self._own.items():
            held = learner._named_optimizers[name].param_groups
            for group, own in zip(held, groups, strict=True):
                group.update(own)
        for optimizer, schedule in learner._optimizer_lr_schedules.items():
            learner._set_optimizer_lr(optimizer, schedule.update(timestep=self._view.clock))

    def get_state(self) -> dict[str, Any]:
        """Return the schedulers' states and the rates that they began with."""
        return collect(self._view.learner, self._base)

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `get_state` returned, in force after the restore."""
        self._saved = state or {}


def options_of(optimizer: Optimizer) -> Options:
    """Return a copy of an optimizer's options by param group."""
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def base_rates(learner: Any) -> dict[str, float]:
    """Return by optimizer name the learning rates before any scheduler has moved them."""
    named = learner._named_optimizers.items()
    return {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in named}


def collect(learner: Any, base: Mapping[str, float]) -> dict[str, Any]:
    """Return what `put_back` needs, as plain values.

    Args:
        learner: whose schedulers.
        base: its `base_rates`.

    Returns:
        ``{"base": {optimizer name: rate}, "states": {module id: {optimizer name: [state]}}}``;
        empty where there are no schedulers.
    """
    states: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for module_id, by_name in learner._lr_schedulers.items():
        for name, schedulers in by_name.items():
            held = [scheduler.state_dict() for scheduler in schedulers]
            if _can_be_saved(held):
                states.setdefault(module_id, {})[name] = held
    return {"base": dict(base), "states": states} if states else {}


def put_back(
    learner: Any, saved: Mapping[str, Any], before: Mapping[str, Options], base: Mapping[str, float]
) -> None:
    """Let a restored Learner schedule on from where the saved one was, from its own base.

    A clone of population-based training has another base: what came is scaled to it.

    Args:
        learner: after RLlib has restored its optimizers.
        saved: what `collect` returned; empty for what plain RLlib saved.
        before: this Learner's own options by optimizer name, of before the restore.
        base: its own `base_rates`.
    """
    came = {name: options_of(opt) for name, opt in learner._named_optimizers.items()}
    donors = {name: rate for name, rate in saved.get("base", {}).items() if rate}
    factors = {name: base.get(name, rate) / rate for name, rate in donors.items()}
    for module_id, by_name in saved.get("states", {}).items():
        for name, states in by_name.items():
            if name in before:
                _load(_schedulers(learner, module_id, name), states, factors.get(name, 1.0))
    for name, groups in before.items():
        held = learner._named_optimizers[name].param_groups
        for group, own, restored in zip(held, groups, came[name], strict=True):
            group.update(own, **_moved(restored, factors.get(name, 1.0)))


def _moved(came: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return the options that schedulers move, scaled where they are learning rates."""
    moved = {key: came[key] for key in _SCHEDULED if key in came}
    return {key: v * factor if key in _RATES else v for key, v in moved.items()}


def _load(schedulers: list[LRScheduler], states: list[dict[str, Any]], factor: float) -> None:
    if len(schedulers) == len(states):  # or the config asks for others by now
        for scheduler, state in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(_scaled(state, factor))


def _scaled(state: dict[str, Any], factor: float) -> dict[str, Any]:
    scaled = dict(state)
    for key, value in state.items():
        if key in ("base_lrs", "_last_lr", "max_lrs"):
            scaled[key] = [rate * factor for rate in value]
        elif key == "_schedulers":
            scaled[key] = [_scaled(inner, factor) for inner in value]
    return scaled


def _schedulers(learner: Any, module_id: str, name: str) -> list[LRScheduler]:
    """Return an optimizer's schedulers, made as RLlib makes them at the first step."""
    held: dict[str, list[LRScheduler]] = learner._lr_schedulers.setdefault(module_id, {})
    if name not in held:
        classes = learner._lr_scheduler_classes
        chosen = classes.get(module_id, ()) if isinstance(classes, dict) else classes
        held[name] = [make(learner._named_optimizers[name]) for make in chosen or ()]
    return held[name]


def _can_be_saved(states: list[dict[str, Any]]) -> bool:
    try:
        pickle.dumps(states)
    except (pickle.PicklingError, TypeError, AttributeError):
        return False
    return True
