"""A trained policy is cut at once, and what is left makes up for it where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayprune import PruningConfig
from rayprune.rllib.commands.prune import prune_checkpoint
from tests.rllib import experiments

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

OURS = {
    "module_class": "rayprune.rllib.models:PrunableMLP",
    "model_config": {"policy_hiddens": [32, 32], "value_hiddens": [32, 32]},
}
DENSE: dict[str, Any] = {"pruning": {"sparsity": 0}, "stop": {"env_steps": 400}}


def cut(run: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Cut a run's policy to 60 %; return the summary."""
    config = PruningConfig(sparsity=0.6, **changes)
    return prune_checkpoint(run, config, out, episodes=4, seed=20_000, address=None)


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_a_cut_that_is_made_up_for_acts_more_like_the_policy_before(
    tmp_path: Path, name: str
) -> None:
    base = experiments.PPO if name == "PPO" else experiments.SAC
    rllib = {**base["rllib"], **({"rl_module": OURS} if name == "PPO" else {})}
    what = experiments.experiment(base, rllib=rllib, **DENSE)
    experiments.train(what, tmp_path / "dense")
    plain = cut(tmp_path / "dense", tmp_path / "plain")
    repaired = cut(tmp_path / "dense", tmp_path / "repaired", remedies={"reconstruct": True})
    assert repaired["sparsity"]["prunable"] == pytest.approx(0.6, abs=0.01)
    assert repaired["sparsity"] == plain["sparsity"]
    assert repaired["closeness"]["kl"] < plain["closeness"]["kl"] / 5
    assert repaired["closeness"]["value_rmse"] < plain["closeness"]["value_rmse"]
