"""All algorithms, nets and granularities keep the promises: zeros, same masks, restore, export.

The default suite runs a pairwise cover of what samples by itself, without SimBa, and one case of
TQC, whose loop and nets are SAC's, and of each offline algorithm. With `make test-slow` the cover
has all pairs. `make test-all` runs every case, and exports its policy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import random_inputs
from rayprune.rllib import prune
from rayprune.rllib.callback import check_env_runners, learner_reports
from rayprune.rllib.checkpoints.files import restore, save
from rayprune.rllib.checkpoints.saved_policy import SavedPolicy
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import build_module
from rayprune.rllib.export.policy import deployable
from tests.doubles.envs import Images
from tests.rllib import configs, matrix
from tests.rllib.invariants import check_by_hand

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

ONLINE = tuple(case for case in matrix.FULL if case[0] not in {*matrix.OFFLINE, "TQC"})
COVER = [
    *matrix.cover(ONLINE),
    ("TQC", "mlp", "neuron"),
    ("BC", "mlp", "weight"),
    ("MARWIL", "mlp", "neuron"),
    ("CQL", "mlp", "2:4"),
    ("IQL", "mlp", "weight"),
]
SIMBA_IN_EVERY_RUN = [("SAC", "simba", "neuron")]
"""It is RLlib's modules with other layers: its other pairs come in `make test-slow`."""
IN_EVERY_RUN = len(COVER)
"""How many of the cover, but for SimBa; the others have their pairs in `make test-slow`."""
COVER += matrix.cover(matrix.FULL, but=COVER)


