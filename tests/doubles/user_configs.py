"""RLlib configs as users have them: networks, Learners, callbacks and agents of many kinds.

Each must run with exact zeros, or be refused when the algorithm is built, in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.algorithms.classes.vpg import VPGConfig
from ray.rllib.examples.envs.classes.correlated_actions_env import CorrelatedActionsEnv
from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole
from ray.rllib.examples.envs.classes.multi_agent.tic_tac_toe import TicTacToe
from ray.rllib.examples.learners.classes.custom_ppo_loss_fn_learner import (
    PPOTorchLearnerWithWeightRegularizerLoss,
)
from ray.rllib.examples.learners.classes.separate_vf_lr_and_optimizer_learner import (
    PPOTorchLearnerWithSeparateVfOptimizer,
)
from ray.rllib.examples.learners.classes.vpg_torch_learner_shared_optimizer import (
    VPGTorchLearnerSharedOptimizer,
)
from ray.rllib.examples.rl_modules.classes import vpg_using_shared_encoder_rlm as shared
from ray.rllib.examples.rl_modules.classes.autoregressive_actions_rlm import (
    AutoregressiveActionsRLM,
)
from ray.rllib.examples.rl_modules.classes.lstm_containing_rlm import LSTMContainingRLModule
from ray.rllib.examples.rl_modules.classes.tiny_atari_cnn_rlm import TinyAtariCNN
from ray.rllib.examples.rl_modules.classes.vpg_torch_rlm import VPGTorchRLModule

from rayprune import PruningConfig
from rayprune.rllib import prune
from tests.doubles import learners, user_modules
from tests.doubles.envs import Images
from tests.rllib import configs

RAMP = {"kind": "cubic", "begin": 0.1, "end": 0.8, "every": 100}
# Their EnvRunners follow a little later.
ASYNCHRONOUS = ("APPO", "IMPALA")
BASE: dict[str, Any] = {"sparsity": 0.8, "horizon": 600, "schedule": RAMP}


@dataclass(frozen=True)
class Case:
    """A user's config, how it is pruned, and what he does between two iterations."""

    make: Callable[[], AlgorithmConfig]
    pruning: dict[str, Any] = field(default_factory=dict)
    modules: Any = None
    between: Callable[[Any, int], None] = lambda algorithm, iteration: None

    @property
    def criterion(self) -> str:
        """What it is pruned by."""
        return self.pruning.get("criterion", "l1")

    def config(self) -> AlgorithmConfig:
        """Return the pruning config."""
        return prune(self.make(), PruningConfig(**{**BASE, **self.pruning}), modules=self.modules)


def own(
    module: type,
    *,
    env: Any = "CartPole-v1",
    learner: type | None = None,
    callback: type | None = None,
    **model: Any,
):
    """Return a maker of PPO with a module of the user's own."""

    def make() -> PPOConfig:
        config = (
            PPOConfig()
            .environment(env)
            .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
            .training(train_batch_size_per_learner=200, minibatch_size=64, num_epochs=2)
            .rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=model))
            .debugging(seed=0, log_level="ERROR")
        )
        if learner is not None:
            config.learners(learner_class=learner)
        if callback is not None:
            config.callbacks(callback)
        return config

    return make


def learner(cls: type, make: Callable[[], AlgorithmConfig] = configs.ppo, **training: Any):
    """Return a maker of a config with a Learner of the user's own."""
    return lambda: make().learners(learner_class=cls).training(**training)


def agents(n: int = 2, *, env: Any = MultiAgentCartPole, **multi_agent: Any):
    """Return a maker of PPO with a policy for each agent."""
    names = {f"p{i}" for i in range(n)}
    keywords = {
        "policies": names,
        "policy_mapping_fn": lambda agent, episode, **_: f"p{agent}",
        **multi_agent,
    }
    return lambda: (
        configs.ppo(env).environment(env_config={"num_agents": n}).multi_agent(**keywords)
    )


def _turns() -> AlgorithmConfig:
    by_name = {"player1": "p0", "player2": "p1"}
    return configs.ppo(TicTacToe).multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=lambda agent, episode, **_: by_name[agent]
    )


