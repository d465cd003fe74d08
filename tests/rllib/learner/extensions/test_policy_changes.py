"""How far mask updates move the policy: measured as RLlib's distributions do, and bounded."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import RLModuleSpec
from torch import distributed
from torch.distributions import Categorical, Normal, kl_divergence

from rayprune.errors import ConfigError, RunError
from rayprune.pruning.evidence.reduce import SingleProcess
from rayprune.pruning.reports import PolicyChange
from rayprune.rllib import prune
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.experiment.algorithm_config import build_module
from rayprune.rllib.learner.policy_outputs import _MOST, ModuleOutputs, _change, _kl_of
from tests.rllib import configs

pytestmark = pytest.mark.timeout(600)

RAMP = {"kind": "linear", "begin": 100, "end": 400, "every": 100}


def moved(config: AlgorithmConfig) -> tuple[Any, Any, dict[str, Any], PolicyChange]:
    """Return a module before and after some weights went, a minibatch, and what is told of it."""
    torch.manual_seed(0)
    old, new = build_module(config), build_module(config)
    for module in (old, new):
        if hasattr(module, "make_target_networks"):
            module.make_target_networks()
    new.load_state_dict(old.state_dict())
    generator = torch.Generator().manual_seed(1)
    env = gym.make(str(config.env))
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    rows = torch.randn(32, *env.observation_space.shape, generator=generator)
    actions = torch.zeros(32).long() if discrete else torch.zeros(32, 1)
    batch = {Columns.OBS: rows, Columns.ACTIONS: actions, Columns.NEXT_OBS: rows}
    outputs = ModuleOutputs(new, [batch, batch], SingleProcess())
    with torch.no_grad():
        for weight in new.parameters():
            weight.mul_(weight.abs() > weight.abs().median())
    return old, new, batch, outputs.compare()


def test_the_kl_of_discrete_actions_is_torchs_and_that_of_values_a_share_of_their_spread() -> None:
    old, new, batch, told = moved(configs.ppo())
    with torch.no_grad():
        before, after = (m.forward_train(batch) for m in (old, new))
        logits = [out[Columns.ACTION_DIST_INPUTS].double() for out in (before, after)]
        values = [m.compute_values(batch).double() for m in (old, new)]
    wanted = kl_divergence(Categorical(logits=logits[0]), Categorical(logits=logits[1]))
    assert told.kl == pytest.approx(float(wanted.mean()), rel=1e-9)
    share = (values[1] - values[0]).abs().mean() / values[0].std(correction=0)
    assert told.value_change == pytest.approx(float(share), rel=1e-6)
    assert (told.greedy_changed, told.estimated) == (None, False)


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_the_kl_of_gaussians_is_torchs_squashed_or_not(kind: str) -> None:
    config = configs.ppo("Pendulum-v1") if kind == "ppo" else configs.sac()
    old, new, batch, told = moved(config)
    pairs = []
    for module in (old, new):
        with torch.no_grad():
            inputs = module._forward_inference(batch)[Columns.ACTION_DIST_INPUTS].double()
        # RLlib's squashed Gaussian clamps the deviation, far from where these are.
        mean, log_std = inputs.chunk(2, dim=-1)
        pairs.append(Normal(mean, log_std.exp()))
    wanted = kl_divergence(*pairs).sum(-1).mean()
    assert told.kl == pytest.approx(float(wanted), rel=1e-6)
    assert told.kl > 0
    assert told.value_change > 0


def test_dqn_tells_of_its_q_values_and_of_other_greedy_actions() -> None:
    from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS

    old, new, batch, told = moved(configs.dqn())
    with torch.no_grad():
        before, after = (m.compute_q_values(batch)[QF_PREDS].double() for m in (old, new))
    share = (after - before).abs().mean() / before.std(correction=0)
    assert told.kl is None
    assert told.value_change == pytest.approx(float(share), rel=1e-6)
    other = (after.argmax(-1) != before.argmax(-1)).double().mean()
    assert told.greedy_changed == pytest.approx(float(other))


class Scaled:
    """A distribution of a user's own: it has no KL, and a density of its actions."""

    def __init__(self, normal: Normal) -> None:
        self.normal = normal

    def kl(self, other: Any) -> Any:
        raise NotImplementedError

    def logp(self, actions: Any) -> Any:
        return self.normal.log_prob(actions)


def test_without_a_closed_form_the_kl_is_estimated_from_actions() -> None:
    old, new = Normal(0.0, 1.0), Normal(0.3, 1.2)
    torch.manual_seed(0)
    batch = {Columns.ACTIONS: old.sample((200_000,))}
    found, estimated = _kl_of(Scaled(old), Scaled(new), batch)
    assert estimated
    assert float(found.mean()) == pytest.approx(float(kl_divergence(old, new)), rel=0.02)


class OtherLearner(SingleProcess):
    """Stands for a group of two: says how often it was asked, and whether the other failed."""

    def __init__(self, *, failed: bool) -> None:
        self.failed, self.asked = failed, 0

    def mean(self, tensors: Any) -> Any:
        self.asked += 1
        for tensor in tensors:
            tensor[0] = (tensor[0] + float(self.failed)) / 2
        return list(tensors)


@pytest.mark.parametrize("mine", [True, False])
def test_a_learner_that_cannot_tell_takes_part_and_none_goes_on(mine: bool) -> None:
    """Else the other would wait for it in the all-reduce for ever."""
    module = build_module(configs.ppo())
    batch = {} if mine else {Columns.OBS: torch.zeros(2, 4)}
    group = OtherLearner(failed=not mine)
    outputs = ModuleOutputs(module, [batch], group)
    with pytest.raises(KeyError if mine else RunError) as error:
        outputs.compare()
    assert group.asked == 1
    assert mine or "Another Learner" in str(error.value)


