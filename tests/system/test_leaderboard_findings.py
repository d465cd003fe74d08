"""The tables of docs/findings.md: what the rows say, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.leaderboard import findings
from benchmarks.leaderboard.cells import RESULTS
from rayprune.tracking.record import Record


def row(arm: str, seed: int, score: float, sparsity: float = 0.9) -> dict[str, Any]:
    """Return a row of Swimmer, of which the tables read no more."""
    measured = {"flash_bytes": 1000.0, "instructions": 100.0}
    return {
        "task": "swimmer",
        "arm": arm,
        "sparsity": 0.0 if arm in ("dense", "random") else sparsity,
        "seed": seed,
        "score": {"mean": score, "worst": score - 10},
        "targets": {"cortex-m4": measured},
    }


@pytest.fixture
def results(tmp_path):
    """Rows in which units are above small dense, and the recipe isn't."""
    found = [row("random", 0, 0.0), row("dense", 0, 300.0), row("dense", 1, 100.0)]
    for arm, scores in {
        "small dense": (90.0, 120.0),
        "recommended": (110.0, 290.0),
        "units, live": (150.0, 250.0),
    }.items():
        found += [row(arm, seed, score) for seed, score in enumerate(scores)]
    with Record.open(tmp_path / "swimmer.jsonl") as record:
        record.append(*found)
    return tmp_path


def page(name: str) -> str:
    return f"before\n<!-- leaderboard: {name} -->\nold\n<!-- end -->\nafter\n"


def test_the_page_is_what_the_rows_say():
    held = findings.PAGE.read_text(encoding="utf-8")
    assert findings.renewed(held, RESULTS) == held


def test_a_tasks_table_has_every_arms_seeds(results):
    told = findings.renewed(page("swimmer"), results)
    assert told.startswith("before\n<!-- leaderboard: swimmer -->\n\n| arm |")
    assert told.endswith("\n\n<!-- end -->\nafter\n")
    assert "old" not in told
    assert (
        "| **recommended at 90 %** | 200.0 [110.0, 290.0] | 1.00 | 110, 290 (seeds 0, 1) | 190 "
        "| 1,000 B | 100 |" in told
    )


def test_above_is_an_interval_that_lies_above(results):
    told = findings.renewed(page("apart"), results)
    line = next(each for each in told.splitlines() if each.startswith("| swimmer"))
    assert line == (
        "| swimmer, 90 % | 200 [110, 290] (2) | 200 [150, 250] (2) | 105 [90, 120] (2) "
        "| units, live |"
    )


def test_one_run_is_above_nothing(results):
    with Record.open(results / "swimmer.jsonl") as record:
        record.append(row("small dense", 0, 1.0, 0.95), row("recommended", 0, 300.0, 0.95))
    told = findings.renewed(page("apart"), results)
    assert "| swimmer, 95 % | 300 (1) | not run | 1 (1) | no |" in told


def test_the_overview_takes_as_many_runs_of_each_task(results):
    with Record.open(results / "acrobot.jsonl") as record:
        for arm, seed, score in (("random", 0, 0.0), ("dense", 0, 100.0), ("recommended", 1, 50.0)):
            record.append({**row(arm, seed, score), "task": "acrobot"})
    told = findings.renewed(page("all"), results)
    # Swimmer's seed 0 has no counterpart. Its seed 1 is at 290 of dense's 100 with the same seed;
    # Acrobot's is at 50 of 100, of all dense runs, since dense lacks it.
    assert "| recommended | not run | 1.70 (2 runs, without" in told


def test_the_overview_says_which_tasks_it_lacks(results):
    told = findings.renewed(page("all"), results)
    without = "without lunarlander, acrobot, hopper, halfcheetah"
    assert f"| recommended | not run | 1.00 [0.55, 1.45] (2 runs, {without}) |" in told
    assert "A linear policy: not run." in told