def _one_of_four(agent: Any, episode: Any, **_: Any) -> str:
    # Which policies play changes from episode to episode: a batch may lack some.
    return f"p{(hash(episode.id_) + agent) % 4}"


def _vpg_shared() -> AlgorithmConfig:
    spaces = gym.make("CartPole-v1")
    of = {"observation_space": spaces.observation_space, "action_space": spaces.action_space}
    spec = RLModuleSpec
    return (
        VPGConfig()
        .environment(MultiAgentCartPole, env_config={"num_agents": 2})
        .env_runners(num_env_runners=0)
        .training(num_episodes_per_train_batch=4)
        .learners(learner_class=VPGTorchLearnerSharedOptimizer)
        .multi_agent(
            policies={"p0", "p1"}, policy_mapping_fn=lambda agent, episode, **_: f"p{agent}"
        )
        .rl_module(
            rl_module_spec=MultiRLModuleSpec(
                multi_rl_module_class=shared.VPGMultiRLModuleWithSharedEncoder,
                rl_module_specs={
                    shared.SHARED_ENCODER_ID: spec(
                        module_class=shared.SharedEncoder,
                        model_config={"embedding_dim": 16},
                        **of,
                    ),
                    **{
                        f"p{i}": spec(
                            module_class=shared.VPGPolicyAfterSharedEncoder,
                            model_config={"embedding_dim": 16, "hidden_dim": 16 * (i + 1)},
                        )
                        for i in range(2)
                    },
                },
            )
        )
        .debugging(seed=0, log_level="ERROR")
    )


def _vpg() -> AlgorithmConfig:
    return (
        VPGConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(num_episodes_per_train_batch=4)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=VPGTorchRLModule, model_config={"hidden_dim": 16}
            )
        )
        .debugging(seed=0, log_level="ERROR")
    )


def _tqc() -> AlgorithmConfig:
    return (
        TQCConfig()
        .environment("Pendulum-v1")
        .env_runners(num_env_runners=0)
        .training(num_steps_sampled_before_learning_starts=50, train_batch_size_per_learner=16)
        .reporting(min_sample_timesteps_per_iteration=60)
        .rl_module(model_config={"fcnet_hiddens": [16, 16], "head_fcnet_hiddens": []})
        .debugging(seed=0, log_level="ERROR")
    )


def _asynchronous(config: AlgorithmConfig) -> AlgorithmConfig:
    config.environment("CartPole-v1").learners(num_learners=0)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    config.training(train_batch_size_per_learner=100)
    config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=300)
    return config.rl_module(model_config={"fcnet_hiddens": [16, 16]}).debugging(
        seed=0, log_level="ERROR"
    )


def _adds_module(algorithm: Any, iteration: int) -> None:
    if iteration == 1:
        spec = RLModuleSpec.from_module(algorithm.get_module("p0"))
        algorithm.add_module("p9", spec, new_agent_to_module_mapping_fn=_to_nine)


def _to_nine(agent: Any, episode: Any, **_: Any) -> str:
    return "p9" if agent == 1 else "p0"


def _removes_module(algorithm: Any, iteration: int) -> None:
    if iteration == 2:
        algorithm.remove_module("p1", new_agent_to_module_mapping_fn=lambda a, e, **_: "p0")


def _sets_weights(algorithm: Any, iteration: int) -> None:
    state = algorithm.learner_group.get_state(components="learner")["learner"]["rl_module"]
    for module in state.values():
        for name, value in module.items():
            module[name] = value + 0.01
    algorithm.learner_group.set_state({"learner": {"rl_module": state}})


def _restores_module(path: Any, algorithm: Any, iteration: int) -> None:
    if iteration == 0:
        algorithm.save_to_path(path)
    if iteration == 2:
        algorithm.restore_from_path(
            path / "learner_group" / "learner" / "rl_module",
            component="learner_group/learner/rl_module",
        )


def cases() -> Iterator[tuple[str, Case]]:
    """Yield each case with its name."""
    yield from _networks()
    yield from _learners()
    yield from _multi_agent()
    yield from _algorithms()


