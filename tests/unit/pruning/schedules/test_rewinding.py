"""Rewinding gives the early weights back, bit by bit, under the masks of now."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune.errors import CheckpointError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.schedules.rewinding import Snapshot


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def train(module, steps=3):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()


@given(st.floats(0, 0.95))
def test_weights_are_the_snapshots_under_the_mask_and_everything_else_goes_back(sparsity):
    module = network()
    early = {name: value.clone() for name, value in module.state_dict().items()}
    rewinding = Snapshot()
    rewinding.take(module)
    train(module)
    pruner = Pruner(module, PruningConfig(sparsity=sparsity))
    pruner.prune_to()
    rewinding.rewind(module, pruner.masks)
    for name, value in module.state_dict().items():
        mask = pruner.masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value[mask], early[name][mask]), name
        assert torch.equal(value[~mask], torch.zeros_like(value[~mask])), name
    assert pruner.violations() == {}


def test_parameters_keep_their_identity_and_the_snapshot_does_not_follow_them():
    module = network()
    rewinding = Snapshot(skip=("2.",))
    rewinding.take(module)
    held = list(map(id, module.parameters()))
    train(module)
    head = module[2].weight.detach().clone()
    for _ in range(2):
        rewinding.rewind(module, {})
        train(module, steps=0)
    assert list(map(id, module.parameters())) == held
    assert torch.equal(module[2].weight, head)
    assert rewinding.rewinds == 2


def test_a_snapshot_survives_its_plain_form_and_refuses_another_network():
    module, copy = network(), Snapshot()
    rewinding = Snapshot()
    copy.load_state_dict(rewinding.state_dict(), module)
    assert copy.weights is None
    rewinding.take(module)
    copy.load_state_dict(rewinding.state_dict(), module)
    train(module)
    rewinding.rewind(module, {})
    first = [p.clone() for p in module.parameters()]
    train(module)
    copy.rewind(module, {})
    assert all(torch.equal(a, b) for a, b in zip(first, module.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="another network"):
        copy.load_state_dict(rewinding.state_dict(), nn.Linear(4, 8))
