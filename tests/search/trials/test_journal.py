"""Where a result's rows belong, whatever was killed or copied in between."""

import itertools
import json
import random

import pytest

from rayprune.search.reporter import NullSweepReporter
from rayprune.search.sweep_spec import Sweep
from rayprune.search.trials.journal import Journal
from rayprune.search.trials.trial_files import REMEMBERED, TrialFiles
from rayprune.storage.mirror import Mirror
from rayprune.storage.urls import Place
from rayprune.tracking import record
from rayprune.tracking.record import read_rows
from tests.doubles.dying import Dying
from tests.doubles.made_up.tune import MadeUpTune

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

    def step(self, rows=2, sparsity=0.5):
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
            "values": {"pruning.sparsity": sparsity},
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


def exploit(trial, donor, clock, judged=None, sparsity=0.5):
    """One that the scheduler tells of, having judged a result."""
    changed = {"pruning.sparsity": [0.4, sparsity]}
    event = {"trial": trial, "donor": donor, "clock": clock, "changed": changed, "time": 0.0}
    return {**event, "result": {"token": judged and judged["token"]}}


def test_rows_follow_each_other(journal, sweep):
    member = Member("a")
    journal.result("a", member.step())
    journal.result("a", member.step())
    assert clocks(sweep) == [50, 100, 150, 200]


def test_the_lineage_of_all_is_not_looked_at_for_results_without_an_exploit(journal, monkeypatch):
    member = Member("a")
    journal.result("a", member.step())
    monkeypatch.setattr(Journal, "_exploits", lambda self: pytest.fail("looked at all exploits"))
    journal.result("a", member.step())
    journal.exploit(exploit("a", "b", 80))
    member.load("b", "b-1", 80)
    with pytest.raises(pytest.fail.Exception, match="looked"):
        journal.result("a", member.step())


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


def test_a_restored_trial_may_go_on_for_long_and_lacks_no_rows(sweep):
    told = []
    reporter = NullSweepReporter()
    reporter.message = told.append
    journal, member = Journal(sweep, reporter), Member("a")
    first = member.step()
    journal.result("a", first)
    member.load("a", first["token"], 100)
    for _ in range(2 * REMEMBERED):
        journal.result("a", member.step())
    assert told == []
    assert clocks(sweep) == list(range(50, 100 + 4 * REMEMBERED * 50 + 1, 50))


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
    journal.exploit(exploit("a", "b", 80, judged=first))
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


def donors(sweep, trial="a"):
    rows = read_rows(sweep.out / "trials" / trial / "results.jsonl")
    return [row.get("exploit", {}).get("donor") for row in rows]


def killed(sweep):
    """What the next driver knows: what is on disk."""
    return Journal(sweep, NullSweepReporter())


def test_an_exploit_that_tune_forgot_with_its_driver_has_not_happened(journal, sweep):
    member = Member("a")
    first = member.step()
    journal.result("a", first)
    journal.exploit(exploit("a", "b", 100, judged=first))
    again = killed(sweep)
    member.load("a", first["token"], 100)
    again.result("a", member.step())
    # A copy of the same donor that was never told is no exploit of that old one.
    member.load("b", "b-2", 200)
    again.result("a", member.step())
    assert clocks(sweep) == [50, 100, 150, 200, 250, 300]
    assert donors(sweep) == [None] * 6


def test_a_round_that_is_held_again_decides_anew(journal, sweep):
    member = Member("a")
    first = member.step()
    journal.result("a", first)
    journal.exploit(exploit("a", "b", 100, judged=first, sparsity=0.6))
    again = killed(sweep)
    again.exploit(exploit("a", "c", 100, judged=first, sparsity=0.7))
    member.load("c", "c-1", 100)
    again.result("a", member.step(sparsity=0.7))
    assert clocks(sweep) == [50, 100, 150, 200]
    assert donors(sweep) == [None, None, "c", None]
    assert [event["donor"] for event in read_rows(sweep.out / "lineage.jsonl")] == ["c"]