def _networks() -> Iterator[tuple[str, Case]]:
    for body in user_modules.BODIES:
        for granularity in ("weight", "neuron"):
            make = own(user_modules.Own, body=body)
            yield f"{body}-{granularity}", Case(make, {"granularity": granularity})
    for body in ("mlp", "residual", "mixture", "attention"):
        hybrid = {"granularity": "hybrid", "hybrid": {"neuron": 0.5, "weight": 0.6}}
        yield f"{body}-hybrid", Case(own(user_modules.Own, body=body), {**hybrid, "sparsity": None})
    for module in (
        user_modules.Separate,
        user_modules.OneNet,
        user_modules.ScaledLogits,
        user_modules.OnlyTrainHead,
        user_modules.FrozenBody,
        user_modules.FrozenValue,
        user_modules.LowRank,
    ):
        for granularity in ("weight", "neuron"):
            make = own(module, body="mlp")
            yield f"{module.__name__}-{granularity}", Case(make, {"granularity": granularity})
    for schedule in ({"kind": "set", "drop_fraction": 0.3, "every": 100}, {"kind": "static"}):
        for body in ("mixture", "sometimes", "transformer"):
            make = own(user_modules.Own, body=body)
            yield f"{body}-{schedule['kind']}", Case(make, {"schedule": schedule})
    for criterion in ("taylor", "fisher", "wanda", "movement"):
        for body in ("mixture", "unused"):
            make = own(user_modules.Own, body=body)
            yield f"{body}-{criterion}", Case(make, {"criterion": criterion})


def _learners() -> Iterator[tuple[str, Case]]:
    for name, cls in {**learners.WRITING, **learners.STEPPING}.items():
        yield name, Case(learner(cls), {"granularity": "weight"})
    yield (
        "weight regularizer",
        Case(
            lambda: configs.ppo().learners(
                learner_class=PPOTorchLearnerWithWeightRegularizerLoss,
                learner_config_dict={"regularizer_coeff": 0.02},
            )
        ),
    )
    yield (
        "separate optimizer of values",
        Case(
            lambda: configs.ppo(vf_share_layers=False).learners(
                learner_class=PPOTorchLearnerWithSeparateVfOptimizer,
                learner_config_dict={"lr_vf": 1e-3},
            )
        ),
    )
    for cls in (learners.ShrinkAndPerturb, learners.SharedOptimizer):
        fades = {"operation": {"scale": 0.5, "steps": 2}}
        yield f"{cls.__name__}-fading", Case(learner(cls), fades)
        rigl = {"schedule": {"kind": "rigl", "drop_fraction": 0.3, "every": 100}}
        yield f"{cls.__name__}-rigl", Case(learner(cls), rigl)
        lottery = {"kind": "lottery", "rounds": 2, "rewind_to": 200}
        yield f"{cls.__name__}-lottery", Case(learner(cls), {"schedule": lottery})
        units = {"granularity": "neuron", "compact_every": 200}
        yield f"{cls.__name__}-live", Case(learner(cls), units)
    yield "NoisyDQN", Case(learner(learners.NoisyDQN, configs.dqn))
    yield "PerturbedSAC", Case(learner(learners.PerturbedSAC, configs.sac))
    edits = own(user_modules.Own, body="mlp", callback=learners.WeightEdits)
    yield "weight edits", Case(edits)
    for callback in (learners.Unfreezes, learners.Freezes):
        module = user_modules.FrozenBody if callback is learners.Unfreezes else user_modules.Own
        yield callback.__name__, Case(own(module, body="mlp", callback=callback))
    yield (
        "torch's schedulers",
        Case(
            lambda: configs.ppo().experimental(
                _torch_lr_scheduler_classes=[
                    partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)
                ]
            )
        ),
    )
    yield "sets weights", Case(configs.ppo, between=_sets_weights)
    for schedule in (RAMP, {"kind": "static"}, {"kind": "set", "drop_fraction": 0.3, "every": 100}):
        yield (
            f"sets weights-{schedule['kind']}",
            Case(configs.ppo, {"schedule": schedule}, between=_sets_weights),
        )
    yield (
        "lr and entropy schedules",
        Case(
            lambda: configs.ppo().training(
                lr=[[0, 1e-3], [1000, 1e-5]], entropy_coeff=[[0, 0.1], [1000, 0.0]]
            )
        ),
    )
    yield "two learners", Case(lambda: configs.ppo().learners(num_learners=2))
    yield (
        "two learners, noise",
        Case(
            lambda: configs.ppo().learners(
                num_learners=2, learner_class=learners.NoiseAfterClipping
            )
        ),
    )


