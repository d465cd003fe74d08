"""benchmarks/leaderboard: its arithmetic, cells and their configs, rows, tables and figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torchs

from benchmarks.leaderboard import figure, running, scoring, tables
from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.arms import ARMS, SPARSITIES
from benchmarks.leaderboard.cells import Cell, cells, missing, rows
from benchmarks.leaderboard.making import kept_config
from benchmarks.leaderboard.sizes import (
    hiddens,
    parameters,
    small_width,
    unit_sparsity,
    weights,
    wide_sparsity,
)
from benchmarks.leaderboard.tasks import FOLDER, NOISY, TASKS, noisy
from rayprune import Pruner, PruningConfig, make_maskable, yaml12
from rayprune.cli.prune import pruning_config
from rayprune.config import load_experiment
from rayprune.search.sweep_spec import load_sweep

LAYERS = (11, 64, 64, 3)
SWEEPS = sorted((FOLDER.parent / "sweeps").glob("*.yaml"))


def row(cell: Cell, score: float, flash: int = 4096) -> dict[str, Any]:
    """Return a row as a cell's process makes it, without what no table reads."""
    found: dict[str, Any] = {**cell.key, "score": {"mean": score, "worst": score}, "seconds": 1.0}
    if cell.arm != "random":
        shifts = {name: {"mean": score} for name in TASKS[cell.task].shifts}
        measured = {"flash_bytes": flash, "instructions": 100}
        found |= {
            "actor": {"sparsity": cell.sparsity, "nonzero": 500},
            "shifts": shifts,
            "train_s": 1.0,
        }
        found["targets"] = {"cortex-m4": measured}
    return found


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_arms_of_one_sparsity_keep_as_much(sparsity: float) -> None:
    kept = (1 - sparsity) * weights(LAYERS)
    biases = parameters(LAYERS) - weights(LAYERS)
    width = small_width(LAYERS, sparsity)
    assert parameters(hiddens(LAYERS, width - 1)) < kept + biases
    assert parameters(hiddens(LAYERS, width)) >= round(kept + biases)
    wide = weights((11, 256, 256, 3))
    assert (1 - wide_sparsity(LAYERS, sparsity)) * wide == pytest.approx(kept)
    units = round(64 * (1 - unit_sparsity(LAYERS, sparsity)))
    assert weights(hiddens(LAYERS, units)) <= kept < weights(hiddens(LAYERS, units + 1))


def test_every_cell_has_a_config_without_faults() -> None:
    for task in TASKS.values():
        for arm in (arm for arm in ARMS.values() if arm.applies(task)):
            settings = [*arm.settings(task, 0.9)]
            if arm.cuts:
                assert pruning_config({}, settings).sparsity == 0.9
            else:
                assert load_experiment(task.config, settings).name == task.name


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_the_sweep_of_a_task_trains_as_the_task_does(file: Path) -> None:
    sweep, task = yaml12.read_mapping(file), TASKS[file.stem]
    for key in ("env", "rllib", "normalise", "stop"):
        assert sweep[key] == task.raw[key]
    pytest.importorskip(
        "mujoco", reason="the environment is made to check the file: rayprune[mujoco]"
    )
    pytest.importorskip("envpool", reason="likewise: rayprune[envpool]")
    assert load_sweep(file)["name"] == sweep["name"]


def test_post_hoc_cuts_what_torch_cuts() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(11, 64), nn.Tanh(), nn.Linear(64, 3))
    names = ["0", "2"]
    theirs = [(net[0], "weight"), (net[2], "weight")]
    torchs.global_unstructured(theirs, torchs.L1Unstructured, amount=0.9)
    kept = [module.weight_mask.bool() for module, _ in theirs]
    for module, name in theirs:
        module.weight = nn.Parameter(module.weight_orig.detach().clone())
        torchs.remove(module, name)
    config = json.loads(ARMS["post-hoc"].settings(TASKS["hopper"], 0.9)[0].partition("=")[2])
    del config["groups"]  # this net has no critic
    make_maskable(net)
    pruner = Pruner(net, PruningConfig.from_dict(config))
    pruner.prune_to(0.9)
    assert all(
        torch.equal(pruner.masks[f"{n}.weight"], k) for n, k in zip(names, kept, strict=True)
    )


def test_dense_comes_before_what_is_cut_from_it_and_a_table_is_there_early() -> None:
    found = cells(["hopper"], seeds=range(10))
    places = {cell: place for place, cell in enumerate(found)}
    assert all(places[cell.before] < places[cell] for cell in found if cell.before)
    assert found[0].arm == "random"
    assert {c.seed for c in found[:43]} == {0, 1, 2}
    assert {c.sparsity for c in found[:43]} == {0.0, 0.9, 0.95}


