"""Certifying checkpoints: verdict, files, ranges, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayprune.deploy.export.export import ExportRequest
from rayprune.errors import CheckpointError, ConfigError, InputError
from rayprune.policies.foreign_policy import ForeignOptions
from rayprune.rllib.checkpoints.saved_policy import MODULE, SavedPolicy
from rayprune.rllib.commands.bench import BenchOptions, bench
from rayprune.rllib.commands.certify import PILOT_PAIRS, CertifyOptions, certify
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.evaluation.return_range import ReturnRange, known_range
from rayprune.tracking.record import read_rows
from tests.rllib import configs

pytestmark = pytest.mark.usefixtures("ray_session")

# An untrained policy stays far below 200 steps.
SURE = CertifyOptions(margin=150, tail_margin=150, absolute=True, return_range=(0.0, 200.0))


class Reporter:
    """Notes the rounds; stops as Ctrl-C would after so many."""

    def __init__(self, most: int = 1000) -> None:
        self.rounds: list[int] = []
        self.most = most

    def start(self, most: int) -> None:
        self.announced = most

    def round(self, pairs: int, result: dict[str, Any]) -> None:
        self.rounds.append(pairs)
        if len(self.rounds) == self.most:
            raise KeyboardInterrupt


Make = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make what plain RLlib writes."""

    def make(env: Any = "CartPole-v1", seed: int = 0, **model: Any) -> Path:
        path = tmp_path_factory.mktemp("plain") / "checkpoint"
        algorithm = configs.ppo(env, **model).debugging(seed=seed).build_algo()
        algorithm.save_to_path(str(path))
        algorithm.stop()
        return path

    return make


@pytest.fixture(scope="module")
def policy(checkpoint: Make) -> Path:
    return checkpoint()


def run(
    dense: Path, pruned: Path, out: Path, options: CertifyOptions = SURE, most: int = 1000
) -> dict[str, Any]:
    return certify(dense, pruned, options, out, Reporter(most))


def twin(checkpoint: Path, folder: Path, change: float = 1.5, part: str = "vf.") -> Path:
    """Copy a checkpoint, one part of it changed; with another value net it acts the same."""
    place = folder / f"twin-of-{checkpoint.parent.name}"
    shutil.copytree(checkpoint, place)
    (path,) = (place / MODULE).glob("module_state.pkl")
    state = pickle.loads(path.read_bytes())
    for name in state:
        if name.startswith(part) and name.endswith("weight"):
            state[name] = state[name] * change
    path.write_bytes(pickle.dumps(state))
    return place


def test_a_policy_is_certified_against_its_twin_and_the_files_say_so(
    policy: Path, tmp_path: Path
) -> None:
    result = run(policy, twin(policy, tmp_path), tmp_path / "out")
    assert (result["verdict"], result["certified"], result["exit_code"]) == (
        "non-inferior",
        True,
        0,
    )
    assert json.loads((tmp_path / "out" / "certificate.json").read_text()) == json.loads(
        json.dumps(result)
    )
    rows = read_rows(tmp_path / "out" / "pairs.jsonl")
    assert len(rows) == result["pairs"]
    assert all(row["dense"] == row["pruned"] for row in rows)
    assert [row["seed"] for row in rows] == list(range(20_000, 20_000 + len(rows)))
    assert result["divergence"] == {"diverged": 0.0, "first": None, "median": None}
    assert result["closeness"]["agreement"] == 1.0
    page = (tmp_path / "out" / "certificate.html").read_text()
    assert "</html>" in page
    assert str(tmp_path) not in (tmp_path / "out" / "certificate.json").read_text() + page
    assert "same weights" not in page
    dense, pruned = (result["policies"][part] for part in ("dense", "pruned"))
    assert dense["sha256"] == SavedPolicy(policy).sha256() != pruned["sha256"]
    for held in (dense, pruned):
        assert held["sha256"] in page
        assert held["version"].startswith("ray 2.")
        assert held["date"].endswith("+00:00")


