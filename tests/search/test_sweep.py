"""Real sweeps of real, tiny PPO trials: killed, failed, resumed, and what they leave behind."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rayprune.errors import ResourceError
from rayprune.search.reporter import NullSweepReporter
from rayprune.search.sweep import run_sweep
from rayprune.search.sweep_spec import load_sweep
from rayprune.tracking.record import read_rows
from rayprune.tracking.working_time import seconds_before
from tests.command_line import ENVIRONMENT, rayprune, rayprune_here, start
from tests.doubles.killing_env import KILLING
from tests.rllib import experiments

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
SPACE = {
    "pruning.sparsity": {"uniform": [0.3, 0.95]},
    "pruning.criterion": {"choice": ["l1", "random"]},
    "rllib.training.lr": {"loguniform": [1e-4, 1e-3]},
}
INTERVAL = 400
STEPS = 800
EXPERIMENT: dict[str, Any] = {
    **experiments.PPO,
    "stop": {"env_steps": STEPS},
    # Two actors train the four in turns: starting one costs more than all that it does here.
    "search": {
        "population": 4,
        "space": SPACE,
        "interval": INTERVAL,
        "synch": True,
        "resources": {"cpu": 2},
    },
}


def write(path: Path, search: dict[str, Any] | None = None, **changes: Any) -> Path:
    merged = {**EXPERIMENT["search"], **(search or {})}
    path.write_text(json.dumps({**EXPERIMENT, **changes, "search": merged}))  # JSON is YAML too
    return path


def search(config: Path, out: Path) -> dict[str, Any]:
    """Run a sweep in this process, on the session's Ray: seconds faster than a process."""
    reporter = NullSweepReporter()
    return run_sweep(load_sweep(config), out, resume=False, address=None, reporter=reporter)


def rows_of(sweep: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.parent.name: read_rows(path) for path in sweep.glob("trials/*/results.jsonl")}


def wait_for_rows(process: subprocess.Popen[str], sweep: Path, least: int) -> None:
    deadline = time.monotonic() + 240
    while sum(map(len, rows_of(sweep).values())) < least:
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_rows(sweep: Path, population: int = 4, end: int = STEPS) -> None:
    """Every env step of every trial is in the record, once."""
    found = rows_of(sweep)
    assert len(found) == population
    for trial, rows in found.items():
        steps = [row["env_steps"] for row in rows]
        assert steps == sorted(set(steps)), trial
        assert steps[-1] >= end
        # A synchronous population has one clock, so that no exploit leaves a gap either.
        assert all(now - before < 220 for before, now in pairwise([0, *steps])), trial
        assert sum("validation" in row for row in rows) == end // INTERVAL