def test_a_row_is_run_once_and_a_failed_cell_takes_with_it_what_it_feeds(tmp_path: Path) -> None:
    class Pool:
        slots = 2
        asked: list[Cell] = []  # noqa: RUF012

        def submit(self, command: Any) -> Cell:
            self.asked.append(Cell(**json.loads(command[4])))
            return self.asked[-1]

        def finished(self, handles: Any) -> Any:
            cell = handles[0]
            return cell, "no luck" if (cell.arm, cell.seed) == ("dense", 1) else row(cell, 1.0)

    pool = Pool()
    wanted = cells(["hopper"], ["dense", "post-hoc"], [0.9], range(2))
    assert running.run_all(wanted, pool, tmp_path, tmp_path) == 2
    assert [c.name for c in missing(wanted, tmp_path)] == [
        "hopper/dense-seed1",
        "hopper/post-hoc-0.9-seed1",
    ]
    assert not [cell for cell in pool.asked if (cell.arm, cell.seed) == ("post-hoc", 1)]
    asked = len(pool.asked)
    running.run_all(wanted, pool, tmp_path, tmp_path)
    assert [cell.name for cell in pool.asked[asked:]] == ["hopper/dense-seed1"]
    # In a clone that has rows, but no runs, a policy is trained again for what is made of it.
    asked, held = len(pool.asked), len(rows(["hopper"], tmp_path))
    more = cells(["hopper"], ["dense", "post-hoc"], [0.95], [0])
    assert running.run_all(more, pool, tmp_path, tmp_path) == 0
    assert [cell.name for cell in pool.asked[asked:]] == [
        "hopper/dense-seed0",
        "hopper/post-hoc-0.95-seed0",
    ]
    assert len(rows(["hopper"], tmp_path)) == held + 1


def test_a_config_is_kept_once_for_all_seeds_unless_more_than_the_seed_differs(
    tmp_path: Path,
) -> None:
    def kept(seed: int, rate: float) -> str:
        cell = Cell(task="hopper", arm="distilled", sparsity=0.9, seed=seed)
        run = tmp_path / cell.name
        run.mkdir(parents=True, exist_ok=True)
        data = f"/runs/hopper/dense-seed{seed}-episodes"
        versions = f"versions: {{rayprune: 0.{seed}.0}}\n"  # the row has them
        (run / "config.yaml").write_text(f"seed: {seed}\nlr: {rate}\ninput_: [{data}]\n{versions}")
        return kept_config(cell, run, tmp_path / "configs")["file"]

    first = kept(0, 0.1)
    assert first == "configs/hopper/distilled-0.9.yaml"
    assert kept(1, 0.1) == first
    assert (other := kept(2, 0.2)) != first
    assert "lr: 0.2" in (tmp_path / other).read_text()
    assert kept(3, 0.2) == other


@pytest.mark.parametrize(
    "given", [["--most", "-1"], ["--seeds", "0"], ["--slots", "x"], ["--sparsities", "0.7"]]
)
def test_what_no_table_would_show_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--plan", *given])
    assert caught.value.code == 2


OURS = [
    [2.041, -2.556, 0.418], [-0.568, -0.453, -0.216], [-2.02, -0.232, -0.865],
    [3.323, 0.226, -0.353], [-0.281, -0.668, -1.055], [-0.391, 0.482, -0.239], [0.958, -0.2, 0.024],
]  # fmt: skip
THEIRS = [
    [1.546, 0.545, -0.505], [-0.183, 0.541, 1.935], [-0.568, -0.244, 1.002],
    [-0.886, -0.292, 0.883], [0.58, 0.092, 0.67], [-2.828, 1.021, -0.96], [-1.669, 0.276, 0.701],
]  # fmt: skip
"""Shape (num_runs, num_tasks); one pair of them is a tie."""