def test_a_clone_whose_exploit_is_decided_again_loses_its_first_life(journal, sweep):
    # Its rows were recorded, and Tune knew of neither them nor the exploit.
    member = Member("a")
    first = member.step()
    journal.result("a", first)
    journal.exploit(exploit("a", "b", 100, judged=first, sparsity=0.6))
    member.load("b", "b-1", 100)
    journal.result("a", member.step(sparsity=0.6))
    again = killed(sweep)
    again.exploit(exploit("a", "b", 100, judged=first, sparsity=0.7))
    member.load("b", "b-1", 100)
    again.result("a", member.step(sparsity=0.7))
    assert clocks(sweep) == [50, 100, 150, 200]
    assert donors(sweep) == [None, None, "b", None]
    (event,) = read_rows(sweep.out / "lineage.jsonl")
    assert event["changed"] == {"pruning.sparsity": [0.4, 0.7]}


def test_a_clone_goes_back_to_the_life_before_its_last(journal, sweep):
    member = Member("a")
    for donor, clock in (("b", 100), ("c", 200)):
        done = member.step()
        journal.result("a", done)
        journal.exploit(exploit("a", donor, clock, judged=done))
        member.load(donor, f"{donor}-1", clock)
    journal.result("a", member.step())
    again = killed(sweep)
    # Tune's own state was written while it was a clone of b, before it had a checkpoint.
    member.load("b", "b-1", 100)
    again.result("a", member.step())
    assert clocks(sweep) == [50, 100, 150, 200]
    assert donors(sweep) == [None, None, "b", None]


def test_a_copy_that_has_not_happened_does_not_hide_the_same_copy_later(journal, sweep):
    # Tune's own schedulers tell of no exploit.
    member = Member("a")
    first = member.step()
    journal.result("a", first)
    member.load("b", "b-1", 100)
    journal.result("a", member.step())
    again = killed(sweep)
    member.load("a", first["token"], 100)
    again.result("a", member.step())
    member.load("b", "b-1", 100)
    again.result("a", member.step(rows=1))
    assert clocks(sweep) == [50, 100, 150, 200, 150]


def test_a_life_that_was_cut_off_begins_where_it_begins_anew(journal, sweep):
    member = Member("a")
    for donor, clock in (("b", 100), ("c", 200)):
        journal.result("a", member.step())
        member.load(donor, f"{donor}-1", clock)
    journal.result("a", member.step())
    again = killed(sweep)
    member.load("b", "b-1", 100)
    again.result("a", member.step(rows=1))
    member.load("c", "c-1", 200)
    again.result("a", member.step(rows=1))
    assert clocks(sweep) == [50, 100, 150, 250]


def test_the_archive_forgets_what_is_done_again(journal, sweep, tmp_path):
    member = Member("a")
    first = member.step()
    journal.result("a", first)
    last = member.step()
    journal.result("a", last)
    saved = tmp_path / "tune" / "rayprune"
    saved.mkdir(parents=True)
    (saved / "rayprune.json").write_text(json.dumps({"token": last["token"]}))
    journal.checkpoint("a", saved.parent)
    assert [entry["rows"] for entry in journal.files("a").archive.entries] == [4]
    member.load("a", first["token"], 100)
    journal.result("a", member.step(rows=1))
    assert journal.files("a").archive.entries == []


def test_rows_without_their_state_are_done_again(journal, sweep):
    member = Member("a")
    first = member.step()
    journal.result("a", first)
    journal.exploit(exploit("a", "b", 100, judged=first))
    state = sweep.out / "trials" / "a" / "state.json"
    held = state.read_bytes()
    member.load("b", "b-1", 100)
    journal.result("a", member.step())
    state.write_bytes(held)  # killed between the rows and the state that commits them
    again = killed(sweep)
    assert clocks(sweep) == [50, 100]
    assert not read_rows(sweep.out / "lineage.jsonl")
    member.load("b", "b-1", 100)
    again.result("a", member.step())
    assert clocks(sweep) == [50, 100, 150, 200]
    assert donors(sweep) == [None, None, "b", None]


def test_rows_that_take_the_place_of_others_without_their_state_are_done_again(journal, sweep):
    member = Member("a")
    first = member.step()
    journal.result("a", first)
    journal.result("a", member.step())
    state = sweep.out / "trials" / "a" / "state.json"
    held = state.read_bytes()
    member.load("a", first["token"], 100)
    journal.result("a", member.step(rows=1))
    state.write_bytes(held)  # which speaks of more rows than there are
    again = killed(sweep)
    member.load("a", first["token"], 100)
    again.result("a", member.step(rows=3))
    assert clocks(sweep) == [50, 100, 150, 200, 250]


class Killed(Exception):  # noqa: N818
    """The driver is gone."""


