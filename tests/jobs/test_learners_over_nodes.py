"""Two Learners and two EnvRunners over three nodes, which lose one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rayprune.tracking.record import read_rows
from tests.jobs import two_learners
from tests.jobs.nodes import Nodes, answer_of, nodes, wait_for
from tests.rllib import experiments

pytestmark = [
    pytest.mark.slow,  # three Ray nodes for minutes
    pytest.mark.timeout(1200),
]

PER_ITERATION = 400
STEPS = 8000
TRAIN: dict[str, Any] = {
    **experiments.PPO,
    "rllib": {
        **experiments.PPO["rllib"],
        "learners": {"num_learners": 2, "custom_resources_per_learner": {"learner": 1}},
        "env_runners": {
            "num_env_runners": 2,
            "custom_resources_per_env_runner": {"runner": 1},
        },
    },
    "stop": {"env_steps": STEPS},
    "evaluation": {"every": 800, "episodes": 3},
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A Learner on the head, a Learner and an EnvRunner on the second, an EnvRunner on the third.

    The four of them take all CPUs: a job's driver takes none. Each test leaves the three running.
    """
    with nodes(tmp_path_factory.mktemp("nodes")) as made:
        made.start(0, cpus=1, learner=1)
        made.start(1, cpus=2, learner=1, runner=1)
        made.start(2, cpus=1, runner=1)
        made.wait(3)
        yield made


def lines(path: Path) -> list[dict[str, Any]]:
    return read_rows(path) if path.exists() else []


def check_rows(rows: list[dict[str, Any]]) -> None:
    """Every iteration and every env step is there, once."""
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    steps = [row["env_steps"] for row in rows]
    assert all(
        PER_ITERATION <= now - before < 1.2 * PER_ITERATION for before, now in pairwise([0, *steps])
    )


def test_learners_hold_the_same_masks_after_an_env_runners_node_is_lost(
    three: Nodes, tmp_path: Path
) -> None:
    job = three.submit_script(Path(two_learners.__file__), tmp_path)
    seen: Callable[[], list[dict[str, Any]]] = lambda: lines(tmp_path / "seen.jsonl")  # noqa: E731
    # In the middle of the ramp, so that masks change with one EnvRunner gone.
    wait_for(job, lambda: len(seen()) >= 4)
    lost = len(seen())
    three.kill(2)
    wait_for(job, lambda: len(seen()) >= lost + 5)
    three.wait(2)
    three.start(2, cpus=1, runner=1)
    wait_for(job, lambda: len(seen()[-1]["env_runners"]) == 2)
    (tmp_path / "enough").touch()
    told = "".join(job.communicate(timeout=300))
    assert job.returncode == 0, told[-4000:]

    rows = seen()
    check_rows(rows)
    assert rows[-1]["env_steps"] >= two_learners.STEPS
    assert rows[-1]["sparsity"] == pytest.approx(two_learners.SPARSITY, abs=0.01)
    check_placement(rows, lost)
    alone = [row for row in rows if len(row["env_runners"]) == 1]
    assert len({row["learners"][0]["masks"] for row in alone}) >= 2
    for row in rows:
        first, second = row["learners"]
        assert first["masks"] == second["masks"], row["iteration"]
        assert first["weights"] == second["weights"], row["iteration"]
        assert first["not_zero"] == second["not_zero"] == 0, row["iteration"]
    assert rows[-1]["learners"][0]["pruned"] > rows[lost]["learners"][0]["pruned"] > 0


def check_placement(rows: list[dict[str, Any]], lost: int) -> None:
    """Learners sit on two nodes throughout; one EnvRunner on a third, which is then another."""
    learners = {tuple(learner["node"] for learner in row["learners"]) for row in rows}
    assert len(learners) == 1
    of_learners = set(learners.pop())
    assert len(of_learners) == 2
    alone = [
        {node for _, node in row["env_runners"] if node not in of_learners}
        for row in (rows[lost - 1], rows[-1])
    ]
    assert [len(found) for found in alone] == [1, 1]
    assert alone[0] != alone[1]
    assert any(len(row["env_runners"]) == 1 for row in rows[lost:])


def test_a_run_outlives_an_env_runners_node_and_resumes_after_a_learners(
    three: Nodes, tmp_path: Path
) -> None:
    directory, out = tmp_path / "work", tmp_path / "out"
    directory.mkdir()
    (directory / "c.yaml").write_text(json.dumps(TRAIN))
    rows: Callable[[], list[dict[str, Any]]] = lambda: lines(out / "results.jsonl")  # noqa: E731
    job = three.submit(directory, "c.yaml", "--out", out)
    wait_for(job, lambda: len(rows()) >= 4)
    lost = len(rows())
    three.kill(2)
    wait_for(job, lambda: len(rows()) >= lost + 4)
    three.kill(1)
    stdout, stderr = job.communicate(timeout=300)
    assert job.returncode == 1, stderr[-4000:]
    assert json.loads(stdout)["status"] == "FAILED"
    assert "--resume" in stderr

    three.wait(1)
    three.start(1, cpus=2, learner=1, runner=1)
    three.start(2, cpus=1, runner=1)
    three.wait(3)
    answer_of(three.submit(directory, "c.yaml", "--out", out, "--resume"))
    check_rows(rows())
    assert rows()[-1]["env_steps"] >= STEPS
    summary = json.loads((out / "summary.json").read_text())
    assert summary["sparsity"]["prunable"] == pytest.approx(TRAIN["pruning"]["sparsity"], abs=0.01)
