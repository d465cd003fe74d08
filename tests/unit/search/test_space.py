import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune.errors import ConfigError
from rayprune.search.domains import Choices, Drawn, Range
from rayprune.search.space import Space, join_key

YAML = {
    "pruning.sparsity": {"uniform": [0.5, 0.98]},
    "rllib.training.lr": {"loguniform": [1e-4, 1e-3]},
    "pruning.schedule.end": {"quniform": [0.3, 0.9, 0.1]},
    "rllib.training.num_epochs": {"randint": [2, 11]},
    "pruning.criterion": {"choice": ["l1", "taylor", "random"]},
    "env_config.size": {"grid": [1, 2, 4, 8]},
}
SPACE = Space.from_dict(YAML)


def test_each_kind_becomes_its_domain():
    assert SPACE["pruning.sparsity"] == Range(low=0.5, high=0.98)
    assert SPACE["rllib.training.lr"] == Range(low=1e-4, high=1e-3, log=True)
    assert SPACE["pruning.schedule.end"] == Range(low=0.3, high=0.9, step=0.1)
    # As in Tune and in Python, the upper end is left out.
    assert SPACE["rllib.training.num_epochs"] == Range(low=2, high=10, step=1, whole=True)
    assert SPACE["pruning.criterion"] == Choices(values=("l1", "taylor", "random"))
    assert SPACE["env_config.size"] == Choices(values=(1, 2, 4, 8), grid=True)
    assert SPACE.grid_size == 12


def test_all_faults_come_together_in_the_house_form():
    found = Space.faults_of(
        {
            "prunning.sparsity": {"uniform": [0, 1]},
            "pruning": {"choice": [1]},
            "pruning..x": {"choice": [1]},
            "pruning.a": {"unifrom": [0, 1]},
            "pruning.b": {"uniform": [1, 0]},
            "pruning.c": {"loguniform": [0, 1]},
            "pruning.d": {"quniform": [0, 1, 0.3]},
            "pruning.e": {"randint": [0.5, 3]},
            "pruning.f": {"choice": []},
            "pruning.g": {"grid": [1, 2, 1]},
            "pruning.h": [1, 2],
            "pruning.i": {"uniform": [0, "high"]},
            "pruning.j": {"quniform": [0, 1]},
            "pruning.k": {"quniform": [0, 1, 0]},
        }
    )
    expected = [
        "prunning.sparsity` must lie under one of ['env_config', 'pruning', 'quantise', 'rllib', "
        "'stop'], but is under 'prunning'. Did you mean 'pruning'?",
        "pruning` must name a key inside `pruning`, such as pruning.sparsity.",
        "pruning..x` must be a dotted key",
        "pruning.a` must be one of ['choice', 'grid', 'loguniform', 'quniform', 'randint', "
        "'uniform'], but is 'unifrom'. Did you mean 'uniform'?",
        "pruning.b.uniform` must have its high end above the low one (1), but is 0.",
        "pruning.c.loguniform` must begin above 0, but begins at 0. Use `uniform`.",
        "pruning.d.quniform` must have bounds that are multiples of its step (0.3), but has 1.",
        "pruning.e.randint` must be two integers, but is [0.5, 3].",
        "pruning.f.choice` must be a list of at least one value, but is [].",
        "pruning.g.grid` must not hold a value twice, but does 1.",
        "pruning.h` must be one of [",
        "pruning.i.uniform` must be [low, high], all finite numbers, but is [0, 'high'].",
        "pruning.j.quniform` must be [low, high, step]",
        "pruning.k.quniform` must have a step above 0, but has 0.",
    ]
    assert len(found) == len(expected), found
    for fault, part in zip(found, expected, strict=True):
        assert fault.startswith(f"`search.space.{part}"), fault


@pytest.mark.parametrize("value", [None, {}, [], "pruning.sparsity"])
def test_an_empty_space_is_refused_with_an_example(value):
    (fault,) = Space.faults_of(value)
    assert "{pruning.sparsity: {uniform: [0.5, 0.98]}}" in fault


def test_a_key_inside_another_is_refused():
    both = {"pruning.schedule.end": {"uniform": [0, 1]}, "pruning.schedule": {"choice": [1]}}
    (fault,) = Space.faults_of(both)
    assert "`search.space.pruning.schedule.end` lies in `search.space.pruning.schedule`" in fault
    (fault,) = Space.faults_of({"pruning.a": {"choice": [1]}, 'pruning."a"': {"choice": [1]}})
    assert "lies in" in fault


def test_a_quoted_segment_is_one_key():
    space = Space.from_dict({'pruning.distribution."pi.0"': {"uniform": [0, 1]}})
    assert space.apply({}, {'pruning.distribution."pi.0"': 0.5}) == {
        "pruning": {"distribution": {"pi.0": 0.5}}
    }
    assert list(space) == [join_key(["pruning", "distribution", "pi.0"])]