@pytest.mark.parametrize("synch", [True, False], ids=["synchronous", "asynchronous"])
@pytest.mark.parametrize("seed", range(25))
def test_records_hold_every_row_once_whatever_is_killed(sweep, tmp_path, monkeypatch, synch, seed):
    draw = random.Random(seed)
    writes = itertools.count()
    kill_at = -1

    def written(action):
        def write(*arguments):
            nonlocal kill_at
            if next(writes) == kill_at:
                raise Killed
            return action(*arguments)

        return write

    monkeypatch.setattr(TrialFiles, "_write_config", lambda self, values: None)  # slow YAML
    monkeypatch.setattr(record, "_sync", lambda descriptor: None)  # no power is cut here
    monkeypatch.setattr(record, "_write_file", written(record._write_file))
    monkeypatch.setattr(record, "_write_all", written(record._write_all))
    tune = MadeUpTune(draw, synch, tmp_path / "tune")
    tune.restore(killed(sweep), 0)
    kills = 0
    while not tune.done:
        if kills < 4 and draw.random() < 0.05:
            # Somewhere in the midst of what the journal writes next.
            kill_at = next(writes) + draw.randrange(12)
        try:
            tune.step()
        except Killed:
            kills, kill_at = kills + 1, -1
            # Rounds make it plain where a row belongs. Without them a trial may copy one state of a
            # donor twice, and a state of Tune's from before both would be taken for the second.
            tune.restore(killed(sweep), draw.choice([0, 0, 1, 2, 5] if synch else [0, 0, 1]))
    check_records(sweep, tune)


def check_records(sweep, tune):
    """Compare what the journal has written with what the trials carried themselves."""
    exploits = []
    for name, member in tune.members.items():
        rows = read_rows(sweep.out / "trials" / name / "results.jsonl")
        assert [[row["id"], row.get("exploit")] for row in rows] == member.rows
        exploits += [{"trial": name, **mark} for _, mark in member.rows if mark]
        for entry in json.loads((sweep.out / "trials" / name / "archive.json").read_text()):
            meta = sweep.out / "trials" / name / entry["checkpoint"] / "rayprune.json"
            assert json.loads(meta.read_text())["clock"] == entry["env_steps"]
            assert rows[entry["rows"] - 1]["env_steps"] == entry["env_steps"]
    assert read_rows(sweep.out / "lineage.jsonl") == sorted(exploits, key=lambda e: e["time"])


class InABucket:
    """A driver's journal whose directory is committed after each call, as the observer does."""

    def __init__(self, home, store):
        home.mkdir(parents=True)
        self.store = Dying(store)
        place = Place(url="s3://bucket/sweep", base=None, path="sweep", files=self.store.root())
        self.mirror = Mirror(home, place, apart=["tune"])
        self.mirror.fetch()
        self.sweep = Sweep.of(RAW, home)
        self.journal = killed(self.sweep)

    def __getattr__(self, name):
        def call(*arguments):
            getattr(self.journal, name)(*arguments)
            self.mirror.commit()

        return call


@pytest.mark.parametrize("synch", [True, False], ids=["synchronous", "asynchronous"])
@pytest.mark.parametrize("seed", range(6))
def test_so_they_do_in_a_bucket_from_machine_to_machine(tmp_path, monkeypatch, synch, seed):
    draw = random.Random(seed)
    monkeypatch.setattr(TrialFiles, "_write_config", lambda self, values: None)  # slow YAML
    monkeypatch.setattr(record, "_sync", lambda descriptor: None)  # no power is cut here
    tune = MadeUpTune(draw, synch, tmp_path / "tune")
    (tmp_path / "store").mkdir()
    driver = InABucket(tmp_path / "0", tmp_path / "store")
    tune.restore(driver, 0)
    kills = 0
    while not tune.done:
        if kills < 5 and draw.random() < 0.2:
            driver.store.at = driver.store.count + draw.randrange(1, 25)
        try:
            tune.step()
        except OSError:
            kills += 1
            driver = InABucket(tmp_path / str(kills), tmp_path / "store")
            # A commit is a whole call of the journal, so that without rounds Tune's state is as far
            # behind here as with a lag of one above.
            tune.restore(driver, draw.choice([0, 0, 1, 2, 5]) if synch else 0)
    last = InABucket(tmp_path / "last", tmp_path / "store")
    assert kills > 0
    check_records(last.sweep, tune)
