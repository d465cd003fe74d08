"""The schedulers under a real Ray Tune, on a trainable that costs nothing."""

import math
from collections import Counter

import pytest
from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner

from rayprune.errors import ConfigError
from rayprune.rllib import prune
from rayprune.search import MultiObjectivePBT, Objectives, PopulationPBT, Space, domains_in
from tests.doubles.climbers import Climber, Rows, ToFile, read

BOTH = Objectives(directions={"return": "max", "sparsity": "max"})
SPACE = Space.from_dict({"pruning.sparsity": {"uniform": [0.0, 0.98]}})
EVERY = 2
STEPS = 12

pytestmark = pytest.mark.usefixtures("ray_session", "quiet_tune")


@pytest.fixture
def quiet_tune(monkeypatch):
    # Its loggers cost time, and lose rows: the tests' own record is asked instead.
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    monkeypatch.setenv("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")


def scheduler(tmp_path, kind=MultiObjectivePBT, **options):
    if kind is MultiObjectivePBT:
        options.setdefault("objectives", BOTH)
    if "hyperparam_mutations" not in options:
        options.setdefault("space", SPACE)
    options = {"perturbation_interval": EVERY, "seed": 0, **options}
    return kind(on_exploit=ToFile(tmp_path / "lineage.jsonl"), **options)


def tuner(
    tmp_path, chosen, *, population=8, cpu=1.0, crash_after=None, paused=False, failures=0, **config
):
    # All begin dense: only what copies and explores can reach the sparse end.
    space = {"pruning": {"sparsity": tune.uniform(0.0, 0.2)}, "log": str(tmp_path / "log.jsonl")}
    return Tuner(
        tune.with_resources(Climber, {"cpu": cpu}),
        param_space={**space, **config},
        tune_config=TuneConfig(
            scheduler=chosen,
            num_samples=population,
            reuse_actors=True,
            trial_name_creator=str,
        ),
        run_config=RunConfig(
            name="sweep",
            storage_path=str(tmp_path),
            stop={"training_iteration": STEPS},
            verbose=0,
            callbacks=[Rows(tmp_path / "rows.jsonl", crash_after, paused)],
            failure_config=FailureConfig(max_failures=failures),
            checkpoint_config=CheckpointConfig(num_to_keep=4),
        ),
    )


def ends(path):
    """Return each trial's last row."""
    return list({row["trial"]: row for row in read(path / "rows.jsonl")}.values())


def clocks(path):
    return sorted(row["training_iteration"] for row in ends(path))


# In rounds in every run; the other way is tried there by the restored population.
EITHER_WAY = [
    pytest.param(False, id="asynchronous", marks=pytest.mark.slow),
    pytest.param(True, id="synchronous"),
]


@pytest.mark.parametrize("synch", EITHER_WAY)
def test_the_population_spreads_along_the_front(tmp_path, synch):
    # An asynchronous population that shares its slots compares trials of different ages.
    how = {"population": 8, "cpu": 2} if synch else {"population": 5, "cpu": 0.8, "together": 5}
    results = tuner(tmp_path, scheduler(tmp_path, synch=synch), **how).fit()
    assert not results.errors
    assert clocks(tmp_path) == [STEPS] * how["population"]
    # Without rounds it is the machine's load that says who is compared with whom.
    if synch:
        sparsities = [end["sparsity"] for end in ends(tmp_path)]
        assert max(sparsities) - min(sparsities) > 0.4
        # The same budget on the return alone: the dense corner.
        (tmp_path / "alone").mkdir()
        alone = scheduler(tmp_path / "alone", PopulationPBT, metric="return", synch=synch)
        tuner(tmp_path / "alone", alone, **how).fit()
        dense = BOTH.hypervolume(ends(tmp_path / "alone"), [0, 0])
        assert BOTH.hypervolume(ends(tmp_path), [0, 0]) > 1.2 * dense

    # What the record holds is what the actors did, each step once.
    rows, log = read(tmp_path / "rows.jsonl"), read(tmp_path / "log.jsonl")
    stepped = [entry["row"] for entry in log if entry["event"] == "step"]
    assert Counter(row["row"] for row in rows) == Counter(stepped)
    assert len(set(stepped)) == len(stepped)
    # Clones are trained with the mutated value, inside the bounds, from the first step on.
    events = read(tmp_path / "lineage.jsonl")
    assert events
    for event in events:
        old, new = event["changed"].get("pruning.sparsity", [None, None])
        assert event["trial"] != event["donor"]
        assert event["clock"] % EVERY == 0
        assert event["scores"].keys() == event["donor_scores"].keys() == {"return", "sparsity"}
        used = [e["config"] for e in log if e["event"] == "step" and e["trial"] == event["trial"]]
        if new is not None:
            assert 0.0 <= new <= 0.98
            assert {old, new} <= set(used)


