"""Where a result's rows belong, whatever was killed or copied in between."""

import json

import pytest

from rayprune.search.journal import Journal
from rayprune.search.plan import Sweep
from rayprune.search.progress import NullSweepReporter
from rayprune.tracking.record import read_rows

RAW = {
    "name": "made_up",
    "algorithm": "PPO",
    "env": "CartPole-v1",
    "pruning": {"sparsity": 0.9},
    "tracking": {"wandb": "off", "tensorboard": False},
    "search": {"space": {"pruning.sparsity": {"uniform": [0.1, 0.9]}}, "interval": 100},
}


class Member:
    """A trial as the journal sees it: what it sends, after whatever happens to it."""

    def __init__(self, name):
        self.name, self.clock, self.since, self.before, self.saves = name, 0, None, 0, 0

    def step(self, rows=2):
        done = []
        for _ in range(rows):
            self.clock += 50
            done.append({"env_steps": self.clock, "updates": 1, "time_s": 0.0})
        self.saves += 1
        result = {
            "return": float(self.clock),
            "sparsity": 0.5,
            "flops": 1,
            "parameters": 1,
            "env_steps": self.clock,
            "values": {"pruning.sparsity": 0.5},
            "token": f"{self.name}-{self.saves}-{self.clock}",
            "since": self.since,
            "before": self.before,
            "rows": done,
            "training_iteration": self.saves,
        }
        self.before += rows
        return result

    def load(self, owner, token, clock):
        self.since, self.before, self.clock = [owner, token], 0, clock


@pytest.fixture
def sweep(tmp_path):
    return Sweep.of(RAW, tmp_path)


@pytest.fixture
def journal(sweep):
    return Journal(sweep, NullSweepReporter())


def clocks(sweep, trial="a"):
    path = sweep.out / "trials" / trial / "results.jsonl"
    return [row["env_steps"] for row in read_rows(path)]


def exploit(trial, donor, clock):
    changed = {"pruning.sparsity": [0.4, 0.5]}
    return {"trial": trial, "donor": donor, "clock": clock, "changed": changed, "time": 0.0}


def test_rows_follow_each_other(journal, sweep):
    member = Member("a")
    journal.result("a", member.step())
    journal.result("a", member.step())
    assert clocks(sweep) == [50, 100, 150, 200]


def test_what_a_restored_trial_does_again_takes_the_place_of_what_it_did(journal, sweep):
    member = Member("a")
    first = member.step()
    token = first["token"]
    journal.result("a", first)
    journal.result("a", member.step())
    member.load("a", token, 100)
    journal.result("a", member.step())
    assert clocks(sweep) == [50, 100, 150, 200]
    journal.result("a", member.step())
    assert clocks(sweep) == [50, 100, 150, 200, 250, 300]


def test_a_trial_that_died_before_its_first_checkpoint_begins_anew(journal, sweep):
    journal.result("a", Member("a").step())
    journal.result("a", Member("a").step(rows=3))
    assert clocks(sweep) == [50, 100, 150]


def test_a_clone_goes_on_after_its_own_rows(journal, sweep):
    member = Member("a")
    journal.result("a", member.step())
    journal.exploit(exploit("a", "b", 80))
    member.load("b", "b-1", 80)
    journal.result("a", member.step())
    journal.result("a", member.step())
    assert clocks(sweep) == [50, 100, 130, 180, 230, 280]
    rows = read_rows(sweep.out / "trials" / "a" / "results.jsonl")
    assert [row.get("exploit", {}).get("donor") for row in rows] == [None, None, "b", *[None] * 3]
    (event,) = read_rows(sweep.out / "lineage.jsonl")
    assert (event["trial"], event["donor"], event["env_steps"]) == ("a", "b", 80)


def test_a_clone_that_dies_before_its_own_checkpoint_is_cloned_again(journal, sweep):
    member = Member("a")
    journal.result("a", member.step())
    journal.exploit(exploit("a", "b", 80))
    for _ in range(2):
        member.load("b", "b-1", 80)
        journal.result("a", member.step())
    assert clocks(sweep) == [50, 100, 130, 180]


def test_an_exploit_told_before_the_rows_it_comes_after(journal, sweep):
    # An asynchronous scheduler decides before Tune's callbacks hear of the result.
    member = Member("a")
    first = member.step()
    journal.exploit(exploit("a", "b", 80))
    journal.result("a", first)
    member.load("b", "b-1", 80)
    journal.result("a", member.step())
    assert clocks(sweep) == [50, 100, 130, 180]
    rows = read_rows(sweep.out / "trials" / "a" / "results.jsonl")
    assert ["exploit" in row for row in rows] == [False, False, True, False]


def test_two_copies_of_one_state_of_a_donor_are_two_lives(journal, sweep):
    member = Member("a")
    for _ in range(2):
        journal.exploit(exploit("a", "b", 80))
        member.load("b", "b-1", 80)
        journal.result("a", member.step())
    assert clocks(sweep) == [130, 180, 130, 180]


def test_a_driver_that_was_killed_goes_on_with_what_is_on_disk(sweep):
    member = Member("a")
    first = Journal(sweep, NullSweepReporter())
    result = member.step()
    first.result("a", result)
    first.result("a", member.step())
    path = sweep.out / "trials" / "a" / "results.jsonl"
    with path.open("a") as file:
        file.write('{"env_steps": 2')  # the row that it was writing
    again = Journal(sweep, NullSweepReporter())
    member.load("a", result["token"], 100)
    again.result("a", member.step())
    assert clocks(sweep) == [50, 100, 150, 200]
    assert json.loads((path.parent / "state.json").read_text())["last"]["env_steps"] == 200
