from pathlib import Path

import pytest

from rayprune.errors import InputError
from rayprune.fit import waves
from rayprune.fit.candidates import Candidate
from rayprune.fit.waves import Trained


def trained(*points):
    rows = [
        {"return": earned, "sparsity": sparsity, "parameters": size}
        for earned, sparsity, size in points
    ]
    one = Candidate(hiddens=(64,), granularity="weight", sparsity=0.9)
    return Trained(one, Path("trial"), tuple(rows), None)


def test_what_is_pruned_to_the_end_is_tried_first_and_of_the_rest_the_smallest():
    found = trained(
        (500, 0.0, 1000), (490, 0.5, 500), (480, 0.9, 100), (485, 0.895, 105), (10, 0.9, 99)
    ).above(475)
    assert [(point["return"], point["parameters"]) for point in found] == [
        (485, 105),
        (480, 100),
        (490, 500),
        (500, 1000),
    ]


def test_the_best_point_is_the_one_that_earns_most():
    assert trained((1, 0.0, 9), (3, 0.5, 9), (2, 0.9, 9)).best["return"] == 3


def test_a_candidate_that_came_to_nothing_has_no_points():
    assert trained().above(0) == []
    assert trained().best is None


def test_a_fit_that_was_moved_in_the_middle_of_a_wave_is_told_to_move_back(tmp_path, monkeypatch):
    monkeypatch.setattr(waves, "wave_raw", lambda *_: {})
    place = waves.wave_place(tmp_path, 1)
    place.mkdir(parents=True)
    (place / waves.SWEEP_FILE).write_text("start_from: /before/dense/checkpoints/000000001\n")
    one = Candidate(hiddens=(8,), granularity="weight", sparsity=0.5, from_dense=True)
    dense = {"checkpoint": "dense/checkpoints/000000001", "validation": {"iqm": 1.0}}
    with pytest.raises(InputError, match=r"was moved while its wave 1 .*'/before/dense.*Move it"):
        waves.train_wave(None, tmp_path, 1, [one], dense, address=None, reporter=None)