def test_an_exploit_reuses_its_actor_when_every_trial_has_a_slot(tmp_path):
    # One that is always the worst: of equals it is chance who is ahead when a decision is due.
    results = tuner(tmp_path, scheduler(tmp_path), population=4, together=4, nan=1).fit()
    assert not results.errors
    exploits = len(read(tmp_path / "lineage.jsonl"))
    events = Counter(entry["event"] for entry in read(tmp_path / "log.jsonl"))
    assert exploits
    # Nobody waits for a slot, so none but the clones are paused.
    assert events["reset"] == exploits
    assert events["setup"] == 4


@pytest.mark.parametrize("synch", [False, True], ids=["asynchronous", "synchronous"])
def test_a_restored_population_goes_on_where_it_was(tmp_path, synch):
    with pytest.raises(Exception, match="the driver is gone"):
        tuner(
            tmp_path, scheduler(tmp_path, synch=synch), population=4, crash_after=26, together=4
        ).fit()
    before = len(read(tmp_path / "rows.jsonl"))
    assert before < 4 * STEPS
    results = Tuner.restore(
        str(tmp_path / "sweep"), tune.with_resources(Climber, {"cpu": 1.0}), resume_unfinished=True
    ).fit()
    assert not results.errors
    assert clocks(tmp_path) == [STEPS] * 4
    rows = read(tmp_path / "rows.jsonl")
    assert len({row["row"] for row in rows}) == len(rows)
    assert len({row["trial"] for row in rows}) == 4
    # It goes on from checkpoints: what is trained twice is less than what was trained before.
    assert len(rows) - 4 * STEPS < before
    if synch:  # without rounds it is chance whether four equals ever copy
        rounds = [event["clock"] for event in read(tmp_path / "lineage.jsonl")]
        assert max(rounds) > before / 4


def test_a_restored_round_waits_for_trials_that_came_to_no_result(tmp_path):
    # One runs at a time, and the driver dies when the first has come to the round.
    chosen = scheduler(tmp_path, synch=True)
    with pytest.raises(Exception, match="the driver is gone"):
        tuner(tmp_path, chosen, population=3, cpu=4.0, crash_after=EVERY, paused=True).fit()
    assert len({row["trial"] for row in read(tmp_path / "rows.jsonl")}) == 1
    Tuner.restore(
        str(tmp_path / "sweep"), tune.with_resources(Climber, {"cpu": 4.0}), resume_unfinished=True
    ).fit()
    clocks_so_far = {}
    for row in read(tmp_path / "rows.jsonl"):
        clocks_so_far[row["trial"]] = row["training_iteration"]
        slowest = min(clocks_so_far.values()) if len(clocks_so_far) == 3 else 0
        assert max(clocks_so_far.values()) - slowest <= EVERY
    assert clocks(tmp_path) == [STEPS] * 3


@pytest.mark.parametrize("synch", EITHER_WAY)
def test_a_trial_that_fails_for_good_holds_nobody_up(tmp_path, synch):
    results = tuner(tmp_path, scheduler(tmp_path, synch=synch), population=4, cpu=2, fails=2).fit()
    # Where trials decide one by one, it may have been replaced by a clone before it fails.
    assert len(results.errors) in ({1} if synch else {0, 1})
    assert clocks(tmp_path)[1:] == [STEPS] * 3


def test_a_trial_that_fails_once_recovers_with_its_clock(tmp_path):
    chosen = scheduler(tmp_path, synch=True)
    results = tuner(tmp_path, chosen, population=4, cpu=2, fails=2, failures=1).fit()
    # It fails again where it has failed before, unless it has been replaced by a clone meanwhile.
    assert len(results.errors) <= 1
    assert clocks(tmp_path)[1:] == [STEPS] * 3


def test_a_trial_that_turns_nan_is_replaced_and_never_copied(tmp_path):
    results = tuner(tmp_path, scheduler(tmp_path), population=4, nan=1, together=4).fit()
    assert not results.errors
    events = read(tmp_path / "lineage.jsonl")
    ill = [e for e in events if e["scores"]["return"] is None or math.isnan(e["scores"]["return"])]
    assert ill
    assert {event["trial"][-5:] for event in ill} == {"00001"}
    assert not any(math.isnan(event["donor_scores"]["return"]) for event in events)