@pytest.fixture(scope="module")
def sweep(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sweep")
    config = write(place / "c.yaml", tracking={"wandb": "offline", "tensorboard": True})
    out, err = rayprune_here("sweep", config, "--out", place / "out", "--json")
    (place / "stdout").write_text(out)
    (place / "stderr").write_text(err)
    return place / "out"


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_sweep_ends_with_a_front_and_a_record_of_everything(sweep: Path) -> None:
    check_rows(sweep)
    front, outcome = load(sweep / "front.json"), load(sweep / "sweep.json")
    assert load(sweep.parent / "stdout") == {**outcome, "front": front}
    assert [trial["status"] for trial in outcome["trials"]] == ["done"] * 4
    assert front["objectives"] == ["return", "sparsity"]
    points = front["points"]
    for one in points:
        checkpoint = sweep / one["checkpoint"]
        assert checkpoint.is_dir()
        assert one["config"].keys() == SPACE.keys()
        # What is in the front was measured, and is in the trial's record.
        rows = rows_of(sweep)[one["trial"]]
        held = [
            row for row in rows if row.get("validation") and row["env_steps"] == one["env_steps"]
        ]
        assert [row["validation"]["iqm"] for row in held] == [one["return"]]
        assert held[0]["sparsity"] == one["sparsity"]
        assert not any(
            other["return"] >= one["return"] and other["sparsity"] > one["sparsity"]
            for other in points
        )


def test_a_point_of_the_front_is_what_evaluate_finds_in_its_checkpoint(sweep: Path) -> None:
    point = load(sweep / "front.json")["points"][-1]
    out, _ = rayprune_here("evaluate", sweep / point["checkpoint"], "--json")
    returns = json.loads(out)["returns"]
    assert returns["validation"]["iqm"] == point["return"]
    assert returns["test"] == point["test"]


def test_lineage_and_records_tell_the_same_exploits(sweep: Path) -> None:
    events = read_rows(sweep / "lineage.jsonl")
    assert events
    marked = [
        {"trial": trial, **row["exploit"]}
        for trial, rows in rows_of(sweep).items()
        for row in rows
        if "exploit" in row
    ]
    told = [{key: event[key] for key in marked[0]} for event in events]
    assert sorted(map(json.dumps, marked)) == sorted(map(json.dumps, told))
    for trial, rows in rows_of(sweep).items():
        values = rows[0]["values"]
        for row in rows:
            for key, (old, new) in row.get("exploit", {}).get("changed", {}).items():
                assert values[key] == old, trial
                assert row["values"][key] == new
            values = row["values"]
            assert 0.3 <= values["pruning.sparsity"] <= 0.95
            assert 1e-4 <= values["rllib.training.lr"] <= 1e-3
            # What the Learner used is what the record says, from the first update on.
            used = row["learner"]["default_optimizer_learning_rate"]
            assert used == pytest.approx(values["rllib.training.lr"])


def test_each_trial_is_followed_in_wandb_and_tensorboard(sweep: Path) -> None:
    from tests.wandb_files import history, wandb_files

    for trial, rows in rows_of(sweep).items():
        home = sweep / "trials" / trial
        logged = [row for file in wandb_files(home) for row in history(file)]
        steps = [row["env_steps"] for row in logged if "iteration" in row]
        assert steps == [row["env_steps"] for row in rows]
        assert list((home / "tensorboard").glob("events.out.tfevents.*"))
        assert (home / "summary.json").is_file()
    assert list((sweep / "wandb").glob("offline-run-*"))
    assert "<html" in (sweep / "report.html").read_text()[:500].lower()


def test_a_finished_sweep_is_not_searched_again(sweep: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in sweep.glob("trials/*/results.jsonl")}
    front, first = load(sweep / "front.json"), load(sweep / "sweep.json")["wall_time_s"]
    rayprune_here("sweep", sweep.parent / "c.yaml", "--out", sweep, "--resume")
    assert load(sweep / "sweep.json")["wall_time_s"] > first
    assert {path: path.read_bytes() for path in before} == before
    assert load(sweep / "front.json") == front


def test_another_sweep_is_not_resumed(sweep: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.yaml", search={"population": 5})
    _, err = rayprune_here("sweep", other, "--out", sweep, "--resume", code=2)
    assert "`search` differs" in err


@pytest.mark.slow  # four drivers start Ray and their trials: minutes; test_journal.py has the cases
def test_a_driver_that_is_killed_three_times_loses_and_repeats_nothing(tmp_path: Path) -> None:
    config, out = write(tmp_path / "c.yaml"), tmp_path / "out"
    trials: set[str] = set()
    worked = 0.0
    for least in (3, 8, 14):
        resume = ["--resume"] if trials else []
        process = start("sweep", config, "--out", out, *resume)
        wait_for_rows(process, out, least)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = set(rows_of(out))
        assert trials <= found
        trials = found
        now = seconds_before(out / "processes.jsonl")
        assert now > worked + 1
        worked = now
    rayprune("sweep", config, "--out", out, "--resume")
    assert load(out / "sweep.json")["wall_time_s"] > worked
    check_rows(out)
    assert trials <= set(rows_of(out))
    events = [(e["trial"], e["donor"], e["env_steps"]) for e in read_rows(out / "lineage.jsonl")]
    assert len(events) == len(set(events))


@pytest.mark.slow  # three drivers start Ray and their trials: minutes
@pytest.mark.parametrize("method", ["nsga2", "mo_asha"])
def test_a_driver_that_is_killed_twice_goes_on_with_its_study_and_its_rungs(
    method: str, tmp_path: Path
) -> None:
    lean = {"return": "max", "sparsity": "max", "subject_to": {"sparsity_at_least": 0.4}}
    chosen = {"method": method, "population": 6, "objectives": lean}
    config, out = write(tmp_path / "c.yaml", chosen), tmp_path / "out"
    for least in (3, 9):
        resume = ["--resume"] if least > 3 else []
        process = start("sweep", config, "--out", out, *resume)
        wait_for_rows(process, out, least)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    rayprune("sweep", config, "--out", out, "--resume")
    outcome, found = load(out / "sweep.json"), rows_of(out)
    assert [trial["status"] for trial in outcome["trials"]] == ["done"] * 6
    for trial, rows in found.items():
        steps = [row["env_steps"] for row in rows]
        assert steps == sorted(set(steps)), trial
    ends = sorted(rows[-1]["env_steps"] for rows in found.values())
    if method == "nsga2":
        assert ends[0] >= STEPS
        assert len({json.dumps(rows[0]["values"]) for rows in found.values()}) == 6
    else:
        # The first is never stopped; of six at one rung the best may go on beside it, or more.
        assert ends[0] < STEPS <= ends[-1]
    assert all(point["sparsity"] >= 0.4 for point in load(out / "front.json")["points"])


def test_a_trial_whose_actor_is_killed_goes_on(ray_session: None, tmp_path: Path) -> None:
    out, flag = tmp_path / "out", tmp_path / "killed"
    # An actor dies in the first step after a checkpoint: it is at work then, and not done.
    env_config = {"run": str(out / "trials"), "flag": str(flag)}
    config = write(tmp_path / "c.yaml", {"population": 2}, env=KILLING, env_config=env_config)
    _, err = rayprune_here("sweep", config, "--out", out)
    assert flag.exists()
    assert "failed and goes on from its checkpoint" in err
    check_rows(out, 2)


@pytest.mark.slow  # test_mo_pbt.py has it in seconds
def test_a_trial_that_fails_for_good_is_named_and_the_others_end(
    ray_session: None, tmp_path: Path
) -> None:
    config = write(
        tmp_path / "c.yaml",
        search={
            "method": "grid",
            "space": {"rllib.training.lr": {"choice": [3e-4, 1e38]}},
            "max_failures": 1,
        },
        stop={"env_steps": INTERVAL},
    )
    out = tmp_path / "out"
    _, err = rayprune_here("sweep", config, "--out", out, code=1)
    outcome = load(out / "sweep.json")
    failed = [trial for trial in outcome["trials"] if trial["status"] == "failed"]
    assert len(failed) == 1
    assert failed[0]["trial"] in err
    assert "a weight of 'default_policy' is NaN or infinite" in failed[0]["error"]
    points = load(out / "front.json")["points"]
    assert {point["trial"] for point in points} == {
        trial["trial"] for trial in outcome["trials"] if trial["status"] == "done"
    }


@pytest.mark.slow
def test_ctrl_c_keeps_the_population_and_says_how_to_go_on(tmp_path: Path) -> None:
    # Four times as long: it must not be over when the signal comes.
    end = 4 * STEPS
    config, out = write(tmp_path / "c.yaml", stop={"env_steps": end}), tmp_path / "out"
    process = start("sweep", config, "--out", out)
    wait_for_rows(process, out, 8)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err[-3000:]
    assert "--resume" in err
    rayprune("sweep", config, "--out", out, "--resume")
    check_rows(out, end=end)


@pytest.mark.slow
def test_ctrl_c_before_any_result_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    # All of the population is being trained: none waits, from which it could be told.
    search = {"method": "random", "population": 1, "synch": None}
    config, out = write(tmp_path / "c.yaml", search=search), tmp_path / "out"
    process = start("sweep", config, "--out", out)
    while not (out / "trials").is_dir():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err[-3000:]
    assert not (out / "sweep.json").exists()
    rayprune("sweep", config, "--out", out, "--resume")
    assert [trial["status"] for trial in load(out / "sweep.json")["trials"]] == ["done"]


def test_the_sweeps_that_are_shipped_have_no_faults() -> None:
    shipped = [p for p in (ROOT / "tune_configs").rglob("*.yaml") if "search:" in p.read_text()]
    assert shipped
    for path in shipped:
        assert load_sweep(path)["name"] == path.stem
        for command in commands_in(path):
            verb, config, *options = command[1:]
            assert (verb, config) == ("sweep", path.stem)
            assert set(options[::2]) <= {"--set"}
            load_sweep(path, options[1::2])


def commands_in(config: Path) -> list[list[str]]:
    """Return the command lines in a config's header."""
    header = [line[1:] for line in config.read_text().splitlines() if line.startswith("#  ")]
    text = "\n".join(header).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines()]


def test_a_sweep_that_does_not_fit_leaves_nothing_in_the_way(
    ray_session: None, tmp_path: Path
) -> None:
    config, out = write(tmp_path / "c.yaml", search={"resources": {"cpu": 64}}), tmp_path / "out"
    with pytest.raises(ResourceError, match="A trial needs 64 CPU; the cluster has 4 CPU"):
        search(config, out)
    assert not list(out.iterdir())


def test_faults_of_search_and_experiment_come_together(tmp_path: Path) -> None:
    config = write(
        tmp_path / "c.yaml",
        search={
            "method": "mopbt",
            "space": {"pruning.sparsity": {"uniform": [0.5, 1.2]}},
            "objectives": {"retrun": "max"},
        },
        env="CartPool-v1",
    )
    _, err = rayprune_here("sweep", config, "--out", tmp_path / "out", code=2)
    for part in ("Did you mean 'mo_pbt'", "Did you mean 'return'", "`env` 'CartPool-v1'"):
        assert part in err
    config = write(tmp_path / "d.yaml", search={"space": {"pruning.sparsity": {"uniform": [0, 1]}}})
    _, err = rayprune_here("sweep", config, "--out", tmp_path / "out", code=2)
    assert "`search.space.pruning.sparsity` allows 1" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "method",
    [
        "asha",
        # What they run through differs in little from the other tests here.
        pytest.param("pb2", marks=pytest.mark.slow),
        pytest.param("pbt", marks=pytest.mark.slow),
        pytest.param("mo_asha", marks=pytest.mark.slow),
        pytest.param("nsga2", marks=pytest.mark.slow),
        pytest.param("tpe", marks=pytest.mark.slow),
        pytest.param("random", marks=pytest.mark.slow),
    ],
)
# scikit-learn's remark on so few results, which pytest would make an error of.
@pytest.mark.filterwarnings("ignore:The optimal value found for dimension")
def test_every_method_ends_with_its_front(ray_session: None, method: str, tmp_path: Path) -> None:
    if method == "pb2":
        pytest.importorskip("sklearn", reason="PB2's Gaussian process is scikit-learn's")
    population = 3 if method == "nsga2" else 2
    config = write(
        tmp_path / "c.yaml",
        search={"method": method, "population": population, "objectives": {"return": "max"}},
    )
    out = tmp_path / "out"
    assert len(search(config, out)["trials"]) == population
    (point,) = load(out / "front.json")["points"]
    assert point["return"] == max(
        row["validation"]["iqm"]
        for rows in rows_of(out).values()
        for row in rows
        if "validation" in row
    )
    for trial, rows in rows_of(out).items():
        for row in rows:
            for key in row.get("exploit", {}).get("changed", {}):
                assert key in SPACE, trial