@pytest.fixture(scope="module")
def data(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Recorded episodes, made when first asked for."""
    return _Recorded(tmp_path_factory.mktemp("data"))


class _Recorded(dict[str, Path]):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, kind: str) -> Path:
        envs = {"discrete": "CartPole-v1", "continuous": "Pendulum-v1", "images": Images}
        self[kind] = matrix.record(envs[kind], self._folder / kind)
        return self[kind]


def _id(case: matrix.Case) -> str:
    return "-".join(case)


def _marked(case: matrix.Case) -> Any:
    rare = case in COVER[IN_EVERY_RUN:] or (case[1] == "simba" and case not in SIMBA_IN_EVERY_RUN)
    return pytest.param(case, marks=pytest.mark.slow if rare else (), id=_id(case))


@pytest.mark.parametrize("case", [_marked(case) for case in COVER])
def test_a_cover_of_all_pairs_keeps_every_promise(
    case: matrix.Case, data: dict[str, Path], tmp_path: Path
) -> None:
    _keeps_every_promise(case, data, tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("case", matrix.FULL, ids=_id)
def test_every_case_keeps_every_promise_and_is_exported(
    case: matrix.Case, data: dict[str, Path], tmp_path: Path
) -> None:
    _keeps_every_promise(case, data, tmp_path, exports=True)


def test_the_cover_has_every_pair_that_the_matrix_has() -> None:
    held = {pair for case in COVER for pair in matrix.pairs(case)}
    assert held == {pair for case in matrix.FULL for pair in matrix.pairs(case)}
    assert len(COVER) < len(matrix.FULL) / 2
    assert set(SIMBA_IN_EVERY_RUN) < set(COVER)


@pytest.mark.slow  # two Learners start; test_exact_zeros.py has two of PPO in every run
@pytest.mark.parametrize("name", ["IMPALA", pytest.param("SAC", marks=pytest.mark.matrix)])
def test_two_learners_hold_the_same_masks(name: str, data: dict[str, Path]) -> None:
    config = matrix.config_of(name, "mlp", data).learners(num_learners=2)
    algo = configs.build(prune(config, configs.pruning(criterion="random")))
    try:
        for _ in range(3):
            algo.train()
        first, second = _reports_at_rest(algo)
        assert first["mask_updates"] == second["mask_updates"] > 0
        assert first["digest"] == second["digest"]
        assert first["sparsity"] == pytest.approx(0.8, abs=0.02)
    finally:
        algo.stop()


def _reports_at_rest(algo: Any) -> list[dict[str, Any]]:
    """Read until both Learners' threads have done the same updates."""
    for _ in range(50):
        reports = [report[DEFAULT_MODULE_ID] for report in learner_reports(algo)]
        if len({report["updates"] for report in reports}) == 1:
            return reports
    raise AssertionError([report["updates"] for report in reports])


def _keeps_every_promise(
    case: matrix.Case, data: dict[str, Path], tmp_path: Path, *, exports: bool = False
) -> None:
    algorithm, net, granularity = case
    # An asynchronous policy is followed a little later; offline, no EnvRunner samples.
    unsynced = (*matrix.ASYNCHRONOUS, *matrix.OFFLINE)
    plain = matrix.config_of(algorithm, net, data)
    config = prune(plain, configs.pruning(**_pruning(granularity, plain)))
    algo = configs.build(config)
    try:
        with _Watch(configs.learner_of(algo)) as watch:
            for _ in range(3):
                algo.train()  # the callback raises on a broken promise
                check_by_hand(algo, env_runners=algorithm not in unsynced)
        if algorithm in matrix.ASYNCHRONOUS:
            assert watch.seen > 3  # its thread updates while we look
            check_env_runners(algo, learner_reports(algo)[0])
        report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
        assert report["finished"]
        _check_sparsity(report, granularity)
        save(algo, tmp_path / "saved", None, {"env_steps": 600})
        saved = learner_reports(algo)[0][DEFAULT_MODULE_ID]
    finally:
        algo.stop()
    _evaluates(plain, tmp_path / "saved", tmp_path / "policy.onnx" if exports else None)
    restored = configs.build(config)
    try:
        restore(restored, tmp_path / "saved")
        again = learner_reports(restored)[0][DEFAULT_MODULE_ID]
        assert again["digest"] == saved["digest"]
        assert again["sparsity"] == saved["sparsity"] > 0
        assert not again["violations"]
    finally:
        restored.stop()


def _evaluates(config: Any, checkpoint: Path, exported: Path | None) -> None:
    """Assert that a policy without a Learner takes the checkpoint's weights, and can be a file."""
    evaluator = Evaluator(config)
    try:
        evaluator.load_checkpoint(checkpoint)
        saved = SavedPolicy(checkpoint).weights
        for name, weight in evaluator.module.named_parameters():
            assert np.array_equal(weight.detach().numpy(), saved[name]), name
        if exported is not None:
            _export(deployable(evaluator), exported)
    finally:
        evaluator.close()


def _export(policy: DeployablePolicy, path: Path) -> None:
    """Write a policy without its dead units; ONNX Runtime must act as RLlib's module does."""
    zeros = [port.zeros(2) for port in policy.interface.inputs]
    recorded = random_inputs(policy.interface, zeros, 32, seed=0)
    told = export_policy(policy, path, "onnx", recorded=recorded, about={})
    assert told["equivalence"]["random"]["holds"]
    assert told["equivalence"]["recorded"]["observations"] == 32


def _wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def _pruning(granularity: str, config: Any) -> dict[str, Any]:
    if ":" not in granularity:
        return {"granularity": granularity, "pooling": "l2"}
    # First layers see three numbers or one colour, which no M divides.
    m, module = int(granularity.partition(":")[2]), build_module(config)
    odd = [
        name.rpartition(".")[0]
        for name, weight in module.named_parameters()
        if weight.dim() > 1 and weight.shape[1] % m
    ]
    return {"granularity": granularity, "sparsity": None, "protect": odd}


def _check_sparsity(report: dict[str, Any], granularity: str) -> None:
    if ":" in granularity:
        free = [layer for layer in report["layers"] if not layer.protected and not layer.exempt]
        assert free
        assert all(layer.sparsity == 0.5 for layer in free)
        return
    assert report["sparsity"] == pytest.approx(0.8, abs=0.05)
    heads = [layer for layer in report["layers"] if layer.exempt]
    assert all(layer.sparsity == 0 for layer in heads)
    # A unit of an output head is an action or a value: none can go.
    assert bool(heads) is (granularity == "neuron")


class _Watch:
    """Reads a Learner's weights all the time, as asynchronous readers may, and keeps what is wrong.

    Once the one-shot pruning is over no mask changes any more: from then on each pruned weight must
    be zero at every instant, between an optimizer's kernels too, so no lock is taken.
    """

    def __init__(self, learner: Any) -> None:
        self._learner = learner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen = 0
        self._wrong: list[str] = []

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        assert self._wrong == []

    def _look(self) -> None:
        # Looking without a pause would take the interpreter from what is watched.
        while not self._stop.wait(0.01):
            report = self._learner.pruning_report()[DEFAULT_MODULE_ID]
            if not report["finished"]:
                continue
            masks = self._learner.masks()[DEFAULT_MODULE_ID]
            weights = dict(self._learner.module[DEFAULT_MODULE_ID].unwrapped().named_parameters())
            for _ in range(5):
                for name, mask in masks.items():
                    if torch.any(weights[name].detach()[~mask] != 0):
                        self._wrong.append(name)
                self.seen += 1


def test_the_watch_sees_a_pruned_weight_that_moves() -> None:
    algo = configs.build(prune(configs.ppo(), configs.pruning()))
    try:
        algo.train()
        learner = configs.learner_of(algo)
        name, mask = next(iter(learner.masks()[DEFAULT_MODULE_ID].items()))
        weights = dict(learner.module[DEFAULT_MODULE_ID].named_parameters())[name]
        watch = _Watch(learner)
        watch.__enter__()
        with torch.no_grad():
            weights[~mask] = 1e-3
        _wait_for(lambda: watch.seen > 1)
        with pytest.raises(AssertionError, match=name):
            watch.__exit__()
    finally:
        algo.stop()
