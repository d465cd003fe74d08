"""Training by replay: leanly, and by RLlib's own step, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ray.rllib.algorithms.dqn import DQN
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rayprune.rllib import prune
from rayprune.rllib.off_policy.training import LeanTraining, train_leanly
from rayprune.rllib.settings.kept_parts import kept_parts
from tests.rllib.configs import learner_of
from tests.rllib.off_policy.runs import PRIORITISED, UNIFORM, Run, assert_same, dqn, sac

_DENSE = {"sparsity": 0.0, "horizon": 1000}


@pytest.mark.parametrize(
    ("training", "sparsity"),
    [
        ({"n_step": (1, 4), "dueling": True, "double_q": True}, 0.8),
        ({"num_atoms": 5, "v_min": 0.0, "v_max": 20.0, "n_step": 3}, 0.0),
        ({"buffer": UNIFORM, "dueling": False, "double_q": False, "tau": 0.1, "envs": 3}, 0.0),
        ({"training_intensity": 32, "grad_clip": 0.5}, 0.8),
    ],
    ids=["rainbow, sparse", "distributional", "uniform", "intense, sparse"],
)
def test_dqn_learns_to_the_bit_what_rllibs_step_learns(training: Any, sparsity: float) -> None:
    assert_same(lambda: dqn(**training), sparsity=sparsity)


@pytest.mark.parametrize(
    "buffer",
    [UNIFORM, pytest.param(PRIORITISED, marks=pytest.mark.slow)],
    ids=["uniform", "prioritised"],
)
def test_sac_learns_to_the_bit_what_rllibs_step_learns(buffer: Any) -> None:
    assert_same(lambda: sac(buffer=buffer), sparsity=0.8)


def test_each_reason_to_keep_rllibs_step_is_told(debug_lines: Any) -> None:
    class OwnLearner(DQNTorchLearner):
        def update(self, *args: Any, **kwargs: Any) -> Any:
            return super().update(*args, **kwargs)

    class OwnStep(DQN):
        def training_step(self) -> None:
            super().training_step()

    own_step = dqn()
    own_step.algo_class = OwnStep
    for config in (
        own_step,
        dqn().learners(learner_class=OwnLearner),
        dqn().learners(learner_connector=lambda *_: _Nothing()),
        dqn(buffer=UNIFORM, burn_in_len=2),
        dqn().multi_agent(count_steps_by="agent_steps"),
    ):
        assert not Run(config, iterations=0).is_lean
    assert [line.partition("kept: ")[2] for line in debug_lines()] == [
        "it is not DQN's.",
        "PruningOwnLearner has a `update` of the user's.",
        "the config has a learner connector.",
        "a burn-in is asked for.",
        "steps are counted by agent.",
    ]


def test_what_only_the_algorithm_knows_keeps_rllibs_step(debug_lines: Any) -> None:
    class OwnMetrics(MetricsLogger):
        pass

    algorithm = prune(dqn(), _DENSE).build_algo()
    training = LeanTraining(algorithm)
    assert training._known_step() is not None
    learner_of(algorithm).metrics.__class__ = OwnMetrics
    training._of = None
    assert training._known_step() is None
    algorithm._module_is_stateful, training._of = True, None
    assert training._known_step() is None
    algorithm.learner_group._learner = training._of = None
    assert training._known_step() is None
    assert [line.partition("kept: ")[2] for line in debug_lines()] == [
        "there is a MetricsLogger of the user's.",
        "the module is recurrent.",
        "Learners are remote.",
    ]


class OwnNet(DefaultDQNTorchRLModule):
    """A user's, which EnvRunners must be given in RLlib's way."""

    def setup(self) -> None:
        super().setup()


def test_so_it_does_with_a_module_of_the_users() -> None:
    spec = RLModuleSpec(module_class=OwnNet, model_config={"fcnet_hiddens": [8]})
    assert_same(lambda: dqn().rl_module(rl_module_spec=spec, model_config={}))
    assert kept_parts()["way to sync weights"] == "the RLModule OwnNet is the user's"


def test_lean_false_leaves_no_trace_in_the_config() -> None:
    assert train_leanly not in prune(dqn(), _DENSE, lean=False).callbacks_on_algorithm_init
    lean = prune(dqn(), _DENSE)
    assert prune(lean, _DENSE).callbacks_on_algorithm_init.count(train_leanly) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_tqc_learns_to_the_bit_what_rllibs_step_learns() -> None:
    assert_same(lambda: sac(TQCConfig))


class _Nothing(ConnectorV2):
    def __call__(self, *, batch: Any, **_: Any) -> Any:
        return batch


def test_a_checkpoint_of_either_kind_goes_on_as_the_other(tmp_path: Any) -> None:
    for lean in (True, False):
        first = prune(dqn(), _DENSE, lean=lean).build_algo()
        first.train()
        first.save_to_path(str(tmp_path / str(lean)))
        second = prune(dqn(), _DENSE, lean=not lean).build_algo()
        second.restore_from_path(str(tmp_path / str(lean)))
        weights = [
            learner_of(each).module["default_policy"].state_dict() for each in (first, second)
        ]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        result = second.train()
        assert result["num_env_steps_sampled_lifetime"] > 30
        assert learner_of(second)._weights_seq_no > learner_of(first)._weights_seq_no