def test_the_dense_return_is_measured_by_the_sweep_itself(
    ray_session: None, tmp_path: Path
) -> None:
    lean = {"sparsity": "max", "subject_to": {"return_at_least": 0.5}}
    config = write(
        tmp_path / "c.yaml",
        search={"method": "pbt", "population": 2, "objectives": lean},
        stop={"env_steps": INTERVAL},
    )
    out = tmp_path / "out"
    outcome = search(config, out)
    dense = load(out / "dense" / "summary.json")["returns"]["validation"]["iqm"]
    assert outcome["dense_return"] == dense
    points = load(out / "front.json")["points"]
    assert all(point["return"] >= dense / 2 for point in points)
    feasible = [
        row["sparsity"]
        for rows in rows_of(out).values()
        for row in rows
        if "validation" in row and row["validation"]["iqm"] >= dense / 2
    ]
    assert [point["sparsity"] for point in points] == ([max(feasible)] if feasible else [])


CLUSTER = """
import subprocess, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster
from rayprune.tracking.record import read_rows
from rayprune.tracking.working_time import seconds_before

config, out = Path(sys.argv[1]), Path(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
victim = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
command = [sys.executable, "-m", "rayprune", "sweep", config, "--out", out]
process = subprocess.Popen([*map(str, command), "--address", cluster.address])
rows = lambda: sum(len(read_rows(p)) for p in out.glob("trials/*/results.jsonl"))
while rows() < 8:
    assert process.poll() is None
    time.sleep(0.1)
cluster.remove_node(victim)
code = process.wait(timeout=300)
cluster.shutdown()
sys.exit(code)
"""


@pytest.mark.slow  # several Ray nodes for minutes; the actor's death above is tried in every run
def test_a_node_that_dies_takes_no_trial_with_it(tmp_path: Path) -> None:
    config, out = write(tmp_path / "c.yaml", {"resources": {"cpu": 1}}), tmp_path / "out"
    command = [sys.executable, "-c", CLUSTER, str(config), str(out)]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=400, env=ENVIRONMENT, cwd=ROOT
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert "2 of 4 run at once" in answer.stderr
    assert [trial["status"] for trial in load(out / "sweep.json")["trials"]] == ["done"] * 4
    check_rows(out)
