"""Criteria that need data get it from the Learner, whatever the algorithm and the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.errors import ConfigError, InputError
from rayprune.rllib import prune
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.learner.extensions.distillation import Distillation
from rayprune.rllib.learner.extensions.evidence import MinibatchEvidence
from tests.doubles.envs import Images
from tests.rllib import configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

DATA_CRITERIA = ("snip", "taylor", "fisher", "movement", "wanda", "wanda_rows")
UNIT_CRITERIA = ("information_gain", "shapley")
CNN = {"conv_filters": [[4, 4, 2], [8, 4, 2]], "head_fcnet_hiddens": [16], "fcnet_hiddens": []}
SMALL = {"observations": 256, "permutations": 2}


def pruning(criterion: str, **changes: Any) -> Any:
    granularity = "neuron" if criterion in UNIT_CRITERIA else "weight"
    evidence = {**SMALL, **changes.pop("evidence", {})}
    return configs.pruning(
        criterion=criterion,
        evidence=evidence,
        **{"granularity": granularity, "sparsity": 0.5, **changes},
    )


def trained(config: Any, iterations: int = 3) -> dict[str, Any]:
    """Train; the callback raises on a broken promise. Returns the report and the masks."""
    algo = configs.build(config)
    try:
        for _ in range(iterations):
            algo.train()
        learner = configs.learner_of(algo)
        report = learner.pruning_report()[DEFAULT_MODULE_ID]
        return {
            **report,
            "masks": learner.masks()[DEFAULT_MODULE_ID],
            "notes": learner.diagnostics(),
        }
    finally:
        algo.stop()


@pytest.mark.parametrize("criterion", [*DATA_CRITERIA, *UNIT_CRITERIA])
def test_ppo_trains_with_every_criterion_and_its_zeros_are_exact(criterion: str) -> None:
    report = trained(prune(configs.ppo(), pruning(criterion)))
    assert report["finished"]
    assert not report["violations"]
    assert report["sparsity"] == pytest.approx(0.5, abs=0.1)


NETS = {
    "lstm": lambda: configs.ppo(use_lstm=True, lstm_cell_size=8, max_seq_len=8),
    "cnn": lambda: configs.ppo(Images, **CNN),
    "shared": lambda: configs.ppo(vf_share_layers=True),
    "continuous": lambda: configs.ppo("Pendulum-v1"),
    "dqn": lambda: configs.dqn(dueling=True, double_q=True),
    "sac": lambda: configs.sac(),
}


MATRIX = {(n, c) for n in NETS for c in ("fisher", "taylor", "wanda", "information_gain")}
COVER = {
    ("lstm", "fisher"),
    ("cnn", "taylor"),
    ("shared", "wanda"),
    ("continuous", "information_gain"),
    ("dqn", "information_gain"),
    ("sac", "fisher"),
}


def pairs() -> list[Any]:
    rest = [pytest.param(*pair, marks=pytest.mark.slow) for pair in sorted(MATRIX - COVER)]
    return [*sorted(COVER), *rest]


@pytest.mark.parametrize(("net", "criterion"), pairs())
def test_every_network_and_algorithm_gives_evidence(net: str, criterion: str) -> None:
    report = trained(prune(NETS[net](), pruning(criterion)), iterations=2)
    assert report["finished"]
    assert not report["violations"]
    assert report["sparsity"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "net", ["lstm", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cnn", "sac"))]
)
def test_shapley_values_of_any_network_come_with_their_convergence(net: str) -> None:
    config = pruning("shapley", evidence={"observations": 64, "minibatches": 1})
    report = trained(prune(NETS[net](), config), iterations=1)
    notes = report["notes"][DEFAULT_MODULE_ID]["convergence"]
    assert notes
    assert all(-1 <= note["agreement"] <= 1 for note in notes.values())


@pytest.mark.parametrize(
    "objective", ["log_prob", *(pytest.param(n, marks=pytest.mark.slow) for n in ("loss", "auto"))]
)
def test_objectives_choose_different_masks(objective: str) -> None:
    masks = {}
    for name in ("value", objective):
        # One of the heads isn't reached by each of them.
        config = pruning("taylor", evidence={"objective": name}, protect=["vf*", "pi*"])
        masks[name] = trained(prune(configs.ppo(vf_share_layers=True), config), 1)["masks"]
    shared = [name for name in masks["value"] if name.startswith("encoder")]
    assert shared
    assert any(not torch.equal(masks["value"][n], masks[objective][n]) for n in shared)


@pytest.mark.parametrize(
    "criterion",
    ["fisher", *(pytest.param(n, marks=pytest.mark.slow) for n in ("taylor", "information_gain"))],
)
def test_two_learners_score_alike_to_the_bit_and_have_one_teacher(criterion: str) -> None:
    what = pruning(criterion, distillation={"weight": 2.0})
    algo = configs.build(prune(configs.ppo().learners(num_learners=2), what))
    try:
        algo.train()
        first, second = learner_reports(algo)
        assert first[DEFAULT_MODULE_ID]["digest"] == second[DEFAULT_MODULE_ID]["digest"]
        assert first[DEFAULT_MODULE_ID]["sparsity"] == pytest.approx(0.5, abs=0.1)
        teachers = foreach_learner(algo, _teacher)
        assert teachers[0] == teachers[1] > 0
    finally:
        algo.stop()


def _teacher(learner: Any) -> float:
    teacher = learner.extension(Distillation)._teachers[DEFAULT_MODULE_ID]
    return sum(float(p.double().abs().sum()) for p in teacher.parameters())


@pytest.mark.parametrize("criterion", ["movement", "snip"])
def test_a_restored_run_goes_on_to_the_same_masks(criterion: str, tmp_path: Path) -> None:
    late = {"kind": "one_shot", "begin": 600, "every": 1}
    config = prune(configs.ppo(), pruning(criterion, evidence={"objective": "loss"}, schedule=late))
    algo = configs.build(config)
    algo.train()
    algo.save_to_path(tmp_path)
    held = configs.learner_of(algo).pruners[DEFAULT_MODULE_ID].accumulated
    algo.stop()
    other = configs.build(config)
    other.restore_from_path(str(tmp_path))
    ours = configs.learner_of(other).pruners[DEFAULT_MODULE_ID].accumulated
    assert ours.steps == held.steps
    for one, its in ((held.movement(), ours.movement()), (held.gradients(), ours.gradients())):
        assert set(one) == set(its)
        assert all(torch.equal(total, its[name]) for name, total in one.items())
    assert held.movement() or held.gradients()
    other.stop()


def test_nothing_is_kept_for_a_criterion_that_reads_weights_only() -> None:
    algo = configs.build(prune(configs.ppo(), configs.pruning()))
    try:
        algo.train()
        learner = configs.learner_of(algo)
        assert not learner.extension(MinibatchEvidence)._held
        assert not learner.pruners[DEFAULT_MODULE_ID].accumulated.gradients()
    finally:
        algo.stop()


def test_observations_bound_what_is_kept() -> None:
    algo = configs.build(
        prune(configs.ppo(), pruning("fisher", evidence={"observations": 130, "minibatches": 9}))
    )
    try:
        algo.train()
        held = configs.learner_of(algo).extension(MinibatchEvidence)._held[DEFAULT_MODULE_ID]
        assert sum(len(batch["obs"]) for batch in held) <= 130
        assert len(held) == 2
    finally:
        algo.stop()


def test_training_draws_the_same_random_numbers_with_and_without_evidence() -> None:
    states = []
    for criterion in ("l1", "fisher"):
        # By steps: an iteration that ends by the clock draws as often as the machine is idle.
        plain = configs.sac().reporting(min_time_s_per_iteration=0)
        algo = configs.build(prune(plain, pruning(criterion, sparsity=0.0)))
        algo.train()
        states.append(torch.get_rng_state())
        algo.stop()
    assert torch.equal(*states)


def test_pruning_without_any_training_says_what_to_do() -> None:
    algo = configs.build(prune(configs.ppo(), pruning("fisher")))
    try:
        with pytest.raises(InputError, match=r"needs observations from training.*rayprune train"):
            configs.learner_of(algo).prune_now()
    finally:
        algo.stop()


def test_shapley_of_single_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="Set it to 'neuron'"):
        pruning("shapley", granularity="weight")
