"""A run goes on from what others pruned, and from another task."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from torch.nn.utils import prune as torch_prune

from rayprune.config import experiment_faults
from rayprune.errors import CheckpointError, ConfigError
from rayprune.rllib import prune
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.checkpoints.files import locate
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.training.warm_start import start_from
from rayprune.tracking.record import read_rows
from tests.rllib import configs, experiments

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

HALF = {"schedule": configs.AT_ONCE, "sparsity": 0.0}


def plain_rllib(folder: Path, pruned: bool) -> dict[str, torch.Tensor]:
    """Save a checkpoint of plain RLlib, its module pruned by torch or not; return torch's masks."""
    algo = configs.build(configs.ppo())
    algo.train()
    module = configs.learner_of(algo).module[DEFAULT_MODULE_ID]
    masks = {}
    if pruned:
        for name, layer in list(module.named_modules()):
            if isinstance(layer, torch.nn.Linear):
                torch_prune.l1_unstructured(layer, "weight", amount=0.5)
                masks[f"{name}.weight"] = layer.weight_mask.bool()
    algo.save_to_path(folder / "algorithm")
    module.save_to_path(folder / "module")
    algo.stop()
    return masks


@pytest.mark.parametrize("kind", ["algorithm", "module"])
def test_masks_of_torchs_prune_are_taken_from_a_checkpoint_and_hold(
    kind: str, tmp_path: Path
) -> None:
    masks = plain_rllib(tmp_path, pruned=True)
    with (tmp_path / "module" / "module_state.pkl").open("rb") as file:
        saved = pickle.load(file)
    assert any(name.endswith("_orig") for name in saved)
    algo = configs.build(prune(configs.ppo(), configs.pruning(**HALF)))
    try:
        taken = start_from(algo, tmp_path / kind)
        assert taken.new == []
        held = configs.learner_of(algo).masks()[DEFAULT_MODULE_ID]
        assert set(held) == set(masks)
        weights = dict(configs.learner_of(algo).module[DEFAULT_MODULE_ID].named_parameters())
        for name, mask in masks.items():
            assert torch.equal(held[name], mask)
            wanted = torch.as_tensor(saved[f"{name}_orig"]) * mask
            assert torch.equal(weights[name].detach(), wanted)
        algo.train()  # the callback raises if a zero does not hold
        assert torch.all(weights[name].detach()[~mask] == 0)
        assert torch.any(weights[name].detach() != wanted)
    finally:
        algo.stop()


def test_a_plain_checkpoint_is_pruned_on(tmp_path: Path) -> None:
    plain_rllib(tmp_path, pruned=False)
    algo = configs.build(prune(configs.ppo(), configs.pruning()))
    try:
        start_from(algo, tmp_path / "algorithm")
        assert learner_reports(algo)[0][DEFAULT_MODULE_ID]["sparsity"] == 0
        algo.train()
        sparsity = learner_reports(algo)[0][DEFAULT_MODULE_ID]["sparsity"]
        assert sparsity == pytest.approx(0.8, abs=0.01)
    finally:
        algo.stop()


def test_the_evaluator_reads_a_policy_that_torch_pruned(tmp_path: Path) -> None:
    masks = plain_rllib(tmp_path, pruned=True)
    evaluator = Evaluator(configs.ppo())
    try:
        evaluator.load_checkpoint(tmp_path / "algorithm")
        held = dict(evaluator.module.named_parameters())
        names = [name for name in masks if name in held]
        assert names
        for name in names:
            assert torch.all(held[name].detach()[~masks[name]] == 0)
            assert torch.count_nonzero(held[name]) == int(masks[name].sum())
    finally:
        evaluator.close()


def test_a_module_that_is_still_torch_pruned_is_refused_with_the_way_out() -> None:
    from rayprune.rllib.learner.chosen_modules import refuse_torch_pruned

    layer = torch.nn.Linear(2, 2)
    refuse_torch_pruned("a", layer)
    torch_prune.l1_unstructured(layer, "weight", amount=0.5)
    with pytest.raises(ConfigError, match=r"End its `setup` with `rayprune.make_maskable"):
        refuse_torch_pruned("a", layer)


