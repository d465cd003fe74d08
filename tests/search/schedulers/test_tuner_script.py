"""The scheduler in a user's own Tune script, on RLlib's own PPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune import CheckpointConfig, RunConfig, TuneConfig

from rayprune.rllib import prune
from rayprune.search import MultiObjectivePBT, domains_in
from tests.doubles.climbers import ToFile, read

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

SPARSITY = "rayprune/default_policy/sparsity"
RETURN = "env_runners/episode_return_mean"


class Seen(tune.Callback):
    """Writes what each result tells of the pruning."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **_: Any
    ) -> None:
        learner = result["learners"]["default_policy"]
        row = {
            "trial": trial.trial_id,
            "iteration": result["training_iteration"],
            "asked": trial.config["learner_config_dict"]["rayprune"]["sparsity"],
            "lr": trial.config["lr"],
            "lr_used": float(learner["default_optimizer_learning_rate"]),
            "sparsity": result["rayprune"]["default_policy"]["sparsity"],
        }
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


@pytest.mark.slow
# RLlib's own Algorithm has no reset_config, which Tune remarks.
@pytest.mark.filterwarnings("ignore:Consider boosting PBT performance")
def test_a_plain_tuner_evolves_sparsity_and_lr_and_both_act(tmp_path: Path) -> None:
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(
            lr=tune.loguniform(1e-4, 1e-2),
            train_batch_size_per_learner=200,
            minibatch_size=64,
            num_epochs=1,
        )
        .rl_module(model_config={"fcnet_hiddens": [16, 16]})
    )
    schedule = {"kind": "one_shot", "begin": 0}
    config = prune(config, {"sparsity": tune.uniform(0.2, 0.9), "schedule": schedule})
    scheduler = MultiObjectivePBT(
        objectives={RETURN: "max", SPARSITY: "max"},
        hyperparam_mutations=domains_in(config),
        perturbation_interval=2,
        synch=True,
        seed=0,
        on_exploit=ToFile(tmp_path / "lineage.jsonl"),
    )
    results = tune.Tuner(
        "PPO",
        param_space=config,
        tune_config=TuneConfig(scheduler=scheduler, num_samples=4),
        run_config=RunConfig(
            storage_path=str(tmp_path),
            stop={"training_iteration": 6},
            verbose=0,
            callbacks=[Seen(tmp_path / "rows.jsonl")],
            checkpoint_config=CheckpointConfig(num_to_keep=4),
        ),
    ).fit()
    assert not results.errors
    events = read(tmp_path / "lineage.jsonl")
    rows = read(tmp_path / "rows.jsonl")
    assert events
    for row in rows:
        assert 0.2 <= row["asked"] <= 0.9
        assert row["lr_used"] == pytest.approx(row["lr"])
    for event in events:
        changed = event["changed"].get("learner_config_dict.rayprune.sparsity")
        after = [
            row
            for row in rows
            if row["trial"] == event["trial"] and row["iteration"] > event["clock"]
        ]
        assert after
        if changed is not None:
            assert after[0]["asked"] == changed[1]
            # A clone is as sparse as it is asked to be, or as its donor was if that is sparser.
            assert after[0]["sparsity"] >= changed[1] - 0.01