def test_rows_without_an_objective_are_passed_over(tmp_path):
    # In rounds: which of four equals copies when they decide one by one is chance.
    options = {"require_attrs": False, "perturbation_interval": 3, "synch": True}
    results = tuner(
        tmp_path, scheduler(tmp_path, **options), population=4, rare=True, together=4
    ).fit()
    assert not results.errors
    events = read(tmp_path / "lineage.jsonl")
    assert events
    assert {event["clock"] % 4 for event in events} == {0}


def test_the_sparsest_that_keeps_the_return(tmp_path):
    constraint = {"return_at_least": 0.5, "dense_return": 1.0}
    lean = Objectives.from_dict({"sparsity": "max", "subject_to": constraint})
    chosen = scheduler(tmp_path, PopulationPBT, objectives=lean, synch=True)
    tuner(tmp_path, chosen, cpu=2).fit()
    best = ends(tmp_path)[lean.rank(ends(tmp_path))[0]]
    assert best["return"] >= 0.5
    assert best["sparsity"] > 0.3


def test_a_wrong_objective_or_space_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match="maximise"):
        MultiObjectivePBT(objectives={"return": "maximise"}, perturbation_interval=1, space=SPACE)
    with pytest.raises(ConfigError, match="one of `space`"):
        MultiObjectivePBT(objectives=BOTH, perturbation_interval=1)
    with pytest.raises(ConfigError, match="names \\['return', 'sparsity'\\]"):
        PopulationPBT(objectives=BOTH, perturbation_interval=1, space=SPACE)
    lean = Objectives.from_dict({"sparsity": "max", "subject_to": {"return_at_least": 0.9}})
    with pytest.raises(ConfigError, match="isn't known yet"):
        PopulationPBT(objectives=lean, perturbation_interval=1, space=SPACE)
    with pytest.raises(ConfigError, match=r"`lr` must be a tune domain"):
        Space.from_tune({"lr": 3})


def test_tunes_domains_become_ours_with_their_bounds():
    space = Space.from_tune(
        {
            "lr": tune.loguniform(1e-4, 1e-2),
            "deep": {"er": tune.uniform(0, 1), "most": tune.quniform(0, 1, 0.25)},
            "count": tune.randint(1, 5),
            "even": tune.qrandint(2, 8, 2),
            "kind": tune.choice(["a", "b"]),
            "list": [1, 2],
            "free": tune.randn(0, 1),
            "made": lambda: 3,
        }
    )
    assert space["lr"].log
    assert (space["deep.er"].low, space["deep.er"].high) == (0, 1)
    assert space["deep.most"].step == 0.25
    assert (space["count"].low, space["count"].high, space["count"].whole) == (1, 4, True)
    assert (space["even"].low, space["even"].high, space["even"].step) == (2, 8, 2)
    assert space["kind"].values == ("a", "b")
    assert space["list"].values == (1, 2)
    assert isinstance(space["free"].draw(), float)
    assert space["made"].draw() == 3


def test_our_domains_draw_the_same_from_tune():
    yaml = {
        "pruning.a": {"uniform": [0.5, 0.98]},
        "pruning.b": {"loguniform": [1e-4, 1e-3]},
        "pruning.c": {"quniform": [0.3, 0.9, 0.1]},
        "pruning.d": {"randint": [2, 4]},
        "pruning.e": {"choice": ["l1", "l2"]},
    }
    space = Space.from_dict(yaml)
    for key, domain in space.to_tune().items():
        drawn = [domain.sample() for _ in range(200)]
        assert all(space[key].holds(value) for value in drawn)
    counts = space.to_tune()["pruning.d"]
    assert {counts.sample() for _ in range(99)} == {2, 3}
    again = Space.from_tune({"pruning": {key[-1]: d for key, d in space.to_tune().items()}})
    assert {key: again[key] for key in again} == {key: space[key] for key in space}
    grid = Space.from_dict({"stop.env_steps": {"grid": [1, 2]}})
    assert grid.to_tune() == {"stop.env_steps": {"grid_search": [1, 2]}}


def test_domains_are_found_in_a_pruning_config():
    from ray.rllib.algorithms.ppo import PPOConfig

    config = prune(
        PPOConfig().environment("CartPole-v1").training(lr=tune.loguniform(1e-4, 1e-3)),
        {"sparsity": tune.uniform(0.5, 0.98), "criterion": "l1"},
    )
    found = Space.from_tune(domains_in(config))
    assert set(found) == {"lr", "learner_config_dict.rayprune.sparsity"}
