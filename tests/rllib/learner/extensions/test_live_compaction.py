"""Networks shrink while they are trained, everywhere, and nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

from rayprune.deploy.export.export import ExportRequest
from rayprune.errors import ConfigError, InputError
from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.checkpoints.files import load_algorithm, locate, restore, save
from rayprune.rllib.checkpoints.saved_policy import MODULE
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.rllib.commands.prune import prune_checkpoint
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.learner.extensions.distillation import KL_KEY, Distillation
from tests.rllib import configs, experiments
from tests.rllib.test_multi_agent import two_policies
from tests.rllib.training.test_resume import CrashAt, CrashError, check_same_run

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

LIVE = {"granularity": "neuron", "sparsity": 0.75, "compact_every": 100}
IN_RUN: dict[str, Any] = {
    **LIVE,
    "schedule": {"kind": "linear", "begin": 200, "end": 600, "every": 200},
}


def sizes(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def runner_sizes(algo: Any) -> list[dict[str, tuple[int, ...]]]:
    found: list[dict[str, tuple[int, ...]]] = algo.env_runner_group.foreach_env_runner(
        lambda runner: sizes(runner.module)
    )
    return found


def module_of(algo: Any) -> Any:
    return configs.learner_of(algo).module[DEFAULT_MODULE_ID]


def check_books(learner: Any) -> None:
    """Assert that optimizers and the Learner hold the module's own parameters, moments alike."""
    own = set(learner.module[DEFAULT_MODULE_ID].parameters())
    alpha = set(getattr(learner, "curr_log_alpha", {}).values())
    assert set(learner._params) <= own | alpha
    stepped = set()
    for _, optimizer in learner.get_optimizers_for_module(DEFAULT_MODULE_ID):
        stepped |= {weight for group in optimizer.param_groups for weight in group["params"]}
        for weight, state in optimizer.state.items():
            assert weight in own | alpha
            assert all(m.dim() == 0 or m.shape == weight.shape for m in state.values())
    assert stepped <= own | alpha


def test_ppo_shrinks_on_learner_and_env_runners_and_the_sparsity_remembers() -> None:
    algo = configs.build(prune(configs.ppo(), configs.pruning(**LIVE)))
    try:
        before = sizes(module_of(algo))
        for _ in range(2):
            result = algo.train()
        after = sizes(module_of(algo))
        for net in ("actor", "critic"):
            assert after[f"encoder.{net}_encoder.net.mlp.0.weight"] == (8, 4)
            assert after[f"encoder.{net}_encoder.net.mlp.2.weight"] == (8, 8)
        assert after["pi.net.mlp.0.weight"] == (2, 8)
        assert runner_sizes(algo)[0].items() <= after.items()
        check_books(configs.learner_of(algo))
        told = result["rayprune"][DEFAULT_MODULE_ID]
        assert told["sparsity"] == 0.75
        total = sum(torch.Size(shape).numel() for shape in before.values())
        held = sum(torch.Size(shape).numel() for shape in after.values())
        assert told["parameters"] == {"total": total, "held": held, "nonzero": held}
        layers = learner_reports(algo)[0][DEFAULT_MODULE_ID]["layers"]
        shapes = {f"{layer.name}.weight": layer.shape for layer in layers}
        assert shapes == {name: shape for name, shape in before.items() if name in shapes}
    finally:
        algo.stop()


def test_critics_still_heed_the_action_when_they_have_shrunk() -> None:
    algo = configs.build(prune(configs.sac(), configs.pruning(**LIVE)))
    try:
        for _ in range(3):
            algo.train()
        module = module_of(algo)
        report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
        assert report["parameters"]["held"] < 0.3 * report["parameters"]["total"]
        assert report["sparsity"] == pytest.approx(0.75, abs=0.01)
        # Whatever the random weights: each of the critics' inputs is read.
        obs = torch.randn(64, 3)
        actions = torch.linspace(-1, 1, 64).unsqueeze(1)
        still = {"obs": obs[:1].expand(64, -1), "actions": actions}
        for values in (module.compute_q_values(still), module.forward_target(still)):
            assert values.std() > 1e-6
    finally:
        algo.stop()


