"""The scan measures one layer at a time, resumes, and suggests what a config takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from rayprune.config import load_experiment
from rayprune.errors import ConfigError
from rayprune.pruning.masks.topk import kept_count
from rayprune.rllib.commands.sensitivity import ScanOptions, scan_sensitivity
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import settings_of
from rayprune.rllib.experiment.network_checks import check_network
from rayprune.statistics.intervals import summarise
from rayprune.tracking.record import read_rows
from tests.rllib import configs, experiments

pytestmark = pytest.mark.usefixtures("ray_session")

OPTIONS = ScanOptions(sparsities=(0.5, 0.9), episodes=3, target=0.75)


class Reporter:
    """Counts points; stops the scan as Ctrl-C would after so many."""

    def __init__(self, most: int = 1000) -> None:
        self.points, self.most = 0, most
        self.started: tuple[int, int] | None = None

    def start(self, total: int, done: int) -> None:
        self.started = (total, done)

    def point(self, row: Mapping[str, Any]) -> None:
        self.points += 1
        if self.points == self.most:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def checkpoint(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What plain RLlib writes."""
    path = tmp_path_factory.mktemp("plain") / "checkpoint"
    algorithm = configs.ppo().build_algo()
    algorithm.save_to_path(str(path))
    algorithm.stop()
    return path


@pytest.fixture(scope="module")
def scan(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished scan's directory."""
    out = tmp_path_factory.mktemp("scan") / "out"
    scan_sensitivity(checkpoint, OPTIONS, out, resume=False, reporter=Reporter())
    return out


def result_of(scan: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((scan / "sensitivity.json").read_text())
    return held


def test_every_layer_is_there_at_every_rung_with_what_it_is_judged_by(scan: Path) -> None:
    layers = result_of(scan)["layers"]
    names = [layer["name"] for layer in layers]
    assert {"pi.net.mlp.0", "vf.net.mlp.0", "encoder.critic_encoder.net.mlp.0"} < set(names)
    for layer in layers:
        assert [rung["sparsity"] for rung in layer["ladder"]] == [0.5, 0.9]
        for rung in layer["ladder"]:
            pruned = layer["total"] - kept_count(layer["total"], rung["sparsity"])
            assert rung["reached"] == pruned / layer["total"]
        by_return = layer["measured_by"] == "return"
        assert by_return == (layer["group"] == "policy")
        assert all((rung["iqm"] is not None) == by_return for rung in layer["ladder"])


def test_only_the_critics_layers_move_the_values_and_only_the_actors_the_actions(
    scan: Path,
) -> None:
    for layer in result_of(scan)["layers"]:
        rung = layer["ladder"][-1]
        if layer["group"] == "policy":
            assert rung["value_rmse"] == 0
            assert rung["kl"] > 0
        else:
            assert rung["value_unexplained"] > 0
            assert (rung["kl"], rung["agreement"]) == (0, 1)


def test_a_point_is_what_pruning_that_layer_by_hand_gives(scan: Path, checkpoint: Path) -> None:
    name = "encoder.actor_encoder.net.mlp.2"
    evaluator = Evaluator(settings_of(checkpoint).config)
    evaluator.load_checkpoint(checkpoint)
    base = summarise(evaluator.returns(10_000, 3))
    weight = evaluator.module.get_submodule(name).weight
    with torch.no_grad():
        order = weight.abs().flatten().argsort()
        weight.view(-1)[order[: round(0.9 * weight.numel())]] = 0
    by_hand = summarise(evaluator.returns(10_000, 3))
    evaluator.close()
    result = result_of(scan)
    (layer,) = [layer for layer in result["layers"] if layer["name"] == name]
    rung = layer["ladder"][1]
    assert {key: result["unpruned"][key] for key in base} == base
    assert (rung["iqm"], rung["ci95"]) == (by_hand["iqm"], by_hand["ci95"])
    assert rung["gap"]["iqm"] == pytest.approx(base["iqm"] - by_hand["iqm"])


def test_the_suggestion_meets_its_target_to_the_weight_and_was_measured_as_a_whole(
    scan: Path,
) -> None:
    result = result_of(scan)
    total = sum(layer["total"] for layer in result["layers"])
    together = result["suggested"]["together"]
    assert result["suggested"]["sparsity"] == together["reached"] == round(0.75 * total) / total
    assert together["iqm"] is not None


def test_a_config_takes_the_suggested_file_as_its_distribution(
    scan: Path, tmp_path: Path, checkpoint: Path
) -> None:
    path = tmp_path / "c.yaml"
    given = {**experiments.PPO, "pruning": {"schedule": experiments.PPO["pruning"]["schedule"]}}
    path.write_text(json.dumps(given))
    text = (scan / "suggested.yaml").read_text()
    experiment = load_experiment(path, [f"pruning.distribution={text}"])
    assert experiment.pruning.distribution == result_of(scan)["suggested"]["distribution"]
    evaluator = Evaluator(settings_of(checkpoint).config, whole=True)
    check_network(evaluator.module, experiment.pruning)
    evaluator.close()


def test_an_interrupted_scan_goes_on_where_it_was_and_equals_the_uninterrupted_one(
    scan: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        scan_sensitivity(checkpoint, OPTIONS, out, resume=False, reporter=Reporter(most=5))
    assert not (out / "sensitivity.json").exists()
    reporter = Reporter()
    scan_sensitivity(checkpoint, OPTIONS, out, resume=True, reporter=reporter)
    assert reporter.started is not None
    total, done = reporter.started
    assert done == 5
    assert reporter.points == total - 5
    assert result_of(out) == result_of(scan)
    assert len(read_rows(out / "sensitivity.jsonl")) == total


def test_a_scan_is_not_resumed_with_other_options(scan: Path, checkpoint: Path) -> None:
    other = ScanOptions(sparsities=(0.5, 0.9), episodes=4)
    with pytest.raises(ConfigError, match="`--episodes` was 3"):
        scan_sensitivity(checkpoint, other, scan, resume=True, reporter=Reporter())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsities": (0.5, 1.0)}, "must lie in .0, 1."),
        ({"sparsities": (0.9, 0.5)}, "must rise"),
        ({"criterion": "ll"}, "`--criterion` must be one of"),
        ({"criterion": "taylor"}, "needs data from training"),
        ({"tolerance": 1.5}, "`--tolerance` must be"),
        ({"target": 0.0}, "`--target` must be"),
        ({"layers": ("encoder.nothing*",)}, "matches no layer"),
        ({"seed": 19_990}, "test seeds"),
        ({"layers": ("pi*",), "target": 0.9}, "`--target` 0.9 cannot be met"),
    ],
)
def test_what_cannot_be_scanned_is_refused(
    options: dict[str, Any], words: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        scan_sensitivity(
            checkpoint,
            ScanOptions(**{"episodes": 20, "sparsities": (0.5,), **options}),
            tmp_path / "out",
            resume=False,
            reporter=Reporter(),
        )


def test_units_can_be_scanned_and_heads_are_left_out(checkpoint: Path, tmp_path: Path) -> None:
    options = ScanOptions(sparsities=(0.5,), episodes=1, granularity="neuron")
    result = scan_sensitivity(
        checkpoint, options, tmp_path / "out", resume=False, reporter=Reporter()
    )
    names = [layer["name"] for layer in result["layers"]]
    assert not any(name.startswith(("pi", "vf")) for name in names)
    assert all(layer["ladder"][0]["reached"] == 0.5 for layer in result["layers"])
