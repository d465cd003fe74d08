"""When remedies act on a training, and a user's own beside the built-in ones."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError
from rayprune.pruning import remedies
from rayprune.pruning.checks import number
from rayprune.pruning.remedies import (
    REMEDIES,
    chosen_remedies,
    register_remedy,
    remedy_options,
    replay_faults,
)
from rayprune.pruning.remedies.base import Moment, Remedy


class Host:
    """Writes down what was set."""

    def __init__(self):
        self.told = []

    def set_target_steps(self, steps):
        self.told.append(("target steps", steps))

    def set_replay_capacity(self, env_steps):
        self.told.append(("capacity", env_steps))


def told(settings, **moment):
    host = Host()
    for _, remedy in chosen_remedies(settings):
        remedy.after_iteration(host, Moment(**{"clock": 0, "horizon": 1000, **moment}), settings)
    return host.told


def test_remedies_set_what_they_are_for_when_their_time_has_come():
    n_step = {"n_step": 3, "n_step_from": 0.5}
    assert told(n_step, clock=499) == []
    assert told(n_step, clock=500) == [("target steps", 3)]
    replay = {"replay_limit": 200, "replay_reset": 120}
    assert told(replay) == [("capacity", None), ("capacity", None)]
    assert told(replay, sparsity=0.5) == [("capacity", 200), ("capacity", None)]
    assert told(replay, sparsity=0.5, churn=0.1) == [("capacity", 200), ("capacity", 120)]


class ShrinkAndPerturb(Remedy):
    """Pulls all weights towards zero after each mask update (Ash and Adams 2020)."""

    options: ClassVar = {"shrink": "what is left of each weight after a mask update"}
    needs_replay = True

    @classmethod
    def faults(cls, field, block):
        value = block.get("shrink", 1.0)
        yield from number(f"{field}.shrink", value, "a number above 0", lambda x: x > 0)

    @torch.no_grad()
    def after_update(self, change):
        for weight in self.pruner.parameters.values():
            weight.mul_(self.settings.get("shrink", 1.0))


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(remedies._REGISTRY, "_entries", dict(REMEDIES))
    register_remedy("shrink", ShrinkAndPerturb)


@pytest.mark.usefixtures("registered")
def test_what_a_user_registers_is_a_key_like_the_others_and_acts_on_weights():
    assert list(remedy_options())[-1] == "shrink"
    wrong = PruningConfig.faults_of({"sparsity": 0.5, "remedies": {"shrink": 0}})
    assert wrong == ["`pruning.remedies.shrink` must be a number above 0, but is 0."]
    (fault,) = replay_faults({"shrink": 0.5}, "PPO")
    assert "`pruning.remedies.shrink` needs a replay buffer" in fault
    config = PruningConfig(sparsity=0.5, schedule={"kind": "one_shot", "begin": 0, "end": 10})
    nets = [nn.Linear(4, 4, bias=False) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    plain, shrunk = (
        Pruner(net, config.replace(remedies=settings))
        for net, settings in zip(nets, ({}, {"shrink": 0.5}), strict=True)
    )
    assert plain.update(10).pruned == shrunk.update(10).pruned == 8
    assert torch.equal(nets[1].weight, nets[0].weight * 0.5)
    with pytest.raises(ConfigError, match="named 'rescale' exists already"):
        register_remedy("rescale", ShrinkAndPerturb)


def test_a_registered_remedy_says_what_it_does_not_go_with(monkeypatch):
    class Shout(Remedy):
        """Says that something was pruned."""

        options: ClassVar = {"shout": "how loud"}

        @classmethod
        def conflicts(cls, prefix, chosen):
            if chosen.schedule.sparse_from_start:
                yield f"`{prefix}remedies.shout` has nothing to say."

    monkeypatch.setattr(REMEDIES, "_entries", dict(REMEDIES))
    register_remedy("shout", Shout)
    block = {"sparsity": 0.5, "schedule": {"kind": "static"}}
    assert PruningConfig.faults_of({**block, "remedies": {"shout": 1}}) == [
        "`pruning.remedies.shout` has nothing to say."
    ]
    assert PruningConfig.faults_of(block) == []