def test_one_policy_given_twice_is_refused_by_its_hash(policy: Path, tmp_path: Path) -> None:
    copy = twin(policy, tmp_path, change=1.0)
    file = tmp_path / "policy.pt2"
    told = export_checkpoint(policy, ExportRequest(file, "torch", episodes=1))
    shutil.copy(file, tmp_path / "again.pt2")
    export_checkpoint(policy, ExportRequest(tmp_path / "anew.pt2", "torch", episodes=2))
    files = [(file, tmp_path / name) for name in ("again.pt2", "anew.pt2")]
    for one, other in ((policy, policy), (policy, copy), *files):
        with pytest.raises(InputError, match="are the same policy"):
            run(one, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # What a file makes of a checkpoint may be asked.
    result = run(policy, file, tmp_path / "out")
    assert result["reason"].endswith("what exporting changed, and nothing about pruning.")
    held = result["policies"]["pruned"]
    assert held["sha256"] == told["sha256"]
    assert held["weights_sha256"] == SavedPolicy(policy).sha256()


def test_a_pruned_policy_that_is_denser_than_the_dense_one_is_refused(
    policy: Path, tmp_path: Path
) -> None:
    sparse = twin(policy, tmp_path, change=0.0, part="pi.")
    with pytest.raises(InputError, match=r"is denser than DENSE .*; give the denser one first\.$"):
        run(sparse, policy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_means_are_those_of_both_policies_alone(
    checkpoint: Make, policy: Path, tmp_path: Path
) -> None:
    other = checkpoint(seed=5)
    result = run(policy, other, tmp_path / "out")
    for name, place in (("dense", policy), ("pruned", other)):
        alone = Evaluator(configs.ppo())
        alone.load_checkpoint(place)
        returns = alone.returns(20_000, result["pairs"])
        alone.close()
        assert result["mean"][name] == pytest.approx(np.mean(returns))


def test_what_is_too_little_to_decide_ends_undecided_with_exit_code_1(
    policy: Path, tmp_path: Path
) -> None:
    options = CertifyOptions(margin=0.05, episodes=25)
    result = run(policy, twin(policy, tmp_path), tmp_path / "out", options)
    assert (result["verdict"], result["exit_code"], result["pairs"]) == ("undecided", 1, 25)
    assert result["range"] == {"low": 0.0, "high": 500.0, "source": "environment", "outside": 0}
    assert "--episodes" in result["reason"]


def test_ctrl_c_leaves_all_pairs_on_disk_and_says_where(policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match=r"after 40 pairs.*certificate\.json"):
        run(policy, twin(policy, tmp_path), out, CertifyOptions(margin=0.05), most=2)
    held = json.loads((out / "certificate.json").read_text())
    assert (held["verdict"], held["pairs"]) == ("undecided", 40)
    assert len(read_rows(out / "pairs.jsonl")) == 40


def test_a_range_that_a_return_breaks_is_refused_with_the_seed(
    policy: Path, tmp_path: Path
) -> None:
    options = CertifyOptions(margin=0.05, return_range=(0.0, 3.0))
    with pytest.raises(InputError, match=r"return on seed 200\d\d is .*--return-range"):
        run(policy, twin(policy, tmp_path), tmp_path / "out", options)


@pytest.mark.parametrize("margins", [{"margin": 600, "tail_margin": 10}, {"margin": 300}])
def test_a_margin_as_wide_as_all_returns_is_refused(
    margins: dict[str, Any], policy: Path, tmp_path: Path
) -> None:
    options = CertifyOptions(absolute=True, **margins)
    with pytest.raises(InputError, match=r"A margin of 600 .* any policy would be certified"):
        run(policy, twin(policy, tmp_path), tmp_path / "out", options)


@pytest.mark.slow  # Pendulum's episodes are long
def test_where_no_range_is_known_a_pilot_on_other_seeds_suggests_one(
    checkpoint: Make, tmp_path: Path
) -> None:
    place = checkpoint("Pendulum-v1")
    assert known_range("Pendulum-v1", {"g": 9.81}) is None
    options = CertifyOptions(margin=0.9, tail_margin=0.9, episodes=2)
    known = run(place, twin(place, tmp_path), tmp_path / "known", options)
    assert known["range"]["source"] == "environment"
    rllib_config = configs.ppo("Pendulum-v1").environment(env_config={"g": 9.81})
    algorithm = rllib_config.build_algo()
    algorithm.save_to_path(str(tmp_path / "gravity"))
    algorithm.stop()
    result = run(
        tmp_path / "gravity", twin(tmp_path / "gravity", tmp_path), tmp_path / "pilot", options
    )
    alone = Evaluator(rllib_config)
    alone.load_checkpoint(tmp_path / "gravity")
    returns = alone.returns(20_002, PILOT_PAIRS)
    alone.close()
    spread = max(max(returns) - min(returns), abs(min(returns)))
    assert result["range"]["source"] == "pilot"
    assert result["range"]["low"] == pytest.approx(min(returns) - spread)
    assert result["range"]["high"] >= max(returns)


def test_returns_outside_of_a_pilots_range_count_as_its_end_and_are_noted() -> None:
    suggested = ReturnRange(low=0.0, high=10.0, source="pilot")
    assert suggested.take(-3.0, "pruned", 1) == 0.0
    assert suggested.flatters(dense=5.0, pruned=-3.0)
    assert suggested.flatters(dense=11.0, pruned=5.0)
    assert not suggested.flatters(dense=-1.0, pruned=12.0)
    with pytest.raises(InputError, match="no number"):
        suggested.take(float("nan"), "pruned", 1)


def test_another_network_is_refused_and_nothing_is_written(
    checkpoint: Make, policy: Path, tmp_path: Path
) -> None:
    pendulum = checkpoint("Pendulum-v1")
    with pytest.raises(CheckpointError):
        run(pendulum, policy, tmp_path / "out")
    export_checkpoint(pendulum, ExportRequest(tmp_path / "pendulum.pt2", "torch", episodes=1))
    with pytest.raises(CheckpointError, match="only policies for the same environment"):
        run(tmp_path / "pendulum.pt2", policy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_policies_of_other_widths_can_be_compared(
    checkpoint: Make, policy: Path, tmp_path: Path
) -> None:
    result = run(policy, checkpoint(fcnet_hiddens=[8, 4]), tmp_path / "out")
    counts = result["parameters"]
    assert counts["pruned"]["total"] < counts["dense"]["total"] / 4


@pytest.mark.parametrize("lstm", [False, True], ids=["mlp", "lstm"])
def test_an_exported_file_plays_as_its_checkpoint_does(
    checkpoint: Make, policy: Path, tmp_path: Path, lstm: bool
) -> None:
    model = {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 10}
    place, file = checkpoint(**model) if lstm else policy, tmp_path / "policy.pt2"
    export_checkpoint(place, ExportRequest(file, "torch", episodes=1))
    result = run(place, file, tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "pairs.jsonl")
    assert all(row["dense"] == row["pruned"] for row in rows)
    assert len({row["dense"] for row in rows}) > 1
    assert result["divergence"]["diverged"] == 0.0
    assert result["certified"]


def test_two_exported_files_play_in_the_environment_that_they_name(
    policy: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "policy.pt2", tmp_path / "policy.onnx"]
    for file, kind in zip(files, ("torch", "onnx"), strict=True):
        export_checkpoint(policy, ExportRequest(file, kind, episodes=1))
    result = run(files[0], files[1], tmp_path / "out")
    assert (result["env"], result["certified"]) == ("CartPole-v1", True)


def test_a_file_that_draws_its_actions_is_refused(policy: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.pt2"
    export_checkpoint(policy, ExportRequest(file, "torch", episodes=1, sample=True))
    with pytest.raises(InputError, match="without --sample"):
        run(policy, file, tmp_path / "out")


def test_all_faulty_options_are_told_at_once() -> None:
    options = CertifyOptions(
        margin=5, tail_margin=-1, confidence=95, tail=0.9, return_range=(5.0, 0.0)
    )
    with pytest.raises(ConfigError) as told:
        certify(Path("a"), Path("b"), options, Path("c"), Reporter())
    text = str(told.value)
    for part in ("--margin", "--tail-margin", "--confidence", "give 0.95", "--tail`", "--return"):
        assert part in text
    assert "Add --absolute" in text


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"margin": 0.6}, "twice `--margin` .* here 1.2"),
        ({"margin": float("inf"), "absolute": True}, "above 0, and finite, but is inf.$"),
        ({"margin": 0.1, "return_range": (0.0, float("inf"))}, "largest return, finite"),
    ],
)
def test_questions_that_nothing_can_answer_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        certify(Path("a"), Path("b"), CertifyOptions(**options), Path("c"), Reporter())


