"""Settings that differ from those that something was begun with are told, each with both values."""

from __future__ import annotations

import pytest

from rayprune.errors import ConfigError
from rayprune.rllib.training.same_settings import require_same


def test_each_setting_that_differs_is_told_with_both_values() -> None:
    with pytest.raises(ConfigError) as told:
        require_same({"a": 1, "b": 2}, {"b": 3, "c": 4}, "run", "its own", option="--")
    assert [line.partition(".")[0] for line in told.value.faults] == [
        "`--a` was 1 in 'run', but is None",
        "`--b` was 2 in 'run', but is 3",
        "`--c` was None in 'run', but is 4",
    ]


def test_what_is_alike_is_no_fault() -> None:
    before, now = {"a": [1]}, {"a": (1,)}
    with pytest.raises(ConfigError):
        require_same(before, now, "run", "its own")
    asked = []
    require_same(before, now, "run", "its own", alike=lambda *pair: asked.append(pair) or True)
    assert asked == [([1], (1,))]
