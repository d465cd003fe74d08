"""Between two mask updates a member of a Pruner rests: it is known that nothing is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig, register_schedule
from rayprune.pruning.schedules import LinearSchedule

CUBIC = {"kind": "cubic", "begin": 100, "end": 500, "every": 100}


@dataclass(frozen=True)
class Told(LinearSchedule):
    """A user's: goes by what it reads at the moment."""

    def sparsity_at(self, step: float) -> float:
        return TOLD[0] * self.final


TOLD = [0.0]


def pruner_of(**fields: Any) -> Pruner:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2)
    )
    schedule = fields.pop("schedule", CUBIC)
    return Pruner(module, PruningConfig(sparsity=0.8, schedule=schedule, **fields), driven=True)


def freeze(pruner: Pruner, *, learns: bool) -> None:
    pruner.module[2].weight.requires_grad_(learns)


EVENTS: dict[str, Callable[[Pruner], object]] = {
    "higher": lambda p: setattr(p, "config", p.config.replace(sparsity=0.9)),
    "lower": lambda p: setattr(p, "config", p.config.replace(sparsity=0.3)),
    "frozen": lambda p: freeze(p, learns=False),
    "trained": lambda p: freeze(p, learns=True),
    "restored": lambda p: p.load_state_dict(STATES[0]),
    "restarted": lambda p: p.restart(),
    "pruned": lambda p: p.prune_to(0.85),
}
STATES: list[Any] = []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"on_clone": "regrow", "schedule": {**CUBIC, "kind": "linear"}},
        {"schedule": {"kind": "one_shot", "begin": 100, "every": 50}},
        {"schedule": {"kind": "set", "end": 500, "every": 100}},
        {"operation": {"scale": 0.5, "steps": 3}},
        {"groups": {"all": {"schedule": {**CUBIC, "every": 70}}}},
    ],
)
def test_who_rests_has_no_mask_update_due(fields: dict[str, Any]) -> None:
    pruner = pruner_of(**fields)
    STATES[:] = [pruner.state_dict()]
    events = [None, *EVENTS, "trained", "restored", "lower", "higher"]
    rested = 0
    for turn, event in enumerate(events):
        if event:
            EVENTS[event](pruner)
        for clock in range(60 * turn, 60 * turn + 60, 12):
            rests = all(member.rests(clock) for member in pruner.members)
            assert not rests or pruner.update(clock) is None, (event, clock)
            pruner.update(clock)
            rested += rests
    assert rested > 20


def test_a_schedule_of_ones_own_is_always_asked() -> None:
    register_schedule("told", Told)
    pruner = pruner_of(schedule={"kind": "told", "begin": 0, "end": 1000, "every": 1000})
    changes = []
    for told in (0.0, 0.5, 0.5, 1.0):
        TOLD[0] = told
        assert not any(member.rests(10) for member in pruner.members)
        changes.append(pruner.update(10) is not None)
    assert changes == [True, True, False, True]
