"""Regrowth under N:M sparsity: weights are swapped within their groups."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import PruningConfig
from rayprune.errors import NonFiniteError
from rayprune.pruning.update.regrowth import drop_and_regrow, drop_count
from tests.unit.pruning.update.regrowing import (
    GROW,
    RIGL,
    copies,
    give_gradients,
    pruner_of,
)


def slowly_swapped(mask, scores, growth, fraction, m):
    """Drop the lowest of all active weights, then regrow group by group: loops over floats."""
    count = drop_count(int(mask.sum()), fraction)
    flat = [(scores[r, c].item(), -r * mask.shape[1] - c, r, c) for r, c in mask.nonzero().tolist()]
    kept = mask.clone()
    for _, _, row, column in sorted(flat)[:count]:
        kept[row, column] = False
    after = kept.clone()
    for row in range(mask.shape[0]):
        for first in range(0, mask.shape[1], m):
            group = range(first, first + m)
            missing = sum(bool(mask[row, c]) - bool(kept[row, c]) for c in group)
            off = [c for c in group if not kept[row, c]]
            off.sort(key=lambda c: (-growth[row, c].item(), c))
            for column in off[:missing]:
                after[row, column] = True
    return after


@pytest.mark.parametrize("kind", ["rigl", "set"])
@given(st.sampled_from(["2:4", "1:4", "1:8"]), st.integers(0, 10**6))
def test_n_of_m_swaps_weights_within_groups_as_a_slow_loop_does(kind, granularity, seed):
    m = int(granularity[-1])
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(2 * m, 6))
    pruner = pruner_of(
        {"kind": kind, "begin": 0, "end": 1000, "every": 100, "drop_fraction": 0.5},
        module=module,
        seed=seed,
        granularity=granularity,
        sparsity=None,
    )
    mask, weight = pruner.masks["0.weight"].clone(), module[0].weight
    growth = give_gradients(pruner, seed)["0.weight"].abs()
    scores, fraction = weight.detach().abs().clone(), 0.5
    if kind == "rigl":
        fraction = 0.25 * (1 + math.cos(math.pi * 0.1))
    change = pruner.update(100)
    after = pruner.masks["0.weight"]
    assert (after.view(-1, m).sum(dim=1) == int(granularity[0])).all()
    assert pruner.violations() == {}
    assert change.sparsity == pytest.approx(1 - int(granularity[0]) / m)
    if kind == "rigl":
        assert torch.equal(after, slowly_swapped(mask, scores, growth, fraction, m))
    else:
        # By chance.
        gone = int((mask & ~after).sum())
        assert gone <= drop_count(int(mask.sum()), fraction)


def test_groups_of_a_kernel_and_of_a_gate_keep_their_pattern():
    torch.manual_seed(0)
    module = nn.ModuleList([nn.Conv2d(8, 4, 3), nn.LSTM(8, 4)])
    pruner = pruner_of({**RIGL, "begin": 0}, module=module, granularity="2:4", sparsity=None)
    before = copies(pruner)
    give_gradients(pruner)
    pruner.update(100)
    for name, mask in pruner.masks.items():
        groups = mask.movedim(1, -1).reshape(-1, 4)
        assert (groups.sum(dim=1) == 2).all(), name
        assert not torch.equal(mask, before[name])


def test_units_can_not_be_swapped():
    faults = PruningConfig.faults_of({"granularity": "neuron", "schedule": RIGL, "sparsity": 0.5})
    assert any("must be 'weight' or n:m, such as '2:4', but is 'neuron'" in x for x in faults)
    grow_faults = PruningConfig.faults_of({"granularity": "2:4", "schedule": GROW})
    assert any("grows single weights" in fault for fault in grow_faults)


def test_a_nan_in_the_gradients_of_groups_is_refused():
    mask = torch.tensor([[True, False], [True, False]])
    growth = torch.tensor([[0.0, math.nan], [0.0, 1.0]])
    with pytest.raises(NonFiniteError, match="'w' is NaN"):
        drop_and_regrow(mask, torch.ones(2, 2), growth, 0.5, "w", in_rows=True)
