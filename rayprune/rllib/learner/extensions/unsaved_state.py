"""Learner state that RLlib 2.60 leaves out of its checkpoints.

PPO's adaptive KL coefficient, SAC's temperature and the step of the last target update live in
attributes of the Learner, which the algorithms' families name. Without them a resumed run learns
differently.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.learner import Learner

from rayprune.rllib.algorithms import learned_attributes, moment_attributes
from rayprune.rllib.learner.extension import Extension


class UnsavedState(Extension):
    """Saves and restores these attributes."""

    key = "unsaved"

    def get_state(self) -> dict[str, dict[str, Any]]:
        """Return them by module id."""
        return collect(self._view.learner)

    def set_state(self, state: dict[str, dict[str, Any]] | None) -> None:
        """Put them back."""
        put_back(self._view.learner, state or {})


def collect(learner: Learner) -> dict[str, dict[str, Any]]:
    """Return ``{attribute: {module id: value}}`` as plain Python numbers and lists."""
    state: dict[str, dict[str, Any]] = {}
    for attribute in (*learned_attributes(), *moment_attributes()):
        values = getattr(learner, attribute, None)
        if values is not None:
            state[attribute] = {mid: _plain(values[mid]) for mid in values}
    return state


def learned_values(learner: Learner, module_id: str) -> dict[str, dict[str, Any]]:
    """Return what of `collect` one module has learned: values, not moments in time."""
    state = collect(learner)
    return {
        attribute: {module_id: state[attribute][module_id]}
        for attribute in learned_attributes()
        if module_id in state.get(attribute, {})
    }


def put_back(learner: Learner, state: dict[str, dict[str, Any]]) -> None:
    """Write what :func:`collect` returned into ``learner``, tensors in place.

    In place, because SAC's optimizer holds the temperature's very tensor.
    """
    for attribute, values in state.items():
        held = getattr(learner, attribute, None)
        if held is None:
            continue
        for mid, value in values.items():
            if attribute in moment_attributes():
                held[mid] = value
            else:
                with torch.no_grad():
                    held[mid].copy_(torch.as_tensor(value, dtype=held[mid].dtype))


def _plain(value: Any) -> Any:
    return value.detach().cpu().tolist() if isinstance(value, torch.Tensor) else value
