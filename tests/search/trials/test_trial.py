"""A trial and its clones on live Learners, without Tune around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID

from rayprune.rllib.actors.learners import foreach_learner, policy_of
from rayprune.rllib.export import latency as policy_latency
from rayprune.rllib.learner.optimizers import moments
from rayprune.search.trials.trial import RAW, PruningTrial
from tests.rllib import experiments

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

SPACE = {
    "pruning.sparsity": {"uniform": [0.0, 0.95]},
    "pruning.criterion": {"choice": ["l1", "random"]},
    "pruning.schedule.end": {"uniform": [0.1, 0.9]},
    "rllib.training.lr": {"loguniform": [1e-5, 1e-2]},
}
RAW_EXPERIMENT = {
    **experiments.PPO,
    "pruning": {"sparsity": 0.5, "schedule": {"kind": "linear", "begin": 0.0, "every": 200}},
    "stop": {"env_steps": 4000},
    "search": {"space": SPACE, "interval": 400},
}


def config(
    sparsity: float,
    lr: float = 3e-4,
    criterion: str = "l1",
    end: float = 0.1,
    on_clone: str = "hold",
) -> dict[str, Any]:
    pruning = {**RAW_EXPERIMENT["pruning"], "on_clone": on_clone}
    return {
        RAW: json.dumps({**RAW_EXPERIMENT, "pruning": pruning}),
        "pruning": {"sparsity": sparsity, "criterion": criterion, "schedule": {"end": end}},
        "rllib": {"training": {"lr": lr}},
    }


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    trial = PruningTrial(config(0.5))
    for _ in range(2):
        result = trial.train()
    assert result["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert "latency" not in result
    assert result["rows"]
    trial.save(str(tmp_path / "donor"))
    # Tune keeps the last result with each checkpoint; the rows are with the driver by then.
    assert trial._last_result["env_steps"] == result["env_steps"]
    assert "rows" not in trial._last_result
    trial.stop()
    return tmp_path / "donor"


def test_a_trial_is_timed_where_latency_is_an_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_latency, "_place", lambda: tmp_path)
    search = {**RAW_EXPERIMENT["search"], "objectives": {"return": "max", "latency": "min"}}
    timed = {**config(0.5), RAW: json.dumps({**RAW_EXPERIMENT, "search": search})}
    trial = PruningTrial(timed)
    result = trial.train()
    trial.stop()
    assert 0 < result["latency"] < 1e5
    assert result["rows"][-1]["latency"] == result["latency"]
    assert len(list(tmp_path.iterdir())) == 1


def learner_of(trial: PruningTrial) -> Any:
    return foreach_learner(trial._algorithm, lambda learner: learner)[0]


def masks_of(trial: PruningTrial) -> dict[str, torch.Tensor]:
    return learner_of(trial).masks()["default_policy"]


def lrs(trial: PruningTrial) -> set[float]:
    optimizers = learner_of(trial)._named_optimizers.values()
    return {group["lr"] for optimizer in optimizers for group in optimizer.param_groups}


def clone(path: Path, **values: Any) -> PruningTrial:
    trial = PruningTrial(config(**values))
    trial._trial_info = None
    trial.restore(str(path))
    return trial


def test_a_clone_trains_with_its_own_lr_from_the_first_update(donor: Path) -> None:
    trial = clone(donor, sparsity=0.5, lr=7e-3)
    seen = []
    learner = learner_of(trial)
    apply = learner.apply_gradients

    def watched(gradients: Any) -> None:
        seen.append(lrs(trial))
        apply(gradients)

    learner.apply_gradients = watched
    result = trial.train()
    assert seen
    assert all(lr == {7e-3} for lr in seen)
    used = [row["learner"]["default_optimizer_learning_rate"] for row in result["rows"]]
    assert used == pytest.approx([7e-3] * len(used))
    trial.stop()


def test_a_clone_of_a_denser_donor_prunes_on_by_its_own_criterion(donor: Path) -> None:
    by_size, by_chance = (clone(donor, sparsity=0.8, criterion=c) for c in ("l1", "random"))
    before = masks_of(by_size)
    for trial in (by_size, by_chance):
        assert trial.train()["sparsity"] == pytest.approx(0.8, abs=0.01)
        after = masks_of(trial)
        assert all(bool((before[name] | ~mask).all()) for name, mask in after.items())
    name = "encoder.actor_encoder.net.mlp.2.weight"
    weights = dict(learner_of(by_size).module["default_policy"].named_parameters())
    assert weights[name].abs()[masks_of(by_size)[name]].min() > 0
    assert not torch.equal(masks_of(by_size)[name], masks_of(by_chance)[name])
    by_size.stop()
    by_chance.stop()


def test_a_clone_of_a_sparser_donor_holds_its_masks(donor: Path) -> None:
    trial = clone(donor, sparsity=0.2)
    before = masks_of(trial)
    assert trial.train()["sparsity"] == pytest.approx(0.5, abs=0.01)
    after = masks_of(trial)
    assert all(torch.equal(before[name], after[name]) for name in before)
    trial.stop()


def test_a_clone_of_a_sparser_donor_regrows_to_its_own_target_where_asked(donor: Path) -> None:
    trial = clone(donor, sparsity=0.2, on_clone="regrow")
    learner, grown = learner_of(trial), []
    change_masks = learner._modules.spread

    def watched(module_id: str, sparsity: float, change: Any) -> None:
        change_masks(module_id, sparsity, change)
        grown.append(change)
        pruner = learner.pruners[module_id]
        optimizers = [opt for _, opt in learner.get_optimizers_for_module(module_id)]
        for name, fresh in change.regrown.items():
            held = [pruner.parameters[name].data, *moments(optimizers, pruner.parameters[name])]
            assert len(held) == 3
            assert all(not bool(tensor[fresh].any()) for tensor in held)

    learner._modules.spread = watched
    before = masks_of(trial)
    assert trial.train()["sparsity"] == pytest.approx(0.2, abs=0.01)
    # At once, by the dense gradients of that update; nothing that was kept has gone.
    assert [change.pruned for change in grown] == [0]
    assert grown[0].grown > 0
    after = masks_of(trial)
    assert all(bool((after[name] | ~mask).all()) for name, mask in before.items())
    assert trial.train()["sparsity"] == pytest.approx(0.2, abs=0.01)
    trial.stop()


def test_a_clone_follows_its_own_schedule(donor: Path) -> None:
    # From 0 at step 0 to 0.9 at step 3600: the donor's clock is 800 and becomes 1200.
    trial = clone(donor, sparsity=0.9, end=0.9)
    assert trial.train()["sparsity"] == pytest.approx(0.5, abs=0.01)  # 0.3 is due: hold
    for _ in range(3):
        result = trial.train()
    assert 2400 <= result["env_steps"] < 2600
    assert result["sparsity"] == pytest.approx(0.6, abs=0.03)
    trial.stop()


def test_a_reset_actor_is_the_other_trial_altogether(donor: Path) -> None:
    trial = clone(donor, sparsity=0.8)
    assert trial.reset(config(0.3, lr=5e-3, criterion="random"))
    assert masks_of(trial) == {}
    assert lrs(trial) == {5e-3}
    fresh = trial.train()
    assert fresh["since"] is None
    assert fresh["env_steps"] < 800
    assert fresh["values"]["pruning.sparsity"] == 0.3
    trial.stop()


def test_a_trial_goes_on_from_its_own_checkpoint_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = PruningTrial(config(0.7))
    whole.train()
    whole.save(str(tmp_path / "half"))
    second = whole.train()
    again = clone(tmp_path / "half", sparsity=0.7)
    resumed = again.train()
    assert (second["since"], second["before"]) == (None, 2)
    assert (resumed["since"][0], resumed["before"]) == (str(whole.trial_id), 0)
    for one, other in zip(second["rows"], resumed["rows"], strict=True):
        assert one["learner"]["total_loss"] == other["learner"]["total_loss"]
        assert one["return_mean"] == other["return_mean"]
    whole.stop()
    again.stop()


def test_a_trial_begins_with_the_policy_that_it_is_to_start_from(donor: Path) -> None:
    trained = PruningTrial(config(0.5))
    trained.restore(str(donor))
    begun = {**RAW_EXPERIMENT, "start_from": str(donor / "rayprune")}
    fresh = PruningTrial(config(0.5))
    trial = PruningTrial({**config(0.5), RAW: json.dumps(begun)})
    held, begun_with, new = (
        policy_of(each._algorithm)[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
        for each in (trained, trial, fresh)
    )
    assert all((value == begun_with[name]).all() for name, value in held.items())
    assert not all((value == new[name]).all() for name, value in held.items())
    for each in (trained, trial, fresh):
        each.stop()
