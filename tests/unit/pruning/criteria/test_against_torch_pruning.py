"""Scores of units against Torch-Pruning's, where it has the same criterion."""

import pytest
import torch
import torch_pruning as tp
from torch import nn

from rayprune import Pruner, PruningConfig


def net():
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5))


def loss(module, x):
    return module(x).square().sum(-1).mean()


def theirs(module, x, importance, place, function):
    """Score a layer's own output units; what they are connected to is left out."""
    graph = tp.DependencyGraph().build_dependency(module, example_inputs=x)
    layer = module[place]
    group = graph.get_pruning_group(layer, function, idxs=list(range(layer.weight.shape[0])))
    own = type(group)()
    own._group = [item for item in group if item.dep.target.module is layer]
    own._DG = group._DG
    return importance(own)


PLACES = [(0, "prune_conv_out_channels"), (3, "prune_linear_out_channels")]


@pytest.mark.parametrize(("place", "function"), PLACES)
@pytest.mark.parametrize("p", [1, 2])
def test_units_by_magnitude_score_as_in_torch_pruning(place, function, p):
    module, x = net(), torch.randn(8, 2, 6, 6)
    importance = tp.importance.GroupMagnitudeImportance(
        p=p, group_reduction="mean", normalizer=None, bias=False
    )
    exact = theirs(module, x, importance, place, getattr(tp, function))
    scores = Pruner(module, PruningConfig(sparsity=0.5, criterion=f"l{p}")).scores()
    ours = scores[f"{place}.weight"].flatten(1).sum(dim=1)
    torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize(("place", "function"), PLACES)
def test_units_by_taylor_go_in_torch_prunings_order(place, function):
    module, x = net(), torch.randn(8, 2, 6, 6)
    importance = tp.importance.GroupTaylorImportance(
        group_reduction="mean", normalizer=None, multivariable=True, bias=False
    )
    loss(module, x).backward()
    exact = theirs(module, x, importance, place, getattr(tp, function))
    units = exact.numel()
    for keep in range(1, units):
        other = net()
        other.load_state_dict(module.state_dict())
        sparsities = {str(place): 1 - keep / units, str(3 - place): 0.0}
        config = PruningConfig(criterion="taylor", granularity="neuron", distribution=sparsities)
        pruner = Pruner(other, config)
        pruner.prune_to(batch=x, loss=loss)
        kept = pruner.masks[f"{place}.weight"].flatten(1).any(dim=1)
        assert float(exact[kept].min()) > float(exact[~kept].max())
