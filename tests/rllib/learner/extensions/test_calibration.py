"""On a Learner a cut is made up for, on the minibatches that it was trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.learner.extensions import calibration
from rayprune.rllib.settings.keys import LEAN_KEY
from tests.rllib import configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

RAMP = {"kind": "cubic", "begin": 200, "end": 1000, "every": 200}
SMALL = RLModuleSpec(model_config={"fcnet_hiddens": [16, 16]})
LSTM = RLModuleSpec(
    model_config={
        "fcnet_hiddens": [16, 16],
        "use_lstm": True,
        "lstm_cell_size": 16,
        "max_seq_len": 8,
    }
)


def pruned(config: Any, *, reconstruct: bool = True, **changes: Any) -> Any:
    """Return a config whose cuts are made up for."""
    pruning = {"schedule": RAMP, "remedies": {"reconstruct": reconstruct}, **changes}
    return prune(config, configs.pruning(**pruning))


def ppo(spec: RLModuleSpec = SMALL, env: str = "Pendulum-v1", **settings: Any) -> Any:
    """PPO with small nets."""
    config = configs.ppo(env)
    return pruned(config.rl_module(model_config={}, rl_module_spec=spec), **settings)


def trained(algo: Any, iterations: int) -> list[dict[str, Any]]:
    """Train, and return the mask updates that pruned."""
    found = []
    for _ in range(iterations):
        told = algo.train()["rayprune"][DEFAULT_MODULE_ID]["mask_updates"]
        found += [update for update in told if update["pruned"]]
    return found


def weights(algo: Any) -> list[torch.Tensor]:
    """Return all weights of each Learner."""

    def flat(learner: Any) -> torch.Tensor:
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        return torch.cat([p.detach().flatten().clone() for p in module.parameters()])

    return list(foreach_learner(algo, flat))


def run(config: Any, iterations: int = 4) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
    """Train an algorithm; return its mask updates and its Learners' weights."""
    algo = configs.build(config)
    try:
        return trained(algo, iterations), weights(algo)
    finally:
        algo.stop()


@pytest.mark.parametrize("spec", [SMALL, LSTM], ids=["MLP", "LSTM"])
def test_a_cut_moves_the_policy_less(spec: RLModuleSpec) -> None:
    (free, *_), _ = run(ppo(spec, reconstruct=False), 3)
    (repaired, *_), _ = run(ppo(spec), 3)
    assert repaired["pruned"] == free["pruned"] > 0
    assert 0 < repaired["kl"] < free["kl"] / 2
    assert repaired["value_change"] < free["value_change"]


def test_lean_updates_are_made_up_for_alike() -> None:
    plain = ppo()
    plain.learner_config_dict[LEAN_KEY] = False
    (_, (lean,)), (_, (slow,)) = run(ppo()), run(plain)
    assert torch.equal(lean, slow)


@pytest.mark.slow
def test_two_learners_end_with_the_same_weights() -> None:
    updates, (first, second) = run(ppo().learners(num_learners=2))
    assert updates
    assert torch.equal(first, second)


class Unwilling(DefaultPPOTorchRLModule):
    """A user's module that acts in training alone."""

    def _forward_inference(self, batch: Any, **kwargs: Any) -> Any:
        raise RuntimeError("not here")


def test_a_module_that_cannot_be_run_is_pruned_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    spec = RLModuleSpec(module_class=Unwilling, model_config=SMALL.model_config)
    updates, (made,) = run(ppo(spec), 3)
    without, (plain,) = run(ppo(spec, reconstruct=False), 3)
    assert updates
    assert len(updates) == len(without)
    assert torch.equal(made, plain)
    assert "'reconstruction at mask updates'" in caplog.text


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_values_and_twins_are_made_up_for(name: str) -> None:
    def config(*, reconstruct: bool) -> Any:
        made = configs.dqn() if name == "dqn" else configs.sac()
        return pruned(made, reconstruct=reconstruct)

    (free, *_), _ = run(config(reconstruct=False), 8)
    (repaired, *_), _ = run(config(reconstruct=True), 8)
    assert repaired["pruned"] == free["pruned"]
    assert repaired["value_change"] < free["value_change"]


def test_no_more_minibatches_are_kept_than_it_takes() -> None:
    rows, held = calibration.ROWS // 4, calibration._LastRows()
    given = [{"obs": torch.full((rows, 2), float(n))} for n in range(9)]
    for batch in given:
        held.add(batch)
    assert held.batches() == given[-4:]
    image = {"obs": torch.zeros(1, calibration.BYTES // 4 // 2)}
    for _ in range(3):
        held.add(image)
    assert len(held.batches()) == 2
