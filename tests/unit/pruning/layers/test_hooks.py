"""What the activation of a unit is, whoever looks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rayprune.pruning.evidence.layer_calls import recording
from rayprune.pruning.layers.attach import make_maskable
from rayprune.pruning.layers.hooks import hooked, unit_axis, unit_means, unit_rows
from rayprune.pruning.measures.activity_hooks import ActivityHooks


class Transposed(nn.Module):
    """A norm in another layout, as RLlib's `LayerNorm1D` is for images."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(units)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def seen_by_all(net: nn.Module, x: Tensor) -> Tensor:
    """Return the activation of the first layer, which criteria and plasticity see alike."""
    make_maskable(net)
    layers = {"0": net[0]}
    watching = ActivityHooks(net, layers, states=10_000)
    with recording(net, layers, edges=False, activations=True) as record:
        net(x)
    watching.end_step()
    watching.remove()
    (call,) = record.calls["0"]
    rows = unit_rows(call.activation, unit_axis(net[0]))
    assert torch.equal(watching.features()["0"], rows)
    return call.activation


@pytest.mark.parametrize(
    ("after", "last"),
    [
        ((), 0),
        ((nn.ReLU(),), 1),
        ((nn.PReLU(),), 1),
        ((nn.LayerNorm(6), nn.ReLU()), 2),
        ((nn.BatchNorm1d(6), nn.ReLU(inplace=True)), 2),
        ((nn.LayerNorm(6),), 1),
        ((nn.ReLU(), nn.LayerNorm(6)), 1),
        ((nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm(6), nn.ReLU()), 2),
        ((nn.GLU(),), 0),
        ((nn.Dropout(), nn.ReLU()), 0),
    ],
    ids=lambda given: "-".join(type(m).__name__ for m in given) if isinstance(given, tuple) else "",
)
def test_a_units_activation_is_behind_norm_and_nonlinearity_and_no_further(
    after: tuple[nn.Module, ...], last: int
) -> None:
    net = nn.Sequential(nn.Linear(4, 6), *after)
    x = torch.randn(5, 4)
    found = seen_by_all(net, x)
    if last == 0 or not isinstance(after[0], nn.BatchNorm1d):
        assert torch.equal(found, net[: last + 1](x).detach())
    assert bool((found >= 0).all()) or not any(isinstance(m, nn.ReLU) for m in after[:last])


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_a_norm_in_another_layout_is_passed_and_units_are_filters(kind: type[nn.Module]) -> None:
    net = nn.Sequential(kind(2, 3, 2), Transposed(3), nn.ReLU())
    x = torch.randn(4, 2, 5) if kind is nn.Conv1d else torch.randn(4, 2, 5, 5)
    found = seen_by_all(net, x)
    assert torch.equal(found, net(x).detach())
    axis = unit_axis(net[0])
    assert torch.equal(unit_means(found, axis), found.flatten(2).mean(2))
    assert torch.equal(unit_rows(found, axis), found.movedim(1, -1).reshape(-1, 3))
    assert torch.equal(unit_means(found[0], axis), found[:1].flatten(2).mean(2))  # without a batch


def test_hooks_go_when_the_forward_fails() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), hooked([net], lambda *_: None):
        net(torch.zeros(3))
    assert not net._forward_hooks