def test_values_are_written_into_a_copy_and_read_back():
    raw = {"pruning": {"sparsity": 0.9}, "rllib": None}
    values = {"pruning.sparsity": 0.7, "rllib.training.lr": 3e-4}
    written = SPACE.apply(raw, values)
    assert written == {"pruning": {"sparsity": 0.7}, "rllib": {"training": {"lr": 3e-4}}}
    assert SPACE.read(written) == values
    assert raw == {"pruning": {"sparsity": 0.9}, "rllib": None}


def test_a_key_through_something_that_is_no_mapping_is_refused():
    with pytest.raises(ConfigError, match=r"`pruning.schedule` is 'cubic', not a mapping"):
        SPACE.apply({"pruning": {"schedule": "cubic"}}, {"pruning.schedule.end": 0.5})


@given(st.integers(0, 10_000))
def test_samples_and_perturbations_stay_inside_the_bounds(seed):
    rng = random.Random(seed)
    values = SPACE.sample(rng)
    for _ in range(20):
        assert all(SPACE[key].holds(value) for key, value in values.items())
        ends = values["pruning.schedule.end"]
        assert ends == pytest.approx(round(ends * 10) / 10, abs=1e-12)
        assert isinstance(values["rllib.training.num_epochs"], int)
        values = SPACE.perturb(values, rng)


def test_every_end_and_choice_can_be_drawn():
    rng = random.Random(0)
    drawn = [SPACE.sample(rng) for _ in range(400)]
    assert {d["rllib.training.num_epochs"] for d in drawn} == set(range(2, 11))
    assert {d["pruning.schedule.end"] for d in drawn} == {0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    assert {d["pruning.criterion"] for d in drawn} == {"l1", "taylor", "random"}


def moves(domain, value, count=200):
    rng = random.Random(0)
    return rounded(domain.perturb(value, rng) for _ in range(count))


def rounded(values):
    return {round(value, 9) if isinstance(value, float) else value for value in values}


def test_a_log_range_multiplies_and_stops_at_its_ends():
    lr = SPACE["rllib.training.lr"]
    assert moves(lr, 5e-4) == {4e-4, 6e-4}
    assert moves(lr, 1e-3) == {8e-4, 1e-3}


def test_a_linear_range_moves_by_a_share_of_the_value_but_not_across_itself():
    assert moves(Range(low=0.0001, high=10.0), 2.0) == {1.6, 2.4}
    # A fifth of 0.8 would be more than a fifth of the range.
    narrow = Range(low=0.5, high=1.0)
    assert moves(narrow, 0.8) == {0.7, 0.9}


def test_zero_is_no_trap():
    assert moves(Range(low=-1.0, high=1.0), 0.0) == {-0.4, 0.4}


def test_a_grid_of_numbers_moves_at_least_one_step():
    assert moves(Range(low=1, high=10, step=1, whole=True), 2) == {1, 3}
    assert moves(Range(low=0.5, high=0.9, step=0.1), 0.7) == {0.6, 0.8}


def test_choices_move_to_a_neighbour_where_they_are_numbers_and_else_to_any_other():
    assert moves(SPACE["env_config.size"], 4) == {2, 8}
    assert moves(SPACE["env_config.size"], 8) == {4}
    assert moves(SPACE["pruning.criterion"], "l1") == {"taylor", "random"}
    assert moves(Choices(values=(True, False)), True) == {False}
    assert moves(Choices(values=("only",)), "only") == {"only"}


def test_a_value_from_outside_comes_inside():
    domain = SPACE["pruning.sparsity"]
    assert all(domain.holds(value) for value in moves(domain, 0.1) | moves(domain, 7.0))
    assert all(domain.holds(value) for value in moves(domain, None))


def test_resampling_always_or_never():
    rng = random.Random(0)
    values = {**SPACE.sample(rng), "pruning.sparsity": 0.6}
    never = {SPACE.perturb(values, rng, resample=0)["pruning.sparsity"] for _ in range(50)}
    assert rounded(never) == {0.504, 0.696}
    always = {SPACE.perturb(values, rng, resample=1)["pruning.sparsity"] for _ in range(50)}
    assert len(always) == 50


def test_what_is_drawn_by_a_function_is_multiplied_or_drawn_anew():
    domain = Drawn(draw=lambda: "new")
    assert moves(domain, 10) == {8, 12}
    assert moves(domain, "old") == {"new"}


def test_probes_are_the_ends_and_all_choices():
    probes = list(SPACE.probes())
    assert ("pruning.sparsity", 0.98) in probes
    assert ("rllib.training.num_epochs", 10) in probes
    assert [value for key, value in probes if key == "pruning.criterion"] == [
        "l1",
        "taylor",
        "random",
    ]
