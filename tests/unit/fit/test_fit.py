"""The order in which a fit tries candidates, and what it refuses before anything is measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rayprune.errors import StorageError
from rayprune.fit import fit as fits
from rayprune.fit.budgets import Budgets
from rayprune.fit.candidates import Candidate
from rayprune.fit.feasibility import Assessment, Feasibility
from rayprune.fit.untrained import Left


def assessments(*precisions: str) -> list[Assessment]:
    made = [
        Candidate(hiddens=(8,), granularity="weight", sparsity=0.5, precision=precision)
        for precision in precisions
    ]
    return [Assessment(one, Left(10, 10)) for one in made]


def test_where_a_network_takes_too_much_its_next_precision_is_tried_in_the_same_wave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = Budgets({"flash": 100.0})
    sizes = {"float32": 400.0, "int8": 100.0}
    monkeypatch.setattr(
        fits, "_measured", lambda fit, one, _: {"flash_bytes": sizes[one.precision]}
    )
    fit: Any = SimpleNamespace(config=SimpleNamespace(trials=8, population=2, budgets=budgets))
    record: Any = SimpleNamespace(rows=lambda event: [], append=lambda event, row: None)
    found = Feasibility(budgets, assessments("float32", "int8"))
    run = fits._FitRun(fit, tmp_path, record, found, SimpleNamespace())  # type: ignore[arg-type]
    assert [one.name for one in run._next_wave({})] == ["8-weight-50-int8"]
    sizes["int8"] = 101.0
    found.assessments[:] = assessments("float32", "int8")
    assert run._next_wave({}) == []


def test_a_directory_that_is_taken_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(fits, "plan_fit", never)
    (tmp_path / "notes.txt").write_text("mine")
    given: Any = {"resume": False, "address": None, "reporter": SimpleNamespace()}
    with pytest.raises(StorageError, match=r"is not empty.*`sweep` and `fit` have"):
        fits.run_fit(SimpleNamespace(), tmp_path, **given)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="holds no run to resume"):
        fits.run_fit(SimpleNamespace(), tmp_path, **{**given, "resume": True})  # type: ignore[arg-type]


def test_a_reference_in_a_bucket_is_fetched_and_not_looked_for_in_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = {"s3://bucket/run": tmp_path / "copy"}
    monkeypatch.setattr(fits, "fetch", copies.__getitem__)
    places = [fits.reference_place(tmp_path, told) for told in ("dense/7", "/a/b", *copies)]
    assert places == [tmp_path / "dense/7", Path("/a/b"), tmp_path / "copy"]
