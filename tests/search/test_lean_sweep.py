"""A sweep with lean loops finds what one with RLlib's own finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.search.test_sweep import rows_of, search, write

TOLD = ("env_steps", "sparsity", "values", "validation", "learner")
"""What a row says of the training, and not of the time that it took."""


@pytest.mark.slow  # two sweeps
def test_every_row_is_that_of_rllibs_own_loops(ray_session: None, tmp_path: Path) -> None:
    # Of PPO: RLlib seeds replay buffers by the clock (test_lean.py has their algorithms).
    found: dict[bool, list[list[dict[str, Any]]]] = {}
    exploits = []
    for lean in (True, False):
        place = tmp_path / str(lean)
        place.mkdir()
        search(write(place / "c.yaml", {"population": 2}, lean=lean), place / "out")
        rows = rows_of(place / "out")
        found[lean] = [
            [{key: row[key] for key in TOLD if key in row} for row in rows[trial]]
            for trial in sorted(rows)
        ]
        exploits.append(sum("exploit" in row for held in rows.values() for row in held))
    assert exploits[0] == exploits[1] > 0
    assert found[True] == found[False]