@pytest.fixture(scope="module")
def cartpole(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on CartPole, pruned to 80 %."""
    out = tmp_path_factory.mktemp("cartpole") / "run"
    experiments.train(experiments.experiment(experiments.PPO), out)
    return out


def transferred(cartpole: Path, env: str, **changes: Any) -> Any:
    return experiments.experiment(
        experiments.PPO, env=env, start_from=str(cartpole), transfer=changes, seed=5
    )


def test_a_longer_pole_starts_with_every_weight_and_mask(cartpole: Path, tmp_path: Path) -> None:
    what = transferred(cartpole, "rayprune.envs:LongPole-v0", target=1.0, fresh=True)
    summary = experiments.train(what, tmp_path / "run")
    transfer = summary["transfer"]
    assert transfer["new"] == []
    assert "pi.net.mlp.0.weight" in transfer["kept"]
    # Any pole stands for more than one step: reached before any training, and at once afresh.
    assert transfer["steps_to_target"] == {"this_run": 0, "fresh_start": 400}
    assert transfer["transferred_return"]["episodes"] == 3
    first = read_rows(tmp_path / "run" / "results.jsonl")[0]
    assert first["sparsity"] == pytest.approx(0.8, abs=0.02)
    fresh = json.loads((tmp_path / "run" / "fresh" / "summary.json").read_text())
    assert "transfer" not in fresh
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["transfer"] == transfer


def test_a_policy_at_its_target_from_the_start_is_a_candidate_at_once_and_its_dense_twin_is_dense(
    cartpole: Path, tmp_path: Path
) -> None:
    what = experiments.experiment(
        experiments.PPO,
        start_from=str(cartpole),
        seed=5,
        stop={"env_steps": 400},
        pruning={"sparsity": 0.8, "schedule": {"kind": "one_shot", "begin": 10_000}},
        evaluation={**experiments.PPO["evaluation"], "dense": "train"},
    )
    experiments.train(what, tmp_path / "run")
    for place, sparsity in (("run", 0.8), ("run/dense", 0.0)):
        rows = read_rows(tmp_path / place / "results.jsonl")
        assert not rows[0]["pruning_finished"]
        assert rows[0]["sparsity"] == pytest.approx(sparsity, abs=0.02)
        metas = [
            json.loads(path.read_text())
            for path in sorted((tmp_path / place / "checkpoints").glob("*/rayprune.json"))
        ]
        assert all(meta["best"] is not None for meta in metas)


def test_other_spaces_get_new_first_layers_and_heads_and_keep_the_rest(
    cartpole: Path, tmp_path: Path
) -> None:
    what = transferred(cartpole, "Acrobot-v1")  # six numbers seen in place of four, three actions
    summary = experiments.train(what, tmp_path / "run")
    transfer = summary["transfer"]
    assert transfer["new"] == [
        "encoder.actor_encoder.net.mlp.0.weight",
        "encoder.critic_encoder.net.mlp.0.weight",
        "pi.net.mlp.0.weight",
        "pi.net.mlp.0.bias",
    ]
    assert transfer["steps_to_target"] == {"this_run": None, "fresh_start": None}
    first = read_rows(tmp_path / "run" / "results.jsonl")[0]
    layers = first["layers"]
    assert layers["encoder.actor_encoder.net.mlp.2"] == pytest.approx(0.8, abs=0.02)
    assert layers["pi.net.mlp.0"] < 0.5  # dense at first, then by the schedule
    assert summary["sparsity"]["prunable"] == pytest.approx(0.8, abs=0.02)


def test_the_kept_weights_and_masks_are_the_donors(cartpole: Path) -> None:
    what = transferred(cartpole, "Acrobot-v1")
    algo = configs.build(prune(base_config(what), configs.pruning(**HALF)))
    try:
        taken = start_from(algo, cartpole, partly=True)
        weights = configs.learner_of(algo).module[DEFAULT_MODULE_ID].get_state()
        masks = configs.learner_of(algo).masks()[DEFAULT_MODULE_ID]
        state = locate(cartpole) / "learner_group" / "learner" / "rl_module" / DEFAULT_MODULE_ID
        with (state / "module_state.pkl").open("rb") as file:
            donor = pickle.load(file)
        for name in taken.kept:
            assert np.array_equal(weights[name], donor[name])
            if name in masks:
                assert np.array_equal(masks[name].numpy(), donor[name] != 0)
        assert not set(masks) & set(taken.new)
        held = algo.env_runner.module.state_dict()
        assert np.array_equal(held["pi.net.mlp.0.bias"], weights["pi.net.mlp.0.bias"])
    finally:
        algo.stop()


def test_another_network_is_refused_unless_it_is_a_transfer(cartpole: Path) -> None:
    what = transferred(cartpole, "Acrobot-v1")
    algo = configs.build(prune(base_config(what), configs.pruning()))
    try:
        with pytest.raises(CheckpointError, match=r"say `transfer: {}`"):
            start_from(algo, cartpole)
    finally:
        algo.stop()


def test_transfer_without_a_policy_and_fresh_without_a_target_are_faults() -> None:
    faults, _ = experiment_faults({**experiments.PPO, "transfer": {"fresh": True}})
    assert any("give its checkpoint as `start_from`" in fault for fault in faults)
    assert any("`transfer.target`" in fault for fault in faults)
