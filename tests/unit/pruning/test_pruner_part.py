"""Parts of a Pruner: what each event is for, that their order is told, and what a user's may do."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch import nn

from rayprune import Pruner
from rayprune.errors import CheckpointError
from rayprune.pruning import group_pruner as pruner_file
from rayprune.pruning.group_pruner import PARTS
from rayprune.pruning.pruner_part import PrunerPart

RAMP = {"kind": "linear", "begin": 100, "end": 300, "every": 100}
RATE = 0.05

CASES = {
    "rescaled, shrunk and faded": {
        "penalty": {"kind": "l1", "strength": 0.1},
        "remedies": {"rescale": True},
        "operation": {"scale": 0.5, "steps": 2},
    },
    "layers": {"granularity": "layer", "sparsity": 0.4, "penalty": {"kind": "l1", "strength": 0.1}},
    "movement": {"criterion": "movement"},
    "rigl": {"schedule": {"kind": "rigl", "begin": 0, "end": 500, "every": 100, "minibatches": 2}},
}

# Neighbours that may not change places, with the reason. There are none: of any two, what one
# writes the other neither reads nor writes at the same event. Who adds a part that does says so.
MUST_STAND_SO: dict[tuple[type, type], str] = {}


def net() -> nn.Module:
    torch.manual_seed(2)
    layers = [nn.Linear(4, 8), *(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 2)]
    return nn.Sequential(*itertools.chain(*((layer, nn.Tanh()) for layer in layers)))


def trained(config: dict, steps: int = 5, resume_at: int | None = None) -> Pruner:
    """Prune while training for some steps, and return the Pruner."""

    def made() -> Pruner:
        return Pruner(net(), {"sparsity": 0.6, "schedule": RAMP, **config})

    pruner = made()
    pruner.start()
    optimizer = torch.optim.SGD(pruner.module.parameters(), lr=RATE)
    data = torch.Generator().manual_seed(1)
    for step in range(1, steps + 1):
        if step == resume_at:
            heir = made()
            heir.module.load_state_dict(pruner.module.state_dict())
            heir.load_state_dict(pruner.state_dict())
            pruner, optimizer = heir, torch.optim.SGD(heir.module.parameters(), lr=RATE)
        optimizer.zero_grad()
        pruner.module(torch.randn(16, 4, generator=data)).square().mean().backward()
        gradients = {p: p.grad for p in pruner.module.parameters()}
        pruner.observe_gradients(gradients)
        pruner.gather_gradients(gradients)
        pruner.mask_gradients(gradients)
        optimizer.step()
        pruner.penalise(100 * step, dict.fromkeys(pruner.module.parameters(), RATE))
        pruner.mask_weights()
        pruner.update(100 * step)
    return pruner


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(held) for key, held in value.items()}
    return value


def outcome(pruner: Pruner) -> tuple:
    return plain(dict(pruner.module.state_dict())), plain(pruner.state_dict())


@functools.cache
def as_it_stands(name: str) -> tuple:
    return outcome(trained(CASES[name]))


@pytest.mark.parametrize("place", range(len(PARTS) - 1), ids=lambda n: PARTS[n].__name__)
def test_neighbours_change_places_unless_it_is_told_why_not(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {name: as_it_stands(name) for name in CASES}
    swapped = list(PARTS)
    swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    monkeypatch.setattr(pruner_file, "PARTS", tuple(swapped))
    same = all(outcome(trained(config)) == expected[name] for name, config in CASES.items())
    assert same is ((PARTS[place], PARTS[place + 1]) not in MUST_STAND_SO)


@pytest.mark.parametrize("name", CASES)
def test_parts_go_on_from_a_state_as_from_where_it_was_saved(name: str) -> None:
    assert outcome(trained(CASES[name], resume_at=3)) == as_it_stands(name)


class Noted(PrunerPart):
    """Overrides every event, and notes what it sees."""

    key = "noted"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_gradients(self, gradients):
        self.seen.append("gradients")
        assert all(isinstance(p, nn.Parameter) for p in gradients)

    def on_masked_gradients(self, gradients):
        self.seen.append("masked gradients")
        weight, mask = self.pruner.weights["0.weight"], self.pruner.held_masks.get("0.weight")
        assert mask is None or not bool(gradients[weight][~mask].any())

    def on_masked_weights(self):
        self.seen.append("masked weights")

    def after_step(self, clock, rates):
        self.seen.append(f"step {clock}")

    def before_drop(self, name, weight):
        self.held = weight.detach().count_nonzero()
        assert weight is self.pruner.weights[name]

    def after_drop(self, name, weight):
        assert weight.detach().count_nonzero() < self.held
        weight.mul_(2.0)
        return 2.0

    def after_commit(self, change):
        self.seen.append(f"commit {change.pruned}")

    def after_update(self, change):
        self.seen.append(f"update {change.step}")

    def on_compaction(self, pick):
        self.seen.append("compaction")

    def state_dict(self):
        return list(self.seen)

    def unpack(self, state):
        return [*state]

    def restore(self, unpacked):
        self.seen = unpacked


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruner_file, "PARTS", (*PARTS, Noted))


@pytest.mark.usefixtures("noting")
def test_events_come_in_the_order_of_a_training_step() -> None:
    pruner = trained({"schedule": {"kind": "one_shot", "begin": 200, "every": 100}}, steps=2)
    step = ["gradients", "masked gradients", "step {}", "masked weights"]
    seen = pruner.state_dict()["noted"]
    done = [text.format(clock) for clock in (100, 200) for text in step]
    assert seen == [*done, *seen[-2:]]
    assert [text.split()[0] for text in seen[-2:]] == ["commit", "update"]


def test_learning_rates_are_wanted_by_a_penalty_or_a_part_of_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    penalty = {"kind": "l1", "strength": 0.1}
    assert not Pruner(net(), {"sparsity": 0.5}).wants_rates
    assert Pruner(net(), {"sparsity": 0.5, "penalty": penalty}).wants_rates
    monkeypatch.setattr(pruner_file, "PARTS", (*PARTS, Noted))
    assert Pruner(net(), {"sparsity": 0.5}).wants_rates


@pytest.mark.usefixtures("noting")
def test_what_parts_multiply_by_after_a_drop_is_told_for_each_parameter() -> None:
    config = {"sparsity": 0.5, "remedies": {"rescale": True}}
    pruner = Pruner(net(), config)
    weight = pruner.parameters["0.weight"]
    before = weight.detach().clone()
    change = pruner.prune_to()
    kept = pruner.masks["0.weight"]
    factor = change.scales["0.weight"]  # rescale's, times two
    assert factor > 2.0
    assert torch.allclose(weight[kept], factor * before[kept])
    assert pruner.state_dict()["noted"] == [f"commit {change.pruned}"]


@pytest.mark.usefixtures("noting")
def test_a_broken_entry_of_one_part_leaves_all_as_they_were() -> None:
    pruner = trained({"criterion": "movement"})
    before = outcome(pruner)
    state = pruner.state_dict()
    other = trained({"criterion": "movement"}, steps=2).state_dict()
    for broken in ({**other, "noted": 3}, {**other, "bypassed": ["nobody"]}):
        with pytest.raises(CheckpointError):
            pruner.load_state_dict(broken)
        assert outcome(pruner) == before
    pruner.load_state_dict(state)
    assert outcome(pruner)[0] == before[0]