@pytest.mark.parametrize("algorithm", ["dqn", pytest.param("sac", marks=pytest.mark.slow)])
def test_target_networks_shrink_with_their_sources(algorithm: str) -> None:
    config = {"dqn": configs.dqn, "sac": configs.sac}[algorithm]()
    algo = configs.build(prune(config, configs.pruning(**LIVE)))
    try:
        for _ in range(3):
            algo.train()
        module, report = module_of(algo), learner_reports(algo)[0][DEFAULT_MODULE_ID]
        for source, target in module.get_target_network_pairs():
            assert sizes(source) == sizes(target)
        assert report["parameters"]["held"] < 0.3 * report["parameters"]["total"]
        assert report["violations"] == {}
        assert runner_sizes(algo)[0].items() <= sizes(module).items()
        check_books(configs.learner_of(algo))
    finally:
        algo.stop()


def test_a_clone_takes_its_donors_size_be_it_smaller_or_larger(tmp_path: Path) -> None:
    algos = {
        sparsity: configs.build(
            prune(configs.ppo(), configs.pruning(**{**LIVE, "sparsity": sparsity}))
        )
        for sparsity in (0.75, 0.5)
    }
    try:
        for sparsity, algo in algos.items():
            for _ in range(2):
                algo.train()
            save(algo, tmp_path / str(sparsity), None, {"env_steps": 400})
        own = {sparsity: sizes(module_of(algo)) for sparsity, algo in algos.items()}
        assert own[0.75]["pi.net.mlp.0.weight"] == (2, 8)
        assert own[0.5]["pi.net.mlp.0.weight"] == (2, 16)
        # Each takes the other's. The one that wants to be sparser goes on to shrink.
        for sparsity, donor in ((0.75, 0.5), (0.5, 0.75)):
            algo = algos[sparsity]
            load_algorithm(algo, tmp_path / str(donor))  # as a sweep's exploits do
            assert sizes(module_of(algo)) == own[donor]
            algo.train()
            told = learner_reports(algo)[0][DEFAULT_MODULE_ID]
            assert told["sparsity"] == 0.75, "pruned to its own target, or as its donor was"
            assert told["violations"] == {}
            assert runner_sizes(algo)[0].items() <= sizes(module_of(algo)).items()
            check_books(configs.learner_of(algo))
        assert sizes(module_of(algos[0.75])) == own[0.75]
    finally:
        for algo in algos.values():
            algo.stop()


def test_one_policy_of_several_shrinks() -> None:
    config = prune(two_policies(), configs.pruning(**LIVE), modules=["small"])
    algo = configs.build(config)
    try:
        before = sizes(configs.learner_of(algo).module["large"])
        for _ in range(3):
            result = algo.train()
        module = configs.learner_of(algo).module
        assert sizes(module["small"])["pi.net.mlp.0.weight"] == (2, 8)
        assert sizes(module["large"]) == before
        held = algo.env_runner.module
        assert sizes(held["small"]).items() <= sizes(module["small"]).items()
        assert sizes(held["large"]).items() <= before.items()
        assert list(result["rayprune"]) == ["small"]
    finally:
        algo.stop()


def test_a_student_shrinks_beside_its_whole_teacher_and_comes_back_so(tmp_path: Path) -> None:
    late = {"kind": "one_shot", "begin": 150, "every": 1}
    settings = {**LIVE, "schedule": late, "distillation": {"weight": 2.0}}
    config = prune(configs.ppo(), configs.pruning(**settings))
    algo, again = configs.build(config), configs.build(config)
    try:
        for _ in range(3):
            algo.train()
        save(algo, tmp_path / "saved", None, {"env_steps": 600})
        restore(again, tmp_path / "saved")
        for one in (algo, again):
            result = one.train()
            assert result["learners"][DEFAULT_MODULE_ID][KL_KEY] > 0
            teacher = configs.learner_of(one).extension(Distillation)._teachers[DEFAULT_MODULE_ID]
            assert sizes(teacher)["pi.net.mlp.0.weight"] == (2, 32)
            assert sizes(module_of(one))["pi.net.mlp.0.weight"] == (2, 8)
        teachers = [
            dict(
                configs.learner_of(one)
                .extension(Distillation)
                ._teachers[DEFAULT_MODULE_ID]
                .named_parameters()
            )
            for one in (algo, again)
        ]
        assert all(torch.equal(weight, teachers[1][name]) for name, weight in teachers[0].items())
    finally:
        algo.stop()
        again.stop()


