"""Whatever is masked of random networks, the compacted ones compute the same."""

from __future__ import annotations

import pytest
import torch

from rayprune import compact
from rayprune.deploy.compaction.proof import error_between
from tests.unit.deploy.compaction.operators.operator_nets import drawn

BROKEN = ("it would break", "can't be followed", "written into the forward")


def check(seed: int) -> None:
    net, shape = drawn(seed)
    small = compact(net, torch.randn(shape))
    for rows in (1, 3):
        unseen = torch.randn(rows * shape[0], *shape[1:])
        assert error_between(net(unseen), small.module(unseen)) <= 1e-5, seed
    assert not [left for left in small.left if any(word in left.reason for word in BROKEN)], seed
    if not small.left:
        assert not compact(small.module, torch.randn(shape)).removed, seed


def test_networks_of_other_operators_compute_the_same_without_their_dead_units():
    for seed in range(24):
        check(seed)


def test_last_units_of_a_group_that_must_live_are_named():
    check(701734)


@pytest.mark.matrix
@pytest.mark.parametrize("part", range(20))
def test_two_thousand_networks_compute_the_same_without_their_dead_units(part):
    for seed in range(1000 + 100 * part, 1100 + 100 * part):
        check(seed)
