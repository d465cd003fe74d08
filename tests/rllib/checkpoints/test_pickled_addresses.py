"""What a checkpoint pickles of ours is on one list, and each of it loads."""

from __future__ import annotations

import importlib
import io
import pickle
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.bc.torch.default_bc_torch_rl_module import DefaultBCTorchRLModule
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

import rayprune.rllib.models as networks
from rayprune.deploy.storage import dumps
from rayprune.rllib import normalise, prune, pruned
from rayprune.rllib.algorithms import families
from rayprune.rllib.by_reference import importable
from rayprune.rllib.checkpoints.pickled_addresses import ADDRESSES, MADE
from rayprune.rllib.connectors.filters import Scaling
from rayprune.rllib.connectors.pipelines import Imported, Joined
from rayprune.rllib.connectors.sampling import (
    NormalisingEpisodeReplayBuffer,
    NormalisingPrioritizedEpisodeReplayBuffer,
)
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.modules.resizable import shrinkable
from rayprune.rllib.replay.prioritised import ColumnarPrioritizedEpisodeReplayBuffer
from rayprune.rllib.replay.uniform import ColumnarEpisodeReplayBuffer
from tests.rllib import configs, experiments
from tests.rllib.replay.streams import Stream

pytestmark = pytest.mark.timeout(120)

CHANGES = configs.pruning(granularity="neuron", compact_every=1000)


def named_in(pickled: bytes) -> set[str]:
    """Return the addresses of ours that a pickle names; loads it."""
    found: set[str] = set()

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.startswith("rayprune"):
                found.add(f"{module}.{name}")
            return super().find_class(module, name)

    Reader(io.BytesIO(pickled)).load()
    return found


def buffers() -> Any:
    scaling = Scaling(np.zeros(3, np.float32), np.ones(3, np.float32))
    made = NormalisingEpisodeReplayBuffer(), NormalisingPrioritizedEpisodeReplayBuffer()
    for buffer in made:
        buffer._statistics = (scaling, 1.0)
    columnar = ColumnarEpisodeReplayBuffer(), ColumnarPrioritizedEpisodeReplayBuffer()
    for filled in columnar:
        filled.add(Stream().chunks(3))
    return *made, *columnar


def learner_state() -> Any:
    config = configs.ppo().environment(
        observation_space=gym.spaces.Box(-1, 1, (4,), np.float32),
        action_space=gym.spaces.Discrete(2),
    )
    learner = prune(config, CHANGES).build_learner()
    learner.prune_now()
    return learner.get_state()


def own_network(cls: Any) -> Any:
    spec = RLModuleSpec(module_class=cls)
    return prune(configs.ppo().rl_module(rl_module_spec=spec), configs.pruning())


SAVED = {
    "a pruning config": lambda: prune(configs.ppo(), configs.pruning()),
    "one that resizes and normalises": lambda: prune(
        normalise(configs.ppo(), rewards=True), CHANGES
    ),
    "one of a YAML": lambda: base_config(experiments.experiment(experiments.PPO)),
    "linear networks": lambda: [family.linear_catalog for family in families()],
    "networks of ours": lambda: [
        own_network(getattr(networks, name)) for name in networks.__all__ if "Prunable" in name
    ],
    "connectors of a user's own": lambda: Joined((Imported("tests.doubles.my_connectors:x", "y"),)),
    "replay buffers": buffers,
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_loads_under_its_own_name(address: str) -> None:
    module, _, name = address.rpartition(".")
    held = getattr(importlib.import_module(module), name)
    assert pickle.loads(pickle.dumps(held)) is held


@pytest.mark.parametrize("what", SAVED)
def test_what_is_saved_names_no_other_address(what: str) -> None:
    found = named_in(cloudpickle.dumps(SAVED[what]()))
    assert found
    assert {name for name in found if not name.startswith(MADE)} <= set(ADDRESSES)


def test_a_learners_state_is_plain_values_and_arrays() -> None:
    assert named_in(dumps(learner_state())) == {"rayprune.deploy.storage.unpack"}


@pytest.mark.parametrize(
    ("make", "base"), [(pruned, PPOTorchLearner), (shrinkable, DefaultBCTorchRLModule)]
)
def test_a_class_made_on_demand_pickles_by_its_name(make: Any, base: type) -> None:
    made = make(base)
    assert importable(made)
    assert make(made) is made
    assert f"{made.__module__}.{made.__name__}".startswith(MADE)
    assert pickle.loads(pickle.dumps(made)) is made
    local = type("Local", (base,), {})
    assert not importable(make(local))
    assert issubclass(cloudpickle.loads(cloudpickle.dumps(make(local))), base)