@pytest.mark.slow
def test_two_learners_shrink_alike_and_a_restarted_env_runner_comes_back_small() -> None:
    config = configs.ppo().learners(num_learners=2).env_runners(num_env_runners=1)
    config.fault_tolerance(restart_failed_env_runners=True)
    algo = configs.build(prune(config, configs.pruning(**LIVE)))
    try:
        for _ in range(2):
            algo.train()
        first, second = learner_reports(algo)
        assert first[DEFAULT_MODULE_ID]["digest"] == second[DEFAULT_MODULE_ID]["digest"]
        shapes = foreach_learner(algo, lambda x: sizes(x.module[DEFAULT_MODULE_ID].unwrapped()))
        assert shapes[0] == shapes[1]
        assert shapes[0]["pi.net.mlp.0.weight"] == (2, 8)
        sums = foreach_learner(
            algo,
            lambda x: [float(p.double().sum()) for p in x.module[DEFAULT_MODULE_ID].parameters()],
        )
        assert sums[0] == sums[1]
        actor = next(iter(algo.env_runner_group._worker_manager.actors().values()))
        ray.kill(actor, no_restart=False)
        for _ in range(3):
            algo.train()
        remote = runner_sizes(algo)[-1]
        assert remote["pi.net.mlp.0.weight"] == (2, 8)
    finally:
        algo.stop()


def test_a_resumed_run_that_shrank_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    what = experiments.experiment(experiments.PPO, pruning=IN_RUN)
    whole = experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(610))
    resumed = experiments.train(what, tmp_path / "cut", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "cut")
    assert whole["returns"] == resumed["returns"]
    check_summary(whole)
    check_checkpoint(what, locate(tmp_path / "whole"))


def check_summary(summary: Mapping[str, Any]) -> None:
    """Assert that a summary says both what masks alone would, and what is left."""
    parameters = summary["parameters"]
    assert summary["sparsity"]["prunable"] == 0.75
    assert parameters["held"] < 0.3 * parameters["total"]
    assert summary["sparsity"]["all"] == 1 - parameters["nonzero"] / parameters["total"]
    assert summary["flops"]["dense"] == 2 * (4 * 16 + 16 * 16 + 16 * 2)
    assert summary["flops"]["sparse"] == 2 * (4 * 4 + 4 * 4 + 4 * 2)


def check_checkpoint(what: Any, checkpoint: Path) -> None:
    """Assert that an evaluation and RLlib itself load the small policy."""
    evaluator = Evaluator(base_config(what))
    evaluator.load_checkpoint(checkpoint)
    assert sizes(evaluator.module)["pi.net.mlp.0.weight"] == (2, 4)
    alone = RLModule.from_checkpoint(checkpoint / MODULE)
    observations = {"obs": torch.randn(3, 4)}
    logits = [
        m.forward_inference(observations)["action_dist_inputs"] for m in (evaluator.module, alone)
    ]
    assert torch.equal(*logits)
    evaluator.close()


@pytest.mark.slow
def test_what_shrank_is_exported_and_another_run_starts_from_it_and_shrinks_only_if_it_wants(
    tmp_path: Path,
) -> None:
    experiments.train(experiments.experiment(experiments.PPO, pruning=IN_RUN), tmp_path / "first")
    exported = export_checkpoint(
        tmp_path / "first", ExportRequest(tmp_path / "small.pt2", "torch", episodes=1)
    )
    assert exported["about"]["compacted_in_training"]
    assert exported["parameters"]["total"] == 4 * 4 + 4 + 4 * 4 + 4 + 2 * 4 + 2
    again = {"episodes": 1, "seed": 0, "address": None}
    with pytest.raises(InputError, match="must be 'neuron' or 'hybrid', but is 'weight'"):
        prune_checkpoint(
            tmp_path / "first", configs.pruning(sparsity=0.9), tmp_path / "no", **again
        )
    sparser = configs.pruning(granularity="neuron", sparsity=0.9)
    told = prune_checkpoint(tmp_path / "first", sparser, tmp_path / "sparser", **again)
    assert told["sparsity"]["prunable"] > 0.75
    for live in (True, False):
        what = experiments.experiment(
            experiments.PPO,
            pruning={**IN_RUN, "compact_every": 100 if live else None},
            start_from=str(tmp_path / "first"),
            stop={"env_steps": 400},
        )
        summary = experiments.train(what, tmp_path / f"next_{live}")
        assert summary["sparsity"]["prunable"] == 0.75
        assert (summary["parameters"]["held"] < summary["parameters"]["total"]) is live


def test_a_spec_that_was_set_after_prune_is_named() -> None:
    from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule

    config = prune(configs.ppo(), configs.pruning(**LIVE))
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultPPOTorchRLModule))
    with pytest.raises(ConfigError, match="Call `prune` last"):
        configs.build(config)
