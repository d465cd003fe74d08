"""The layers that make an RLModule's actions and values, whatever their names."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.iql.iql import IQLConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.examples.rl_modules.classes import autoregressive_actions_rlm as autoregressive
from torch import nn

from rayprune.pruning.layers.attach import make_maskable, maskable_layers
from rayprune.rllib import prune
from rayprune.rllib.modules import heads
from rayprune.rllib.modules.groups import output_heads
from rayprune.rllib.modules.heads import heads_of
from tests.doubles import shared_encoder
from tests.rllib import configs

SEEN = gym.spaces.Box(-1, 1, (4,), np.float32)
IMAGE = gym.spaces.Box(0, 255, (42, 42, 3), np.uint8)
BOX = gym.spaces.Box(-1, 1, (2,), np.float32)
CHOICE = gym.spaces.Discrete(3)
ATOMS = {"num_atoms": 5, "v_min": -1.0, "v_max": 1.0}


def built(config: AlgorithmConfig, seen: gym.Space[Any], acts: gym.Space[Any]) -> Any:
    spec = config.get_default_rl_module_spec()
    assert isinstance(spec, RLModuleSpec)
    spec.observation_space, spec.action_space, spec.inference_only = seen, acts, False
    spec.model_config = config.model_config
    return spec.build()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name.startswith("rayprune")]
    return [record.getMessage() for record in ours]


def own(module_class: type, seen: gym.Space[Any] = SEEN, acts: gym.Space[Any] = CHOICE) -> Any:
    return module_class(
        observation_space=seen, action_space=acts, inference_only=False, model_config={}
    )


def recurrent() -> AlgorithmConfig:
    return PPOConfig().rl_module(model_config={"use_lstm": True, "lstm_cell_size": 8})


RLLIBS: dict[str, tuple[AlgorithmConfig, gym.Space[Any], gym.Space[Any]]] = {
    "ppo": (PPOConfig(), SEEN, CHOICE),
    "ppo on images": (PPOConfig(), IMAGE, BOX),
    "ppo with a state": (recurrent(), SEEN, gym.spaces.MultiDiscrete([2, 3])),
    "dqn": (DQNConfig(), SEEN, CHOICE),
    "dqn of one stream": (DQNConfig().training(dueling=False), SEEN, CHOICE),
    "dqn of atoms": (DQNConfig().training(**ATOMS), SEEN, CHOICE),
    "sac": (SACConfig(), SEEN, BOX),
    "sac on choices": (SACConfig(), SEEN, CHOICE),
    "cql": (CQLConfig(), SEEN, BOX),
    "iql": (IQLConfig(), SEEN, BOX),
}


@pytest.mark.parametrize("case", RLLIBS)
def test_rllibs_own_modules_have_the_heads_that_their_names_tell(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    module = built(*RLLIBS[case])
    with caplog.at_level(logging.WARNING):
        found = heads_of(module, [])
    assert found == output_heads(maskable_layers(module))
    assert not told(caplog)


@pytest.mark.parametrize("targets", [False, True], ids=["checked", "on a Learner"])
def test_every_quantile_of_tqc_is_an_output(targets: bool) -> None:
    module, copies = built(TQCConfig(), SEEN, BOX), []
    if targets:
        module.make_target_networks()
        copies = [module.target_qf_encoders, module.target_qf_heads]
    found = heads_of(module, copies)
    assert found == {"pi.net.mlp.0", "qf_heads.0.net.mlp.0", "qf_heads.1.net.mlp.0"}
    assert hasattr(module, "target_qf_heads") is targets


def test_both_steps_of_an_autoregressive_policy_are_outputs() -> None:
    acts = gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (1,), np.float32)])
    module = own(autoregressive.AutoregressiveActionsRLM, acts=acts)
    assert heads_of(module, []) == {"_prior_net.2", "_posterior_net.2", "_value_net.2"}


class Own(TorchRLModule, ValueFunctionAPI):
    """Names that no list of words knows."""

    def setup(self) -> None:
        super().setup()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.ReLU())
        self.action_head = nn.Linear(32, self.action_space.n)
        self.worth = nn.Linear(32, 1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.action_head(self.net(batch[Columns.OBS]))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        return self.worth(self.net(batch[Columns.OBS])).squeeze(-1)


class InTraining(Own):
    """A head that only the train forward has, beside hidden units."""

    def setup(self) -> None:
        super().setup()
        self.extra, self.exploring = nn.Linear(32, 5), nn.Linear(32, 3)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.exploring(self.net(batch[Columns.OBS]))}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        features = self.net(batch[Columns.OBS])
        extra = {"extra": self.extra(features), "features": features}
        return {**self._forward(batch), Columns.EMBEDDINGS: features, **extra}


class StateIsAction(TorchRLModule):
    """An LSTM's output is the logits."""

    def setup(self) -> None:
        super().setup()
        self.below, self.cell = nn.Linear(4, 7), nn.LSTM(7, 3, batch_first=True)

    def get_initial_state(self) -> dict[str, Any]:
        return {"h": np.zeros(3, np.float32), "c": torch.zeros(3)}

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        state = batch[Columns.STATE_IN]
        given = state["h"][None], state["c"][None]
        logits, (h, c) = self.cell(self.below(batch[Columns.OBS]), given)
        return {Columns.ACTION_DIST_INPUTS: logits, Columns.STATE_OUT: {"h": h[0], "c": c[0]}}


