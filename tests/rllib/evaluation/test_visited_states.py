"""Recorded states, asked of the module that met them, give what it did there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rayprune.rllib.evaluation import visited_states as recording
from rayprune.rllib.evaluation.closeness import differences
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.evaluation.visited_states import VisitedStates
from tests.rllib import configs

CONFIGS = {
    "ppo": configs.ppo,
    "lstm": lambda: configs.ppo(use_lstm=True, lstm_cell_size=8, max_seq_len=10),
    "dqn": configs.dqn,
    "sac": configs.sac,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_unchanged_module_agrees_with_itself_and_a_changed_one_does_not(name: str) -> None:
    torch.manual_seed(0)
    evaluator = Evaluator(CONFIGS[name](), whole=True)
    taken: list[Any] = []
    recorded = VisitedStates()

    def watch(acted: Any) -> None:
        recorded.watch(acted)
        taken.extend(acted.actions)

    evaluator.returns(100, 2, watch)
    before = recorded.ask(evaluator.module)
    again = differences(evaluator.module, before, recorded.ask(evaluator.module))
    assert again["states"] == len(taken)
    assert (again["agreement"] or 1.0, again["action_difference"] or 0.0) == (1.0, 0.0)
    assert again["value_rmse"] == 0
    # In one batch instead of step by step: the same actions that were taken.
    assert all((a == b).all() for a, b in zip(before.actions, taken, strict=True)) or all(
        abs(a - b).max() < 1e-5 for a, b in zip(before.actions, taken, strict=True)
    )
    with torch.no_grad():
        for parameter in evaluator.module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    changed = differences(evaluator.module, before, recorded.ask(evaluator.module))
    assert changed["value_rmse"] > 0
    evaluator.close()


def test_no_more_states_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_STATES", 20)
    evaluator = Evaluator(configs.ppo(), whole=True)
    recorded = VisitedStates()
    evaluator.returns(100, 6, recorded.watch)
    kept = len(recorded.ask(evaluator.module).actions)
    evaluator.close()
    assert 10 <= kept <= 40
