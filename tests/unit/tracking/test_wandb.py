"""W&B's offline files read back, and outages that stop nothing. No test leaves this machine."""

import json
import os
import subprocess
import sys
import time

import pytest

from rayprune.config import TrackingConfig
from rayprune.tracking.wandb import WandbTracker, sparsest_aliases, track_sweep
from tests.doubles.made_up.sweep import write_made_up_sweep
from tests.wandb_files import history, wandb_files, wandb_records

pytest.importorskip("wandb")

KEY = "0123456789abcdef" * 3
ROWS = [
    {
        "env_steps": 1000 * n,
        "return_mean": 10.0 * n,
        "sparsity": 0.1 * n,
        "layers": {"pi.0": 0.1 * n},
        "scores": {"pi.0": {"counts": [3, 1], "edges": [0.0, 0.5, 1.0]}},
    }
    for n in range(1, 6)
]
EXPLOIT = {
    "env_steps": 3000,
    "trial": "t0",
    "donor": "t7",
    "changed": {"pruning.sparsity": [0.5, 0.8]},
    "time": 1.0,
}


def tracker(directory, tell=pytest.fail, mode="offline"):
    return WandbTracker(
        directory,
        mode=mode,
        project="rayprune",
        name="tiny-seed0",
        group="tiny",
        tags=("PPO", "x" * 100),
        tell=tell,
    )


def follow(one, rows, summary=None):
    one.start({"pruning": {"sparsity": 0.5}, "seed": 0})
    for row in rows:
        one.row(row)
    one.finish(summary)


def of_kind(directory, kind):
    return [
        getattr(record, kind)
        for path in wandb_files(directory)
        for record in wandb_records(path)
        if record.WhichOneof("record_type") == kind
    ]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of five rows, resumed at its third, with an exploit, a checkpoint and a summary."""
    directory = tmp_path_factory.mktemp("run")
    checkpoint = directory / "checkpoints" / "000005000"
    (checkpoint / "inner").mkdir(parents=True)
    (checkpoint / "inner" / "weights.pkl").write_bytes(b"weights")
    (checkpoint / "replay_buffer.pkl").write_bytes(b"gigabytes")
    follow(tracker(directory), ROWS)
    second = tracker(directory)
    second.start({"pruning": {"sparsity": 0.5}, "seed": 0})
    for row in ROWS[2:]:
        second.row({**row, **({"exploit": EXPLOIT} if row["env_steps"] == 3000 else {})})
    second.artifact(checkpoint, "checkpoint")
    second.finish({"env_steps": 5000, "sparsity": {"prunable": 0.5}})
    return directory


def test_every_row_is_in_the_offline_files(resumed):
    logged = [row for path in wandb_files(resumed) for row in history(path)]
    rows = [row for row in logged if "return_mean" in row]
    assert [row["env_steps"] for row in rows] == [1000, 2000, 3000, 4000, 5000, 3000, 4000, 5000]
    assert rows[1]["sparsity"] == pytest.approx(0.2)
    assert rows[1]["sparsity/layer/pi.0"] == pytest.approx(0.2)
    assert rows[0]["scores/pi.0._type"] == "histogram"
    assert rows[0]["scores/pi.0.values"] == [3, 1]
    assert rows[0]["scores/pi.0.bins"] == [0.0, 0.5, 1.0]


def test_steps_never_go_back_over_a_resume_and_the_id_stays(resumed):
    steps = [row["_step"] for path in wandb_files(resumed) for row in history(path)]
    assert len(wandb_files(resumed)) == 2
    assert steps == sorted(set(steps))
    runs = of_kind(resumed, "run")
    assert len({run.run_id for run in runs}) == 1
    assert {run.run_group for run in runs} == {"tiny"}
    assert {run.display_name for run in runs} == {"tiny-seed0"}
    assert {run.project for run in runs} == {"rayprune"}


def test_an_exploit_is_a_tag_a_changed_config_and_a_row_of_the_lineage(resumed):
    tags = {tag for run in of_kind(resumed, "run") for tag in run.tags}
    assert tags == {"PPO", "x" * 64, "exploited", "from:t7"}
    changes = [
        json.loads(update.value_json)
        for config in of_kind(resumed, "config")
        for update in config.update
        if update.key == "pruning"
    ]
    assert changes[-1] == {"sparsity": 0.8}
    (table,) = resumed.glob("wandb/offline-run-*/files/media/table/lineage*.json")
    content = json.loads(table.read_text())
    row = dict(zip(content["columns"], content["data"][0], strict=True))
    assert (row["trial"], row["donor"]) == ("t0", "t7")
    assert json.loads(row["changed"]) == {"pruning.sparsity": [0.5, 0.8]}


def test_the_criterions_tag_follows_an_exploit(tmp_path):
    changed = {"pruning.criterion": ["PPO", "lamp"]}
    follow(tracker(tmp_path), [{**ROWS[0], "exploit": {**EXPLOIT, "changed": changed}}])
    tags = [set(run.tags) for run in of_kind(tmp_path, "run")]
    assert tags[-1] == {"lamp", "x" * 64, "exploited", "from:t7"}


def test_the_checkpoint_is_an_artifact_without_its_buffer(resumed):
    (artifact,) = [one for one in of_kind(resumed, "artifact") if one.type == "checkpoint"]
    assert [entry.path for entry in artifact.manifest.contents] == ["inner/weights.pkl"]


def test_a_run_without_a_summary_is_marked_as_failed(resumed):
    assert [end.exit_code for end in of_kind(resumed, "exit")] == [1, 0]


def test_a_sweep_has_a_run_of_its_own_with_front_and_lineage(tmp_path):
    sweep = write_made_up_sweep(tmp_path / "sweep")
    track_sweep(sweep, TrackingConfig(), pytest.fail)
    (run, *_) = of_kind(sweep, "run")
    assert (run.job_type, run.run_group) == ("sweep", "made_up")
    tables = {
        path.name.partition("_")[0]
        for path in sweep.glob("wandb/offline-run-*/files/media/table/*")
    }
    assert tables == {"front", "lineage", "trials"}
    kept = {artifact.type: {*artifact.aliases} for artifact in of_kind(sweep, "artifact")}
    assert "front" in kept
    # t006: 498.8 of 500 at 92 %.
    assert kept["checkpoint"] == {"latest", "sparsest-99", "sparsest-95", "sparsest-90"}


def test_the_sparsest_policies_of_a_front_with_losses_keep_what_they_may_lose():
    worse = {"checkpoint": "b", "return": -103.0, "sparsity": 0.9}
    points = [{"checkpoint": "a", "return": -100.0, "sparsity": 0.1}, worse]
    found = sparsest_aliases(points)
    assert found == {"a": ["sparsest-99"], "b": ["sparsest-95", "sparsest-90"]}
    assert sparsest_aliases([]) == sparsest_aliases([{"checkpoint": "a", "flops": 1}]) == {}


def test_the_environment_may_turn_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    follow(tracker(tmp_path, mode="online"), ROWS)
    assert not any(tmp_path.iterdir())


def online_in(monkeypatch, url, key=KEY):
    """Point W&B's settings of this process at ``url``."""
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", url)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)


