from pathlib import Path
from types import SimpleNamespace

import pytest

from rayprune.errors import InputError
from rayprune.fit import choice
from rayprune.fit.budgets import Budgets
from rayprune.fit.candidates import Candidate
from rayprune.fit.choice import Judge, best_of, confidence_of, nearest_of
from rayprune.fit.waves import Trained


def row(name, *, met=True, certified=True, share=0.5, **more):
    return {
        "candidate": name,
        "met": met,
        "certified": certified,
        "worst_share": share,
        "figures": {"flash_bytes": 1},
        **more,
    }


def test_the_best_is_the_certified_one_that_uses_least_of_its_tightest_budget():
    rows = [row("a", share=0.9), row("b", share=0.4), row("c", share=0.1, certified=False)]
    assert best_of(rows)["candidate"] == "b"
    assert best_of(rows[2:]) is None


def test_the_nearest_misses_the_certificate_then_a_budget_then_the_return():
    rows = [
        {"candidate": "failed", "met": False, "return": None},
        {"candidate": "poor", "met": False, "return": 10.0},
        {"candidate": "weak", "met": False, "return": 90.0},
        row("large", met=False, certified=False, share=3.0),
        row("larger", met=False, certified=False, share=4.0),
        row("undecided", certified=False),
    ]
    found = [one["candidate"] for one in nearest_of(rows, 95.0)]
    assert found == ["undecided", "large", "larger", "weak", "poor", "failed"]


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_certificates_share_one_chance_of_error(confidence):
    spent = sum(1 - confidence_of(number, confidence) for number in range(1, 2000))
    assert spent == pytest.approx(1 - confidence, rel=1e-3)
    assert spent <= 1 - confidence


def judged(out, monkeypatch, flash, *, floor=0.0):
    """Judge a candidate of a checkpoint for each size; None can't be exported."""
    sizes = {str(number): size for number, size in enumerate(flash)}
    budgets = Budgets({"flash": 100.0})
    one = Candidate(hiddens=(8,), granularity="weight", sparsity=0.5)
    points = tuple(
        {
            "return": 10.0 - number,
            "sparsity": 0.5,
            "parameters": number,
            "env_steps": 1,
            "checkpoint": f"{number}",
        }
        for number in range(len(flash))
    )

    def export(checkpoint, asked):
        if sizes[checkpoint.name] is None:
            raise InputError("no way")
        asked.out.write_text(checkpoint.name)
        return {"sha256": "", "about": {"weights_sha256": ""}, "interface": {}}

    def measured(target, file, budgets, parameters):
        figures = {"flash_bytes": sizes[file.read_text()]}
        measurement = SimpleNamespace(self_test=True)
        return SimpleNamespace(figures=figures, measurement=measurement, to_dict=dict)

    monkeypatch.setattr(choice, "export_checkpoint", export)
    monkeypatch.setattr(choice, "measure", measured)
    monkeypatch.setattr(choice, "parameters_in", lambda told: 1)
    monkeypatch.setattr(Judge, "_certified", lambda self, trained, tested: {"certified": True})
    fit = SimpleNamespace(
        target=SimpleNamespace(format="c", name="host"),
        config=SimpleNamespace(budgets=budgets, return_=0.95),
    )
    told = SimpleNamespace(message=lambda text: None)
    judge = Judge(fit=fit, out=out, dense=Path("dense"), floor=floor, reporter=told)
    return judge.judge(Trained(one, out / "trial", points, None), 0)


@pytest.mark.parametrize(
    ("flash", "kept"),
    [
        ((200, 120, 150), "1"),  # the nearest of three, though another was tried last
        ((200, 150, None), "1"),
        ((None, 90, 10), "1"),  # the first that keeps to the budget
    ],
)
def test_the_file_that_is_kept_is_the_one_that_is_told_of(tmp_path, monkeypatch, flash, kept):
    told = judged(tmp_path, monkeypatch, flash)
    assert (tmp_path / told["artifact"]).read_text() == kept
    assert told["figures"] == {"flash_bytes": flash[int(kept)]}
    assert told["met"] is told["certified"] is (flash[int(kept)] <= 100)
    assert [path.name for path in (tmp_path / "candidates").iterdir()] == ["8-weight-50"]


def test_of_a_candidate_that_earns_too_little_the_most_that_it_earned_is_told(
    tmp_path, monkeypatch
):
    told = judged(tmp_path, monkeypatch, (10, 20), floor=50.0)
    assert told["return"] == 10.0
    assert told["reason"].startswith("It earns 10.0 at most on the validation seeds, and 50.0 are")
