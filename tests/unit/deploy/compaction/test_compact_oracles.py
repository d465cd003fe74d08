"""Compaction beside a slow loop over a chain of layers, and beside Torch-Pruning."""

from __future__ import annotations

import copy
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rayprune import compact
from rayprune.pruning.measures.counting import count_parameters


def a_chain(seed: int, widths: list[int], density: float) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for size, width in pairwise(widths):
        linear = nn.Linear(size, width)
        with torch.no_grad():
            linear.weight *= torch.rand_like(linear.weight) < density
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def widths_left(net: nn.Sequential) -> list[int]:
    """Take one dead unit after the other out of the weights, until there is none."""
    weights = [layer.weight.detach().clone() for layer in net if isinstance(layer, nn.Linear)]
    last = len(weights) - 1
    found = True
    while found:
        found = False
        for place in range(last):
            into, out = weights[place], weights[place + 1]
            for unit in range(into.shape[0]):
                lonely = not into[unit].any() or not out[:, unit].any()
                if lonely and (into[unit].any() or out[:, unit].any()):
                    into[unit] = 0
                    out[:, unit] = 0
                    found = True
    return [max(1, int(weight.any(1).sum())) for weight in weights[:-1]]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**16),
    st.lists(st.integers(1, 8), min_size=2, max_size=4),
    st.sampled_from([0.1, 0.2, 0.4]),
)
def test_a_chain_shrinks_as_far_as_a_slow_loop_over_single_units(seed, hidden, density):
    net = a_chain(seed, [3, *hidden, 2], density)
    small = compact(net, torch.randn(2, 3)).module
    assert [layer.out_features for layer in small if isinstance(layer, nn.Linear)][:-1] == (
        widths_left(net)
    )


class Convolutional(nn.Module):
    """A residual net that Torch-Pruning can follow; no biases, which it would not fold."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.inner = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.back = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.hidden, self.head = nn.Linear(8 * 16, 12, bias=False), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.back(torch.relu(self.inner(x)))
        return self.head(torch.relu(self.hidden(x.flatten(1))))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", ["stem", "inner", "hidden"])
def test_torch_pruning_gives_the_same_network(layer):
    import torch_pruning as tp

    torch.manual_seed(0)
    net, example = Convolutional(), torch.randn(2, 3, 4, 4)
    units = [1, 3]
    # Zeros where Torch-Pruning would cut: the rows of all that are added to each other.
    with torch.no_grad():
        for name in ["stem", "back"] if layer == "stem" else [layer]:
            net.get_submodule(name).weight[units] = 0
    ours = compact(net, example).module
    theirs = copy.deepcopy(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=example)
        cut = tp.prune_linear_out_channels if layer == "hidden" else tp.prune_conv_out_channels
        graph.get_pruning_group(theirs.get_submodule(layer), cut, idxs=units).prune()
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: p.shape for n, p in theirs.named_parameters()
    }
    for name, parameter in theirs.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(name)), name
    assert count_parameters(ours).total < count_parameters(net).total
