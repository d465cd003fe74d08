"""Energy by counters that wrap, are several, or can't be read."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from rayprune.deploy.measure.energy import energy_of, has_counters


class Counted:
    """A processor whose counter rises with each call."""

    def __init__(self, place: Path, name: str, start: int, step: int, limit: int = 999_999):
        self.folder, self.held, self.step, self.limit = place / name, start, step, limit
        self.folder.mkdir()
        (self.folder / "max_energy_range_uj").write_text(f"{limit}\n")
        self.write()

    def write(self):
        (self.folder / "energy_uj").write_text(f"{self.held}\n")

    def __call__(self):
        self.held = (self.held + self.step) % (self.limit + 1)
        self.write()


def measured(place: Path, *counted: Counted) -> float | None:
    ticks = itertools.count()
    call = lambda: [one() for one in counted]  # noqa: E731
    return energy_of(call, place=place, at_least_s=2.0, clock=lambda: float(next(ticks)))


def test_a_calls_energy_is_what_the_counter_rose_by(tmp_path):
    assert measured(tmp_path, Counted(tmp_path, "intel-rapl:0", 5, 7)) == 7.0


def test_a_counter_that_begins_again_is_followed(tmp_path):
    assert measured(tmp_path, Counted(tmp_path, "intel-rapl:0", 999_950, 3)) == 3.0


def test_processors_add_up_and_their_parts_are_not_counted_twice(tmp_path):
    names = ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0")
    counted = [
        Counted(tmp_path, name, 0, step) for name, step in zip(names, (2, 3, 50), strict=True)
    ]
    assert measured(tmp_path, *counted) == 5.0


@pytest.mark.parametrize("content", [None, "none"])
def test_where_nothing_can_be_read_there_is_no_figure(tmp_path, content):
    if content is not None:
        (tmp_path / "intel-rapl:0").mkdir()
        (tmp_path / "intel-rapl:0" / "max_energy_range_uj").write_text("9")
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text(content)
    assert measured(tmp_path) is None
    assert not has_counters(tmp_path)
