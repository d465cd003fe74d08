"""What trackers share: flat metrics, and that none of them can stop a run."""

from importlib.metadata import PackageNotFoundError

import pytest

from rayprune.config import experiment_faults
from rayprune.tracking import tracker as module
from rayprune.tracking.followers import RunTracker, open_tracker
from rayprune.tracking.record import step_of
from rayprune.tracking.tracker import Trackers, flat_metrics

ROW = {
    "iteration": 1,
    "env_steps": 2000,
    "return_mean": None,
    "sparsity": 0.5,
    "groups": {"policy": 0.4},
    "layers": [{"name": "pi.0", "sparsity": 0.25, "shape": [2, 4]}],
    "pruning_finished": True,
    "mask_churn": {"pi.0": 0.1},
    "scores": {"pi.0": {"counts": [3, 1], "edges": [0.0, 0.5, 1.0]}},
    "flops": {"dense": 10, "sparse": 5},
    "validation": {"iqm": 9.0, "ci95": [8.0, 10.0], "ci95_over": "episodes"},
    "exploit": {"donor": "t1", "env_steps": 2000},
}


class Notes:
    def __init__(self, fails_at=()):
        self.calls = []
        self.fails_at = fails_at

    def _note(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name in self.fails_at:
            raise OSError(f"{name} is out of order\nand more")

    def start(self, config):
        self._note("start", config)

    def row(self, row):
        self._note("row", row)

    def artifact(self, path, kind):
        self._note("artifact", path, kind)

    def finish(self, summary):
        self._note("finish", summary)


def experiment(**tracking):
    raw = {"name": "tiny", "algorithm": "PPO", "env": "CartPole-v1", "pruning": {"sparsity": 0.9}}
    faults, made = experiment_faults({**raw, "tracking": tracking})
    assert not faults
    return made


def test_a_row_becomes_numbers_and_histograms_by_path():
    numbers, histograms = flat_metrics(ROW)
    assert numbers == {
        "iteration": 1,
        "env_steps": 2000,
        "sparsity": 0.5,
        "sparsity/group/policy": 0.4,
        "sparsity/layer/pi.0": 0.25,
        "pruning_finished": 1,
        "mask_churn/pi.0": 0.1,
        "flops/dense": 10,
        "flops/sparse": 5,
        "validation/iqm": 9.0,
        "validation/ci95_low": 8.0,
        "validation/ci95_high": 10.0,
    }
    assert histograms == {"scores/pi.0": ([3, 1], [0.0, 0.5, 1.0])}


def test_layers_may_be_a_mapping_as_well():
    assert flat_metrics({"layers": {"pi.0": 0.5}})[0] == {"sparsity/layer/pi.0": 0.5}


def test_what_was_ever_active_is_one_number_and_one_by_layer():
    assert flat_metrics({"itop": {"all": 0.3, "layers": {"pi.0": 0.5}}})[0] == {
        "itop/all": 0.3,
        "itop/layers/pi.0": 0.5,
    }
    assert flat_metrics({"itop": None})[0] == {}


def test_where_no_env_steps_are_sampled_updates_are_the_step():
    assert step_of({"env_steps": 0, "updates": 7}) == 7
    assert step_of({"env_steps": 5, "updates": 7}) == 5


def test_all_trackers_are_told_everything_in_order():
    notes = [Notes(), Notes()]
    with Trackers(notes, pytest.fail) as trackers:
        trackers.start({"a": 1})
        trackers.row(ROW)
        trackers.finish({"b": 2})
    expected = [("start", {"a": 1}), ("row", ROW), ("finish", {"b": 2})]
    assert [one.calls for one in notes] == [expected, expected]


@pytest.mark.parametrize("stage", ["start", "row", "finish"])
def test_a_tracker_that_fails_is_told_of_once_and_left_out(stage):
    told, broken, sound = [], Notes(fails_at=(stage,)), Notes()
    with Trackers([broken, sound], told.append) as trackers:
        trackers.start({})
        trackers.row(ROW)
        trackers.row(ROW)
        trackers.finish({})
    assert told == [
        f"Notes failed, so the run goes on without it: OSError: {stage} is out of order"
    ]
    assert [name for name, *_ in sound.calls] == ["start", "row", "row", "finish"]
    assert [name for name, *_ in broken.calls].count(stage) == 1


def test_a_run_that_breaks_off_finishes_its_trackers_without_a_summary():
    notes = Notes()
    with pytest.raises(KeyboardInterrupt), Trackers([notes], pytest.fail):
        raise KeyboardInterrupt
    assert notes.calls == [("finish", None)]


def test_the_end_of_a_run_hands_over_its_chosen_checkpoint(tmp_path):
    notes, summary = Notes(), {"checkpoint": "checkpoints/000002000"}
    tracker = RunTracker([notes], pytest.fail, tmp_path)
    tracker.finish(summary)
    tracker.finish(None)
    assert notes.calls == [
        ("artifact", tmp_path / "checkpoints/000002000", "checkpoint"),
        ("finish", summary),
    ]


def test_a_missing_package_is_told_of_once_and_the_run_goes_on(tmp_path, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "distribution", missing)
    told = []
    with open_tracker(experiment(), tmp_path, pytest.fail) as tracker:
        tracker.row(ROW)  # by default they are on where they can be
    asked = experiment(wandb="offline", tensorboard=True)
    for _ in range(2):
        with open_tracker(asked, tmp_path, told.append) as tracker:
            tracker.row(ROW)
    assert told == [
        "`tracking.wandb: offline` needs wandb, which is not installed, so the run goes on without "
        "it. pip install 'rayprune[wandb]', or set it to off.",
        "`tracking.tensorboard: true` needs tensorboardX, which is not installed, so the run goes "
        "on without it. pip install 'rayprune[tensorboard]', or set it to false.",
    ]
    assert not any(tmp_path.iterdir())


def test_turned_off_nothing_is_written_or_told(tmp_path):
    off = experiment(wandb="off", tensorboard=False)
    with open_tracker(off, tmp_path, pytest.fail) as tracker:
        tracker.row(ROW)
        tracker.finish({})
    assert not any(tmp_path.iterdir())
