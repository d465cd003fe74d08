"""What is told when Learners can't be had, or are lost; what a kill leaves."""

import weakref

import pytest

from rayprune.errors import ResourceError
from rayprune.rllib.actors import lost_learners
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.training.counters import RunCounters
from rayprune.rllib.training.failures import build

# The end of what Ray 2.60 raised on two hosts whose names stood for 127.0.0.1.
APART = """ray::_RayTrainWorker__execute._setup_torch_process_group() (pid=431, ip=10.93.95.1)
    backend_class = ProcessGroupGloo(
RuntimeError: Gloo connectFullMesh failed with [pair.cc:152] timed out connecting: SO_ERROR: \
Connection refused, remote=[127.0.0.1]:9124$0"""


class Unbuildable:
    def __init__(self, reason):
        self._reason = reason

    def build_algo(self):
        raise RuntimeError(self._reason)


def test_learners_that_find_only_themselves_are_told_of_their_hosts_names():
    with pytest.raises(ResourceError, match=r"GLOO_SOCKET_IFNAME.*Connection refused, remote="):
        build(Unbuildable(APART))
    with pytest.raises(RuntimeError, match="something else"):
        build(Unbuildable("something else"))


class Group:
    """Stands for a LearnerGroup whose two Learners sit on nodes `a` and `b`."""

    _is_shut_down = False
    _workers = ("one", "two")


@pytest.mark.parametrize(("dead", "killed"), [("b", ["one", "two"]), ("other", [])])
def test_the_learners_that_are_left_go_with_the_node_of_one(monkeypatch, dead, killed):
    ended, group = [], Group()
    looks = iter([[], [dead]])

    def nodes():
        found = next(looks, None)
        if found is None:
            group._is_shut_down = True
        return [{"NodeID": name, "Alive": False} for name in found or []]

    monkeypatch.setattr(lost_learners, "POLL_S", 0.0)
    monkeypatch.setattr(lost_learners.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(lost_learners.ray, "nodes", nodes)
    monkeypatch.setattr(lost_learners.ray, "kill", ended.append)
    lost_learners._watch(weakref.ref(group), {"a", "b"})
    assert ended == killed


def test_a_kill_while_a_checkpoint_is_written_again_leaves_one(tmp_path, monkeypatch):
    new, place = tmp_path / ".000000200.7.tmp", tmp_path / "000000200"
    for directory in (new, place):
        directory.mkdir()
        (directory / "state").write_text(directory.name)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.put_in_place(new, place)
    assert (place / "state").read_text() == new.name


def test_the_moment_before_the_first_step_is_the_start():
    assert RunCounters().moment == "the start"
    assert RunCounters(updates=3).moment == "update 3"
    assert RunCounters(env_steps=9, updates=3).moment == "env step 9"
