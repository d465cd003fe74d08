"""Operators that take units by position or lay them out in sizes that are written down."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rayprune import compact

CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "slice": lambda y: y[:, 4:12],
    "slice from the end": lambda y: y[:, -12:-4],
    "slice by threes": lambda y: y[:, ::3],
    "narrow": lambda y: y.narrow(1, 3, 9),
    "select": lambda y: y[:, 7, None] * y[:, -3, None],
    "split in fives": lambda y: torch.cat(y.split(5, 1)[1:3], 1),
    "split": lambda y: torch.cat([*y.split([3, 9, 4], 1)[1:], y[:, :2]], 1),
    "chunk": lambda y: y.chunk(3, 1)[1],
    "view": lambda y: torch.mul(*y.view(-1, 2, 8).unbind(1)),
    "unflatten": lambda y: y.unflatten(1, (2, 8))[:, 1],
    "index": lambda y: y[:, torch.arange(15, 2, -1)],
    "index_select": lambda y: y.index_select(1, torch.tensor([2, 3, 11, 14, 3])),
    "flip": lambda y: y.flip(1)[:, :7],
    "roll": lambda y: y.roll(3, 1)[:, :7],
    "written constant": lambda y: y + 0.1 * torch.arange(16),
}


class Cut(nn.Module):
    def __init__(self, cut: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.a, self.b, self.cut = nn.Linear(3, 16), nn.Linear(width, 2), cut

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.cut(self.a(x)))


@pytest.mark.parametrize("name", CUTS)
def test_units_go_although_others_are_taken_by_position(name):
    cut = CUTS[name]
    torch.manual_seed(0)
    net = Cut(cut, cut(torch.zeros(1, 16)).shape[1]).requires_grad_(False)
    read = cut(torch.arange(16.0)[None])[0] if "view" not in name else torch.arange(8)
    dead = torch.tensor([0, 4, 5, 8, 12, 13])  # halves lose the same
    net.a.weight[dead] = net.a.bias[dead] = 0
    if name not in ("select", "written constant", "view"):
        net.b.weight[:, torch.isin(read, dead.float())] = 0
    if name == "view":
        net.b.weight[:, [0, 4, 5]] = 0
    small = compact(net, torch.randn(3, 3))
    assert small.max_error <= 1e-5
    assert small.module.a.out_features < 16
    if "view" in name:
        assert small.module.a.out_features == 10
