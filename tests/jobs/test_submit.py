"""``rayprune submit`` with a stand-in for Ray's client: what it says, and its exit codes."""

import io
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from rayprune.cli.app import run
from rayprune.errors import RunError
from rayprune.jobs import follow, head
from rayprune.jobs.follow import Follower

CONFIG = "{name: tiny, algorithm: PPO, env: CartPole-v1, pruning: {sparsity: 0.9}}"


class Cluster:
    """Ends its job with ``status``; its log comes in ``pieces``, an exception is raised."""

    def __init__(self, pieces=("one\n", "two\n"), status="SUCCEEDED", code=0):
        self.pieces, self.status, self.code = pieces, JobStatus(status), code
        self.sent = []

    def submit_job(self, **job):
        self.sent.append(job)

    async def tail_job_logs(self, job):
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                self.pieces = [p for p in self.pieces if p is not piece]
                raise piece
            yield piece

    def get_job_logs(self, job):
        return "".join(self.pieces) + "the end\n"

    def get_job_info(self, job):
        return SimpleNamespace(status=self.status, driver_exit_code=self.code, message="why")


@pytest.fixture
def submit(monkeypatch, tmp_path, capsys):
    """Run the command in a directory of its own against a cluster."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(head, "check_head", lambda url: None)
    monkeypatch.setattr(follow, "PAUSE_S", 0)

    def command(cluster, *options):
        @contextmanager
        def client(url):
            yield cluster

        monkeypatch.setattr(head, "client", client)
        stdout = io.StringIO()
        where = ("--address", "http://head:8265", "--out", "/shared/x")
        code = run(["submit", "c.yaml", *where, *options], stdout)
        return code, stdout.getvalue(), capsys.readouterr().err

    return command


def test_the_log_is_shown_to_its_last_line(submit):
    code, _, told = submit(Cluster())
    assert code == 0, told
    assert "one\ntwo\nthe end\n" in told


def test_a_connection_that_breaks_loses_and_repeats_no_line(submit):
    _, _, told = submit(Cluster(["one\ntw", RuntimeError("closed"), "o\nthree\n"]))
    assert "one\ntwo\nthree\nthe end\n" in told
    assert told.count("three") == 1


@pytest.mark.parametrize(
    ("status", "theirs", "ours"), [("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", 0, 1)]
)
def test_the_exit_code_is_the_jobs(submit, status, theirs, ours):
    code, _, told = submit(Cluster(status=status, code=theirs))
    assert code == ours
    assert f"{status.lower()}, exit code {ours}" in told
    assert ("why" in told) == (theirs is None)


def test_ctrl_c_leaves_the_job_and_says_how_to_follow_and_to_stop_it(submit):
    cluster = Cluster(["one\n", KeyboardInterrupt()])
    code, _, told = submit(cluster)
    name = cluster.sent[0]["submission_id"]
    assert code == 130
    assert f"Job {name} goes on" in told
    assert f"ray job logs --follow --address http://head:8265 {name}" in told
    assert f"ray job stop --address http://head:8265 {name}" in told


def test_without_waiting_the_job_is_named_and_nothing_is_followed(submit):
    cluster = Cluster([RuntimeError("followed")])
    code, out, told = submit(cluster, "--no-wait", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["job"] == cluster.sent[0]["submission_id"]
    assert answer["status"] == "PENDING"
    assert "ray job stop" in told


def test_json_is_one_object_and_the_log_is_not_in_it(submit):
    code, out, told = submit(Cluster(status="FAILED", code=2), "--json")
    answer = json.loads(out)
    assert (answer["status"], answer["exit_code"], code) == ("FAILED", 2, 2)
    assert answer["out"] == "/shared/x"
    assert "one\ntwo" in told


def test_faults_of_the_config_are_told_before_anything_is_sent(submit):
    cluster = Cluster()
    code, _, told = submit(cluster, "--set", "pruning.criterion=fischer", "--set", "stop.nope=1")
    assert code == 2
    assert "Did you mean 'fisher'" in told
    assert "stop.nope" in told
    assert cluster.sent == []


def test_a_head_that_stays_away_ends_the_following(monkeypatch):
    monkeypatch.setattr(follow, "PATIENCE_S", 0.0)
    monkeypatch.setattr(follow, "PAUSE_S", 0.01)
    cluster = Cluster([RuntimeError("gone"), RuntimeError("gone"), RuntimeError("gone")])
    with pytest.raises(RunError, match="submit it again with --resume"):
        Follower(cluster, "j", lambda text: None).to_the_end()