NETS = """
import torch
from torch import nn

def dense():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

def pruned():
    net = dense()
    net[0].weight.data[4:] = 0
    return net
"""


def test_policies_from_elsewhere_are_certified_and_timed_as_checkpoints_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    dense, pruned = (Path(f"{tmp_path / 'nets.py'}:{name}") for name in ("dense", "pruned"))
    source = ForeignOptions(env="CartPole-v1")
    result = certify(dense, pruned, SURE, tmp_path / "out", Reporter(), source)
    assert result["certified"]
    assert result["env"] == "CartPole-v1"
    assert result["parameters"]["pruned"]["nonzero"] < result["parameters"]["dense"]["nonzero"]
    with pytest.raises(InputError, match="the spaces aren't known: give `--env`"):
        certify(dense, pruned, SURE, tmp_path / "other", Reporter())
    quick = BenchOptions(batches=(1,), threads=(1,), rounds=5, formats=("torch",), memory=False)
    timed = bench([dense, pruned], quick, Silent(), source)
    arms = {(row["policy"], row["runtime"]) for row in timed["rows"]}
    assert {("dense", "eager"), ("dense", "torch")} <= arms


class Silent:
    """Hears how a bench goes."""

    def stage(self, text: str) -> None:
        pass

    def row(self, text: str) -> None:
        pass