@pytest.fixture
def fresh_wandb():
    """W&B reads the environment once per process: let it forget, before and after."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
@pytest.mark.parametrize("trouble", ["refused", "no key", "short key", "bad key"])
def test_where_online_cannot_be_the_run_goes_on_offline_after_one_warning(
    tmp_path, monkeypatch, stand_in, trouble
):
    keys = {"no key": None, "short key": "short"}
    stand_in.refuse = True
    online_in(monkeypatch, stand_in.url, keys.get(trouble, KEY))
    if trouble == "refused":
        stand_in.stop()
    told, started = [], time.monotonic()
    follow(tracker(tmp_path, told.append, mode="online"), ROWS, {"env_steps": 5000})
    assert time.monotonic() - started < 60
    assert len(told) == 1
    assert "goes on offline" in told[0]
    (path,) = wandb_files(tmp_path)
    assert "offline-run" in str(path)
    assert [row["env_steps"] for row in history(path)] == [1000, 2000, 3000, 4000, 5000]


@pytest.mark.usefixtures("fresh_wandb")
def test_online_a_server_that_goes_away_stops_nothing(tmp_path, monkeypatch, stand_in):
    online_in(monkeypatch, stand_in.url)
    monkeypatch.setattr("rayprune.tracking.wandb.SECONDS_TO_FINISH", 2.0)
    told, one = [], tracker(tmp_path, mode="online")
    one._tell = told.append
    one.start({"seed": 0})
    assert told == []
    assert "UpsertBucket" in [name for name, _ in stand_in.asked]
    one.row(ROWS[0])
    stand_in.stop()
    started = time.monotonic()
    for row in ROWS[1:]:
        one.row(row)
    assert time.monotonic() - started < 10
    one.finish({"env_steps": 5000})
    assert time.monotonic() - started < 25
    assert len(told) == 1
    assert "Nothing is lost: `wandb sync" in told[0]
    (path,) = wandb_files(tmp_path)
    assert [row["env_steps"] for row in history(path)] == [1000, 2000, 3000, 4000, 5000]


def test_the_segments_of_a_resumed_run_are_uploaded_as_one_run(tmp_path, stand_in):
    for rows in (ROWS[:3], ROWS[3:]):
        follow(tracker(tmp_path), rows)
    segments = [path.parent for path in wandb_files(tmp_path)]
    assert len(segments) == 2
    given = {"WANDB_BASE_URL": stand_in.url, "WANDB_API_KEY": KEY}
    command = [sys.executable, "-m", "wandb", "sync", *map(str, segments)]
    done = subprocess.run(
        command, env={**os.environ, **given}, cwd=tmp_path, capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    (lines,) = stand_in.history.values()
    assert [lines[n]["env_steps"] for n in sorted(lines)] == [1000, 2000, 3000, 4000, 5000]
    assert sorted(lines) == [0, 1, 2, 3, 4]