class Silent(Own):
    """One that returns actions alone, of an image of integers, each in a dict."""

    def setup(self) -> None:
        super().setup()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(12, 32))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        obs = batch.pop(Columns.OBS)
        logits = self.action_head(self.net(obs.pop("image")))
        return {Columns.ACTIONS: torch.distributions.Categorical(logits=logits).sample()}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        return self.worth(self.net(batch[Columns.OBS]["image"])).squeeze(-1)


PIXELS = gym.spaces.Dict(image=gym.spaces.Box(0, 255, (2, 2, 3), np.uint8))
OWN: dict[str, tuple[type, gym.Space[Any], set[str]]] = {
    "names": (Own, SEEN, {"action_head", "worth"}),
    "training": (InTraining, SEEN, {"action_head", "worth", "extra", "exploring"}),
    "a state": (StateIsAction, SEEN, {"cell"}),
    "actions": (Silent, PIXELS, {"action_head", "worth"}),
}


@pytest.mark.parametrize("case", OWN)
def test_what_makes_the_actions_and_values_of_a_users_module_is_a_head(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, seen, expected = OWN[case]
    with caplog.at_level(logging.WARNING):
        assert heads_of(own(kind, seen), []) == expected
    assert not told(caplog)


class Routed(TorchRLModule, ValueFunctionAPI):
    """A head for each task, chosen by the observation; each task's experts before them."""

    def setup(self) -> None:
        super().setup()
        self.experts = nn.ModuleList(nn.Linear(4, 8) for _ in range(5))
        self.tasks = nn.ModuleDict(
            {f"task {task}": nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)) for task in range(5)}
        )
        self.worth = nn.ModuleList(nn.Linear(8, 1) for _ in range(5))

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        task = int(batch["obs"][0].argmax())
        hidden = self.experts[task](batch["obs"]).relu()
        return {Columns.ACTION_DIST_INPUTS: self.tasks[f"task {task}"](hidden)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        hidden = sum(expert(batch["obs"]).relu() for expert in self.experts)
        every = torch.cat([head(hidden) for head in self.worth], -1)
        return every.gather(-1, batch["obs"].argmax(-1, keepdim=True)).squeeze(-1)


def test_heads_that_the_observation_chooses_among_are_heads_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = {f"tasks.task {task}.1" for task in range(5)}
    worth = {f"worth.{task}" for task in range(5)}
    with caplog.at_level(logging.WARNING):
        assert heads_of(own(Routed), [], name="routed") == tasks | worth
    (line,) = told(caplog)
    assert "no run on a made-up batch used what layers ['tasks.task " in line


class Broken(Own):
    """One that needs what no one else could give it."""

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.action_head(batch["from elsewhere"])}


def test_names_have_to_do_where_running_fails_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heads._tell.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert heads_of(own(Broken), [], name="it") == {"action_head", "worth"}
    assert told(caplog) == [
        "RLModule 'it': what layers ['action_head'] put out can't be told by running it "
        "(`forward_inference` fails: KeyError: 'from elsewhere'; `forward_exploration` fails: "
        "KeyError: 'from elsewhere'; `forward_train` fails: KeyError: 'from elsewhere'). By their "
        "names ['action_head'] count as actions and values, and keep all their units. If that is "
        "wrong, list the right ones under `pruning.protect`."
    ]


def test_a_module_that_can_only_run_with_the_others_runs_with_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parent = shared_encoder.build(SEEN, CHOICE)
    with caplog.at_level(logging.WARNING):
        assert heads_of(parent["p0"], [], name="p0", parent=parent) == {"_pi_head.2"}
        # What policies read on are hidden units, though its module ends there.
        assert heads_of(parent[shared_encoder.ENCODER], [], parent=parent) == set()
    assert not told(caplog)


def test_running_leaves_an_rlmodule_as_it_is() -> None:
    module = make_maskable(built(DQNConfig(), SEEN, CHOICE))
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    drawn, epsilon = torch.get_rng_state(), module.epsilon_schedule.get_current_value()
    heads_of(module, [])
    assert module.training
    assert module.epsilon_schedule.get_current_value() == epsilon
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("granularity", ["neuron", "hybrid"])
def test_a_users_logits_still_vary_when_neurons_are_pruned(granularity: str) -> None:
    spec = RLModuleSpec(
        module_class=Own, observation_space=SEEN, action_space=CHOICE, model_config={}
    )
    config = configs.ppo().environment(None, observation_space=SEEN, action_space=CHOICE)
    config = config.rl_module(rl_module_spec=spec, model_config={})
    shares = {"hybrid": {"neuron": 0.5, "weight": 0.6}, "sparsity": None}
    pruning = configs.pruning(
        granularity=granularity, **(shares if granularity == "hybrid" else {"sparsity": 0.8})
    )
    learner = prune(config, pruning).build_learner()
    learner.build()
    learner.prune_now()
    module = learner.module[DEFAULT_MODULE_ID]
    logits = module.forward_inference({Columns.OBS: torch.rand(99, 4)})[Columns.ACTION_DIST_INPUTS]
    assert (logits.std(0) > 0).all()
    assert module.action_head.weight.any(1).all()
    assert not module.net[0].weight.any(1).all()