def _multi_agent() -> Iterator[tuple[str, Case]]:
    for granularity in ("weight", "neuron"):
        yield (
            f"trains a list-{granularity}",
            Case(agents(policies_to_train=["p0"]), {"granularity": granularity}),
        )
    yield "trains a set", Case(agents(policies_to_train={"p1"}))
    yield "trains by function", Case(agents(policies_to_train=lambda mid, batch=None: mid == "p0"))
    yield "asks for the untrained", Case(agents(policies_to_train=["p0"]), modules=["p0", "p1"])
    yield "turns", Case(_turns)
    yield "turns-neuron", Case(_turns, {"granularity": "neuron"})
    yield (
        "one of four",
        Case(agents(2, policies={f"p{i}" for i in range(4)}, policy_mapping_fn=_one_of_four)),
    )
    yield (
        "overrides",
        Case(agents(algorithm_config_overrides_per_module={"p1": PPOConfig.overrides(lr=1e-4)})),
    )
    yield (
        "overrides of learner_config_dict",
        Case(
            agents(
                algorithm_config_overrides_per_module={
                    "p1": PPOConfig.overrides(learner_config_dict={"x": 1})
                }
            )
        ),
    )
    yield "adds a module", Case(agents(), between=_adds_module)
    yield "removes a module", Case(agents(), between=_removes_module)
    yield "removes the only pruned module", Case(agents(), modules=["p1"], between=_removes_module)
    yield "changes by module", Case(agents(), modules={"p0": {}, "p1": {"sparsity": 0.5}})
    yield (
        "one shared optimizer",
        Case(lambda: agents()().learners(learner_class=learners.SharedOptimizer)),
    )
    yield "VPG with a shared encoder", Case(_vpg_shared)
    yield "VPG with a shared encoder-neuron", Case(_vpg_shared, {"granularity": "neuron"})


def _algorithms() -> Iterator[tuple[str, Case]]:
    makers: dict[str, Callable[[], AlgorithmConfig]] = {
        "TQC": _tqc,
        "VPG": _vpg,
        "autoregressive": own(AutoregressiveActionsRLM, env=CorrelatedActionsEnv),
        "TinyAtariCNN": own(
            TinyAtariCNN,
            env=Images,
            conv_filters=[[8, 4, 2], [8, 4, 2], [16, 11, 1, "valid"]],
        ),
        "LSTM example": own(
            LSTMContainingRLModule, lstm_cell_size=16, dense_layers=[16], max_seq_len=8
        ),
        "APPO": lambda: _asynchronous(APPOConfig()),
        "IMPALA": lambda: _asynchronous(IMPALAConfig()),
        "DQN": configs.dqn,
        "DQN C51": lambda: configs.dqn(num_atoms=5, v_min=0.0, v_max=50.0),
        "DQN plain": lambda: configs.dqn(dueling=False, double_q=False),
        "SAC": configs.sac,
        "PPO images": lambda: configs.ppo(
            Images, conv_filters=[[8, 4, 2], [16, 4, 2]], fcnet_hiddens=[]
        ),
        "PPO LSTM": lambda: configs.ppo(use_lstm=True, lstm_cell_size=16, max_seq_len=8),
        "PPO compiled": lambda: configs.ppo().framework(
            torch_compile_learner=True, torch_compile_learner_dynamo_backend="eager"
        ),
        "PPO normalised": lambda: configs.ppo().env_runners(
            env_to_module_connector=_mean_std_filter
        ),
        "PPO linear": lambda: configs.ppo(fcnet_hiddens=[]),
    }
    for name, make in makers.items():
        for granularity in ("weight", "neuron"):
            yield f"{name}-{granularity}", Case(make, {"granularity": granularity})


def _mean_std_filter(env: Any, spaces: Any = None, device: Any = None) -> Any:
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    return MeanStdFilter()


def observations(module: Any) -> torch.Tensor:
    """Return 64 different observations, shape ``(64, *observation)``."""
    torch.manual_seed(0)
    return torch.rand(64, *module.observation_space.shape)
