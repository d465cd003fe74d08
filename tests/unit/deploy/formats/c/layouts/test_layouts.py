"""Layouts: each holds the whole matrix, and the cheapest is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.deploy.formats.c.layouts.base import groups_of, stacked
from rayprune.deploy.formats.c.layouts.blocks import Blocks
from rayprune.deploy.formats.c.layouts.choice import LAYOUTS, cheapest
from rayprune.deploy.formats.c.layouts.sparse_rows import SparseRows
from rayprune.deploy.formats.c.registers import ROWS


def masked(rows: int, columns: int, density: float, seed: int) -> np.ndarray:
    """A matrix with blocks of 16 rows by one column pruned."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(rows, columns)).astype(np.float32)
    keep = draw.random((-(-rows // ROWS), columns)) < density
    return weight * keep.repeat(ROWS, axis=0)[:rows]


def scattered(rows: int, columns: int, density: float) -> np.ndarray:
    """A matrix with single weights pruned."""
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(rows, columns)) * (draw.random((rows, columns)) < density)
    return weight.astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(1, 9), st.floats(0, 1), st.integers(0, 9))
def test_blocks_hold_the_matrix(rows, columns, density, seed):
    weight = masked(rows, columns, density, seed)
    held = Blocks(weight)
    table, got = stacked(weight, held.heights, held.living), np.zeros_like(weight)
    for (begin, end), some in zip(groups_of(held.heights), held.living, strict=True):
        size = (end - begin) * len(some)
        got[begin:end, some] = table[:size].reshape(len(some), end - begin).T
        table = table[size:]
    assert table.size == 0
    np.testing.assert_array_equal(got, weight)
    assert held.heights.max() <= ROWS


def test_blocks_that_lost_rows_hold_nothing_else_than_what_lives():
    weight = masked(64, 40, density=0.2, seed=0)
    # As compaction does: a row here, a row there. Nothing lines up with 16 any more.
    thinned = np.delete(weight, [3, 17, 18, 40], axis=0)
    for matrix, heights in ((weight, [16, 16, 16, 16]), (thinned, [15, 14, 15, 16])):
        held = Blocks(matrix)
        assert held.heights.tolist() == heights
        assert (held.heights * held.counts).sum() == np.count_nonzero(matrix)
        assert cheapest(matrix, [])["scalar"].name == "linear_blocks"


def test_rows_take_five_bytes_a_weight_up_to_256_columns_and_six_beyond():
    for columns, each in ((256, 5), (257, 6)):
        weight = scattered(20, columns, 0.1)
        held = SparseRows(weight)
        living = np.count_nonzero(weight)
        assert held.cost("scalar").bytes == each * living + 20 * (each - 4)


@pytest.mark.parametrize(
    ("weight", "scalar", "vector"),
    [
        (scattered(64, 64, 1.1), "linear_dense", "linear_dense"),
        (scattered(64, 64, 0.8), "linear_dense", "linear_dense"),
        (scattered(64, 64, 0.3), "linear_rows", "linear_dense"),
        (scattered(64, 64, 0.05), "linear_rows", "linear_rows"),
        (masked(64, 64, 0.3, 0), "linear_blocks", "linear_blocks"),
        (scattered(3, 70_000, 0.001), "linear_dense", "linear_dense"),
    ],
)
def test_the_layout_is_the_cheapest_of_bytes_and_instructions(weight, scalar, vector):
    found = cheapest(weight, LAYOUTS)
    assert {machine: layout.name for machine, layout in found.items()} == {
        "scalar": scalar,
        "vector": vector,
    }


def test_a_small_matrix_takes_the_kernel_that_is_there():
    weight = scattered(4, 12, 0.6)
    names = {
        there: cheapest(weight, [there])["scalar"].kernel
        for there in ("linear_dense", "linear_rows_8")
    }
    assert names == {there: there for there in names}