def test_learners_without_rows_add_nothing() -> None:
    assert _change([0.0] * _MOST, estimated=False) == PolicyChange()


def test_a_young_critics_change_is_a_share_of_what_it_learns_towards() -> None:
    module = build_module(configs.ppo())
    rows = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    targets = torch.linspace(0.0, 100.0, 32)
    shares = []
    for batch in ({Columns.OBS: rows}, {Columns.OBS: rows, Columns.VALUE_TARGETS: targets}):
        torch.manual_seed(0)
        module = build_module(configs.ppo())
        outputs = ModuleOutputs(module, [batch], SingleProcess())
        with torch.no_grad():
            before = module.compute_values(batch).double()
            for weight in module.parameters():
                weight.mul_(0.5)
            moved = (module.compute_values(batch).double() - before).abs().mean()
        spread = (targets.double() if Columns.VALUE_TARGETS in batch else before).std(correction=0)
        shares.append(outputs.compare().value_change)
        assert shares[-1] == pytest.approx(float(moved / spread), rel=1e-6)
    assert shares[1] < 0.1 * shares[0]


@pytest.mark.parametrize(
    ("config", "bound", "says"),
    [
        (configs.dqn, {"max_kl": 0.01}, "Give `pruning.max_value_change`"),
    ],
)
def test_a_bound_that_an_algorithm_has_no_use_for_is_refused(
    config: Any, bound: dict[str, float], says: str
) -> None:
    with pytest.raises(ConfigError) as error:
        prune(config(), configs.pruning(schedule=RAMP, **bound))
    assert says in str(error.value)


def updates_of(config: Any, iterations: int) -> tuple[list[dict[str, Any]], Any]:
    """Train; return what was told of the mask updates, and the Learners' reports."""
    algo, told = configs.build(config), []
    try:
        for _ in range(iterations):
            told += algo.train()["rayprune"][DEFAULT_MODULE_ID]["mask_updates"]
        return told, learner_reports(algo)
    finally:
        algo.stop()


@pytest.mark.usefixtures("ray_session")
def test_a_bound_is_kept_while_ppo_trains_and_what_was_held_back_is_told() -> None:
    told, (report, *_) = updates_of(
        prune(configs.ppo(), configs.pruning(schedule=RAMP, max_kl=1e-4)), 4
    )
    assert len(told) == 4
    assert all(update["kl"] <= 1e-4 for update in told)
    assert min(update["taken"] for update in told) < 1
    assert 0 < told[-1]["sparsity"] < 0.8
    assert report[DEFAULT_MODULE_ID]["behind"]
    assert not report[DEFAULT_MODULE_ID]["finished"]


BOUNDS = {
    "dqn": (lambda: configs.dqn(), {"max_value_change": 0.05}, "value_change"),
    "sac": (lambda: configs.sac(), {"max_kl": 1e-4}, "kl"),
    "sac values": (lambda: configs.sac(), {"max_value_change": 0.05}, "value_change"),
    "tqc": (lambda: configs.tqc(), {"max_kl": 1e-4}, "kl"),
    "lstm": (
        lambda: configs.ppo(use_lstm=True, lstm_cell_size=8, max_seq_len=8),
        {"max_kl": 1e-5},
        "kl",
    ),
}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("kind", BOUNDS)
def test_a_bound_is_kept_by_other_algorithms(kind: str) -> None:
    make, bound, key = BOUNDS[kind]
    told, _ = updates_of(prune(make(), configs.pruning(schedule=RAMP, **bound)), 8)
    assert len(told) >= 3
    assert all(update[key] <= next(iter(bound.values())) for update in told)
    assert min(update["taken"] for update in told) < 1


class SilentOnOneRank(DefaultPPOTorchRLModule):
    """Learns on both Learners, and fails on the second where it is only looked at."""

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        looks = distributed.is_initialized() and not torch.is_grad_enabled()
        if looks and distributed.get_rank() == 1:
            raise RuntimeError("no answer on this rank")
        return super()._forward_train(batch, **kwargs)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("bounded", [False, True])
def test_a_failure_on_one_learner_keeps_none_waiting(bounded: bool) -> None:
    """An all-reduce that one rank misses holds the others up until it times out."""
    config = configs.ppo().learners(num_learners=2)
    spec = RLModuleSpec(module_class=SilentOnOneRank, model_config={"fcnet_hiddens": [32, 32]})
    config.rl_module(rl_module_spec=spec)
    bound = {"max_kl": 1e-4} if bounded else {}
    pruning = prune(config, configs.pruning(schedule=RAMP, **bound))
    if bounded:
        with pytest.raises(Exception, match=r"no answer on this rank|Another Learner couldn't"):
            updates_of(pruning, 4)
        return
    told, reports = updates_of(pruning, 4)
    assert told
    assert all("kl" not in update for update in told)
    one, other = (report[DEFAULT_MODULE_ID] for report in reports)
    assert one["digest"] == other["digest"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_two_learners_take_the_same_part() -> None:
    config = configs.ppo().learners(num_learners=2)
    told, reports = updates_of(prune(config, configs.pruning(schedule=RAMP, max_kl=1e-4)), 4)
    assert min(update["taken"] for update in told) < 1
    assert all(update["kl"] <= 1e-4 for update in told)
    one, other = (report[DEFAULT_MODULE_ID] for report in reports)
    assert one["digest"] == other["digest"]
    assert 0 < one["sparsity"] < 0.8
