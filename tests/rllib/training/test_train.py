"""`run_training` writes what DESIGN.md's contract says, and tells the truth in it."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rayprune import register_criterion
from rayprune.cli.printing.tables import summary_table
from rayprune.config import load_experiment, to_yaml
from rayprune.errors import CheckpointError, ConfigError, NonFiniteError, ResourceError
from rayprune.rllib.checkpoints.files import latest, locate
from rayprune.rllib.commands.evaluate import evaluate_checkpoint
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config, build_config
from rayprune.rllib.training.counters import RunCounters
from rayprune.rllib.training.interruption import Interruption
from rayprune.rllib.training.run import Run
from rayprune.rllib.training.train import check_same_run
from rayprune.rllib.training.twins import dense_twin
from rayprune.rllib.training.warm_start import start_from
from rayprune.tracking.record import read_rows
from rayprune.tracking.reporter import NullReporter
from tests.rllib import experiments

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run beside its dense twin."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    evaluation = {
        "every": 400,
        "episodes": 4,
        "dense": "train",
        "shifts": [{"sutton_barto_reward": True}],
    }
    # Ranks as l1 does, so that the run is one without groups, but for what it tells of them.
    pruning = {**experiments.PPO["pruning"], "groups": {"value": {"criterion": "l2"}}}
    what = experiments.experiment(experiments.PPO, evaluation=evaluation, pruning=pruning)
    experiments.train(what, out)
    return out


def summary_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


def test_the_summary_counts_what_the_layers_add_up_to(run: Path) -> None:
    summary = summary_of(run)
    layers = summary["sparsity"]["layers"]
    total, nonzero = (sum(layer[key] for layer in layers) for key in ("total", "nonzero"))
    assert summary["sparsity"]["prunable"] == pytest.approx(1 - nonzero / total)
    assert summary["sparsity"]["prunable"] == pytest.approx(0.8, abs=0.01)
    biases = summary["parameters"]["total"] - total
    assert biases == sum(layer["shape"][0] for layer in layers)
    assert set(summary["sparsity"]["groups"]) == {"policy", "value"}
    nothing: dict[str, int] = {}
    left = {"not_maskable": nothing, "frozen": nothing, "exempt": nothing}
    assert summary["uncovered"] == {"weights": total, "covered": total, **left}
    assert summary["cut_off"] is None
    assert summary["target_reached"] is True


def test_a_group_with_choices_of_its_own_is_told_of_in_rows_and_summary(run: Path) -> None:
    told = summary_of(run)["sparsity"]
    value = {"schedule": "cubic", "criterion": "l2", "granularity": "weight", "target": 0.8}
    finished = {"sparsity": told["groups"]["value"], "finished": True}
    assert told["own_groups"] == {"value": {**value, **finished}}
    assert read_rows(run / "results.jsonl")[-1]["own_groups"] == told["own_groups"]
    assert "own_groups" not in summary_of(run / "dense")["sparsity"]
    shown = Console(file=StringIO(), width=120)
    shown.print(summary_table(summary_of(run), "dense", "pruned"))
    assert "of group value (cubic, l2, weight)" in shown.file.getvalue()  # type: ignore[attr-defined]


def test_flops_are_twice_the_multiply_adds_of_the_policy(run: Path) -> None:
    layers = [
        layer for layer in summary_of(run)["sparsity"]["layers"] if layer["group"] == "policy"
    ]
    flops = summary_of(run)["flops"]
    assert flops["dense"] == 2 * (4 * 16 + 16 * 16 + 16 * 2)
    assert flops["sparse"] == 2 * sum(layer["nonzero"] for layer in layers)


def test_dense_and_pruned_are_measured_on_the_same_seeds_with_intervals(run: Path) -> None:
    returns = summary_of(run)["returns"]
    assert returns["test"]["episodes"] == returns["dense_test"]["episodes"] == 4
    for key in ("validation", "test", "dense_test"):
        low, high = returns[key]["ci95"]
        assert low <= returns[key]["iqm"] <= high
        assert returns[key]["ci95_over"] == "episodes"
    dense = summary_of(run / "dense")
    assert dense["sparsity"]["prunable"] == 0
    assert dense["returns"]["test"] == returns["dense_test"]


def test_shifted_environments_are_measured_too(run: Path) -> None:
    (shift,) = summary_of(run)["returns"]["shifts"]
    assert shift["env_config"] == {"sutton_barto_reward": True}
    assert shift["mean"] == -1  # that variant pays nothing but a fine at the end


def test_a_shift_tells_its_gap_for_dense_and_pruned_beside_each_other(run: Path) -> None:
    returns = summary_of(run)["returns"]
    (shift,) = returns["shifts"]
    assert shift["gap"]["iqm"] == pytest.approx(returns["test"]["iqm"] - shift["iqm"])
    assert shift["dense"]["gap"]["iqm"] == pytest.approx(
        returns["dense_test"]["iqm"] - shift["dense"]["iqm"]
    )
    low, high = shift["gap_over_dense"]["ci95"]
    assert low <= shift["gap"]["iqm"] - shift["dense"]["gap"]["iqm"] <= high


def test_closeness_to_the_dense_twin_is_in_the_summary_and_in_evaluate(run: Path) -> None:
    told = summary_of(run)["closeness"]
    assert 0 <= told["agreement"] <= 1
    assert told["kl"] > 0
    assert told["value_rmse"] > 0
    dense = summary_of(run / "dense")["returns"]
    # The dense policy was asked in each of its own states: as many as its episodes are long.
    assert told["states"] == 4 * dense["validation"]["mean"]
    again = evaluate_checkpoint(run, episodes=None, seed=None, address=None, dense=run / "dense")
    assert again["closeness"] == told
    assert again["returns"]["dense_test"] == dense["test"]


def test_learning_is_told_against_the_dense_reference(run: Path) -> None:
    learning = summary_of(run)["learning"]
    dense = summary_of(run / "dense")["returns"]["validation"]["iqm"]
    assert learning["validation"]["reference"] == learning["training"]["reference"] == dense
    rows = read_rows(run / "results.jsonl")
    churned = sum(row["mask_churn"] > 0 for row in rows)
    assert learning["training"]["dips"]["updates"] == churned > 0
    assert summary_of(run / "dense")["learning"]["training"]["reference_is"] == "peak"


def test_evaluate_reproduces_the_summary_from_the_checkpoint_alone(run: Path) -> None:
    returns = summary_of(run)["returns"]
    again = evaluate_checkpoint(locate(run), episodes=None, seed=None, address=None)["returns"]
    assert again == {"validation": returns["validation"], "test": returns["test"]}
    other = evaluate_checkpoint(run, episodes=2, seed=7, address=None)["returns"]
    assert other["seeds"]["episodes"] == 2


def test_the_record_has_a_row_per_iteration_and_the_config_reads_back(run: Path) -> None:
    rows = read_rows(run / "results.jsonl")
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["env_steps"] >= 1200
    assert rows[0]["updates"] > 0
    sparsities = [row["sparsity"] for row in rows]
    assert sparsities == sorted(sparsities)
    assert sum("validation" in row for row in rows) == 3
    assert load_experiment(run / "config.yaml").seed == 3


def test_only_the_best_and_the_newest_checkpoint_are_kept(run: Path) -> None:
    names = {path.name for path in (run / "checkpoints").iterdir()}
    newest = latest(run)
    assert newest is not None
    assert names == {newest.name, Path(summary_of(run)["checkpoint"]).name}


def test_a_run_starts_from_a_pruned_checkpoint_with_its_masks(run: Path, tmp_path: Path) -> None:
    late = {"sparsity": 0.9, "schedule": {"kind": "one_shot", "begin": 10_000}}
    what = experiments.experiment(
        experiments.PPO, start_from=str(run), stop={"env_steps": 200}, pruning=late
    )
    summary = experiments.train(what, tmp_path / "next")
    assert summary["sparsity"]["prunable"] == pytest.approx(0.8, abs=0.01)
    assert summary["target_reached"] is False


def test_a_checkpoint_of_another_network_is_refused(run: Path, tmp_path: Path) -> None:
    rllib = {**experiments.PPO["rllib"]}
    rllib["rl_module"] = {"model_config": {"fcnet_hiddens": [16, 16, 16]}}
    what = experiments.experiment(experiments.PPO, start_from=str(run), rllib=rllib)
    with pytest.raises(CheckpointError, match="another network"):
        experiments.train(what, tmp_path / "next")


def test_a_gpu_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    rllib = {**experiments.PPO["rllib"], "learners": {"num_gpus_per_learner": 1}}
    what = experiments.experiment(experiments.PPO, rllib=rllib)
    with pytest.raises(ResourceError, match="cluster has 0"):
        experiments.train(what, tmp_path / "run")


def test_a_diverging_run_stops_with_its_last_good_checkpoint_intact(tmp_path: Path) -> None:
    what = experiments.experiment(experiments.PPO)
    rllib = {
        **what.rllib,
        "training": {**what.rllib["training"], "lr": [[0, 3e-4], [500, 3e-4], [600, 1e38]]},
    }
    diverging = experiments.experiment(experiments.PPO, rllib=rllib)
    with pytest.raises(NonFiniteError, match="last good checkpoint"):
        experiments.train(diverging, tmp_path / "run")
    newest = latest(tmp_path / "run")
    assert newest is not None
    evaluator = Evaluator(base_config(what))
    evaluator.load_checkpoint(newest)
    assert evaluator.evaluate(0, 2)["mean"] > 0
    evaluator.close()


def test_a_score_of_nan_stops_the_run_with_its_last_good_checkpoint_intact(
    registries: None, tmp_path: Path
) -> None:
    calls = []

    def broken(weight: torch.Tensor) -> torch.Tensor:
        calls.append(weight)
        return weight.abs() if len(calls) < 15 else weight * float("nan")

    register_criterion("broken", broken)
    what = experiments.experiment(
        experiments.PPO, pruning={**experiments.PPO["pruning"], "criterion": "broken"}
    )
    with pytest.raises(NonFiniteError, match=r"scores of .* hold a NaN.* last good checkpoint"):
        experiments.train(what, tmp_path / "run")
    newest = latest(tmp_path / "run")
    assert newest is not None
    rows = list(read_rows(tmp_path / "run" / "results.jsonl"))
    assert rows[-1]["env_steps"] >= int(newest.name) > 0
    evaluator = Evaluator(base_config(what))
    evaluator.load_checkpoint(newest)
    assert all(torch.isfinite(p).all() for p in evaluator.module.parameters())
    evaluator.close()


def test_the_dense_twin_differs_in_its_sparsity_alone() -> None:
    what = experiments.experiment(
        experiments.PPO,
        pruning={**experiments.PPO["pruning"], "fused_optimizer": False, "protect": ["pi*"]},
    )
    dense = dense_twin(what).pruning
    assert dense.sparsity == 0
    assert dense.schedule == what.pruning.schedule
    assert dense.fused_optimizer is False


def test_the_dense_twin_of_a_network_that_shrinks_does_not_shrink() -> None:
    live = {**experiments.PPO["pruning"], "granularity": "neuron", "compact_every": 100}
    dense = dense_twin(experiments.experiment(experiments.PPO, pruning=live)).pruning
    assert (dense.sparsity, dense.compact_every) == (0, None)


def test_a_dense_checkpoint_of_another_environment_is_refused(run: Path, tmp_path: Path) -> None:
    other = experiments.experiment(
        experiments.PPO, env="Acrobot-v1", evaluation={"every": 400, "dense": str(run)}
    )
    with pytest.raises(CheckpointError, match="another network"):
        experiments.train(other, tmp_path / "run")


def test_remote_env_runners_start_from_the_checkpoints_policy(run: Path) -> None:
    rllib = {**experiments.PPO["rllib"], "env_runners": {"num_env_runners": 1}}
    config = build_config(experiments.experiment(experiments.PPO, rllib=rllib))
    algo = config.build_algo()
    try:
        start_from(algo, run)
        expected = Evaluator(config)
        expected.load_checkpoint(locate(run))
        weights = expected.module.state_dict()

        def same(runner: Any) -> bool:
            held = runner.module.state_dict()
            return all(bool((held[name] == value).all()) for name, value in weights.items())

        group = algo.env_runner_group
        assert group.foreach_env_runner(same, local_env_runner=False) == [True]
    finally:
        algo.stop()


def unstarted_run(**stop: float) -> Run:
    what = experiments.experiment(experiments.PPO, stop=stop)
    return Run(what, base_config(what), Path(), NullReporter(), Interruption(str), None)


def test_a_return_of_exactly_zero_counts() -> None:
    run = unstarted_run(**{"return": -1.0, "env_steps": 10_000})
    run._validation = {"iqm": 0.0, "mean": 0.0}
    assert run._done(pruning_finished=True)
    assert not run._done(pruning_finished=False)


def test_the_best_is_by_iqm_then_by_mean_then_the_latest() -> None:
    progress = RunCounters()
    chosen = []
    for name, iqm, mean in [
        ("a", 400.0, 480.0),
        ("b", 500.0, 450.0),
        ("c", 500.0, 490.0),
        ("d", 500.0, 470.0),
        ("e", 500.0, 490.0),
        ("f", 499.0, 499.0),
    ]:
        progress.compare_with_best(name, {"iqm": iqm, "mean": mean})
        chosen.append(progress.best)
    assert chosen == ["a", "b", "c", "c", "e", "e"]
    assert RunCounters.from_meta(json.loads(json.dumps(vars(progress)))) == progress


def test_a_run_resumes_with_longer_evaluations_but_not_with_others(tmp_path: Path) -> None:
    run = experiments.experiment(experiments.PPO)
    held = tmp_path / "config.yaml"
    held.write_text(to_yaml(run, {}), encoding="utf-8")
    longer = {**experiments.PPO["evaluation"], "max_steps": 70_000}
    check_same_run(experiments.experiment(experiments.PPO, evaluation=longer), held)
    more = {**experiments.PPO["evaluation"], "episodes": 99}
    with pytest.raises(ConfigError, match=r"`evaluation.episodes` was"):
        check_same_run(experiments.experiment(experiments.PPO, evaluation=more), held)
