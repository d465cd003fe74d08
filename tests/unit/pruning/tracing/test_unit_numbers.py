"""Arithmetic on unit numbers, worked by hand."""

import torch
from torch import Tensor

from rayprune.pruning.tracing.unit_numbers import NONE, joined, same, spread


def units(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def test_numbers_of_one_unit_are_that_unit_and_of_two_are_none():
    table = torch.tensor([[3, 3], [1, 2], [NONE, 5], [NONE, NONE]])
    assert same(table, [1]).tolist() == [[3], [NONE], [5], [NONE]]


def test_a_row_spreads_over_what_it_is_broadcast_to():
    assert spread(units(0, 1), torch.Size([2, 2])).tolist() == [[0, 1], [0, 1]]
    assert spread(units(NONE, NONE), torch.Size([2, 2])) is None


def test_channels_spread_over_what_they_are_pooled_to():
    channels = torch.tensor([4, 7]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    pooled = spread(channels, torch.Size([1, 2, 2, 2]))
    assert pooled.flatten(2).tolist() == [[[4] * 4, [7] * 4]]


def test_what_is_not_followed_counts_as_units_apart():
    assert spread(units(0, 1, 2), torch.Size([2])).tolist() == [0, 1]


def test_units_that_meet_make_another_and_what_has_none_takes_its_partners():
    found = joined([units(1, NONE, 2), None, units(1, 5, 3)]).tolist()
    assert found[:2] == [1, 5]
    assert found[2] not in (2, 3)