def test_scores_are_those_of_rliable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rliable 1.2.0 (numpy 2.4.6, pandas 2.3.3) gave for these, which can't be installed here.

    ``library.get_interval_estimates`` with ``metrics.aggregate_iqm`` and 20,000 resamples, and with
    ``metrics.probability_of_improvement`` and 5,000.
    """
    monkeypatch.setattr(scoring, "RESAMPLES", 20_000)
    x, y = ({str(i): [run[i] for run in each] for i in range(3)} for each in (OURS, THEIRS))
    found = scoring.iqm(x)
    assert found.value == pytest.approx(-0.24390909090909094)
    assert [found.low, found.high] == pytest.approx([-0.51881818, 0.07563636], abs=0.02)
    found = scoring.improvement(x, y)
    assert found.value == pytest.approx(0.3707482993197279)
    assert [found.low, found.high] == pytest.approx([0.22108844, 0.54081633], abs=0.02)


def test_tables_and_figure_show_what_was_run_and_name_what_was_not(tmp_path: Path) -> None:
    scores = {"random": 0.0, "dense": 200.0, "linear": 50.0, "cubic": 180.0, "post-hoc": 20.0}
    wanted = [
        *cells(["hopper"], list(scores), [0.9], range(3)),
        *cells(["hopper"], ["SET"], [0.9], range(2)),  # too few runs for a point
    ]
    known = [row(cell, scores.get(cell.arm, 90.0) + cell.seed) for cell in wanted]
    text = "\n".join(tables.page(known))
    assert "| cubic | 0.9 | 500 | 3 | 181.0 [180.0, 182.0] | 0.90 [0.90, 0.91] |" in text
    assert "run --tasks hopper --arms 'RigL' --sparsities 0.5 0.8 0.9 0.95 0.98" in text
    assert "**Not run**: `python -m benchmarks.leaderboard run --tasks swimmer`" in text
    points = figure.points(TASKS["hopper"], known)
    panel = figure.Panel(TASKS["hopper"], points, random=30.0)
    drawn = figure.drawing([panel], figure.DARK)
    assert drawn.count("<circle") == 4 + 4  # a point and a line of the legend for each
    axes = figure.Axes(panel, left=0.0, top=0.0)
    assert axes.y(-1e6) == axes.y(30.0) == axes.bottom > axes.y(50.0)
    assert "cubic at 90%: 181.0 [180.0, 182.0], 4,096 B" in drawn


def test_noise_is_told_as_the_share_of_the_return_that_is_kept() -> None:
    wanted = cells(["hopper"], ["dense", "small dense", "units, live", "cubic"], [0.9], range(4))
    kept = {"dense": 0.9, "small dense": 0.5, "units, live": 0.8, "cubic": 1.0}
    known = [row(cell, 0.0 if cell.arm == "random" else 200.0) for cell in wanted]
    for each in known:
        if each["arm"] == "cubic":
            each["score"]["mean"] = 90.0  # below half of dense: says nothing
        if each["arm"] in kept:
            noisy = kept[each["arm"]] * each["score"]["mean"]
            each["shifts"]["noisy observations"]["mean"] = noisy
    told = "\n".join(tables.noise_table(known))
    assert "| units, live | 0.80 [0.80, 0.80] | 0.80 (4) |" in told
    assert "| cubic |" not in told
    # The 1 of 70 ways to deal eight runs to two arms that has all four better ones in one.
    value = told.partition("`units, live` keeps +0.300 of it more than `small dense`")[2]
    assert float(value.partition("more in ")[2].split()[0]) == pytest.approx(1 / 70, abs=0.005)


def test_learning_is_told_by_the_runs_curves_on_the_dense_scale() -> None:
    wanted = cells(["hopper"], ["dense", "cubic", "post-hoc"], [0.9], range(3))
    curves = {"dense": [100.0, 200.0], "cubic": [50.0, 150.0], "post-hoc": []}
    scores = {"random": 0.0, "dense": 200.0, "cubic": 150.0, "post-hoc": 10.0}
    known = [row(cell, scores[cell.arm]) for cell in wanted]
    for each in known:
        values = curves.get(each["arm"], [])
        each["curve"] = [[1000 * (at + 1), value] for at, value in enumerate(values)]
        if each["arm"] == "cubic":
            each["mask_kl"] = {"median": 0.01 * (each["seed"] + 1), "largest": 0.5}
    page = "\n".join(tables.task_table(TASKS["hopper"], known))
    learnt = page.partition("over the whole run")[2]
    assert "| dense | - | 3 | 1.00 [1.00, 1.00] | 1,000 | 2,000 | - |" in learnt
    assert "| cubic | 0.9 | 3 | 0.67 [0.67, 0.67] | 2,000 | - | 0.020 (0.50) |" in learnt
    assert "| post-hoc |" not in learnt


@pytest.mark.parametrize("dense", [0.0, -5.0])
def test_a_task_that_dense_policies_have_not_learnt_has_no_scale_and_no_plot(dense: float) -> None:
    arms = ["random", "dense", "linear", "cubic", "post-hoc"]
    known = [
        row(cell, 0.0 if cell.arm == "random" else dense)
        for cell in cells(["hopper"], arms, [0.9], range(2))
    ]
    text = "\n".join(tables.page(known))
    assert f"| cubic | 0.9 | 500 | 2 | {dense:.1f} [{dense:.1f}, {dense:.1f}] | - |" in text
    assert figure.panel_of(TASKS["hopper"], known) is None


def test_shifts_change_the_environment_and_noise_follows_from_the_seed() -> None:
    task = TASKS["cartpole"]
    plain, longer = task.env()(), task.env(task.shifts["longer pole"])()
    pole = longer.unwrapped
    assert pole.length == 2 * plain.unwrapped.length
    assert pole.polemass_length == pole.masspole * pole.length
    make = noisy(task, task.env(), NOISY["noisy observations"].noise)
    noise = [make().reset(seed=seed)[0] - plain.reset(seed=seed)[0] for seed in (5, 5, 6)]
    assert np.array_equal(noise[0], noise[1])
    assert noise[0].any()
    assert not np.allclose(noise[0], noise[2])
