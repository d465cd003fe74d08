"""A return-gated schedule has no place in a sweep, whose trials can't roll back."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayprune.errors import ConfigError
from rayprune.search.sweep_spec import load_sweep
from tests.search.test_sweep import write

GATE = {"kind": "gated", "begin": 0}


def test_a_gate_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "sweep.yaml", pruning={"sparsity": 0.8, "schedule": GATE})
    with pytest.raises(ConfigError, match=r"can't be used in a sweep.*subject_to"):
        load_sweep(path)


def test_so_is_one_among_a_spaces_choices(tmp_path: Path) -> None:
    space = {"pruning.schedule": {"choice": [{"kind": "cubic"}, GATE]}}
    with pytest.raises(ConfigError, match="can't be used in a sweep"):
        load_sweep(write(tmp_path / "sweep.yaml", {"space": space}))
