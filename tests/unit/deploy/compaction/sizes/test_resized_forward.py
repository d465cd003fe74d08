"""Forwards with sizes written into them: they get others, and nothing else changes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rayprune import compact
from rayprune.deploy.compaction.proof import error_between
from rayprune.errors import InputError

DEAD = torch.arange(0, 16, 2)


class Gated(nn.Module):
    """Halves by position, constants of a written size, and a block that is turned around."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.out = nn.Linear(6, 32), nn.Linear(16, 3)
        with torch.no_grad():
            for rows in (DEAD, DEAD + 16):
                self.both.weight[rows] = self.both.bias[rows] = 0
            self.out.weight[:, turned(DEAD)] = 0

    def forward(self, x: Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        batch, time, _ = x.shape
        both = self.both(x)
        gated = both[:, :, :16] * torch.sigmoid(both[..., 16:])
        gated = gated + scale * torch.arange(16) * torch.zeros(batch, time, 16)
        block = gated.view(batch * time, 2, 8).transpose(1, 2).reshape(batch, time, 16)
        return {"out": self.out(block), "batch": batch}


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gated, self.head = Gated(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.gated(x, scale=2.0)["out"]))


def turned(units: Tensor) -> Tensor:
    order = torch.arange(16).view(2, 8).T.flatten()
    return torch.isin(order, units).nonzero().flatten()


@pytest.fixture(scope="module")
def pair() -> tuple[Around, Around]:
    torch.manual_seed(0)
    net = Around().eval().requires_grad_(False)
    return net, compact(net, torch.randn(2, 5, 6)).module


def test_sizes_in_a_part_are_rewritten_for_any_batch_and_time(pair):
    net, small = pair
    assert small.gated.both.out_features == 16
    assert isinstance(small.gated, Gated)
    assert type(small) is Around
    x = torch.randn(7, 3, 6)
    assert error_between(net(x), small(x)) <= 1e-6


def test_a_resized_module_is_copied_pickled_and_exported_under_its_old_names(pair):
    net, small = pair
    x = torch.randn(7, 3, 6)
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert error_between(net(x), other(x)) <= 1e-6
        assert list(other.state_dict()) == list(net.state_dict())
    dims = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("time")},)
    exported = torch.export.export(small, (x,), dynamic_shapes=dims).module()
    x = torch.randn(4, 8, 6)
    assert error_between(net(x), exported(x)) <= 1e-6


def test_a_resized_forward_refuses_arguments_that_it_was_not_traced_with(pair):
    with pytest.raises(InputError, match="takes arguments of that form only"):
        pair[1].gated(torch.randn(2, 5, 6), scale=3.0)


def test_what_is_no_modules_forward_keeps_its_units_and_says_why():
    net = Gated().requires_grad_(False)
    small = compact(net, torch.randn(2, 5, 6), forward=lambda module, x: Gated.forward(module, x))
    assert not small.removed
    assert "written into the forward (that is no module's own)" in small.left[0].reason
