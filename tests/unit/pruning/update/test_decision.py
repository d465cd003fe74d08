"""`decide`: keeps and grows of one mask update, from budgets and evidence, changing nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rayprune.errors import InputError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.evidence.gradients import WindowMean
from rayprune.pruning.layers.attach import make_maskable, maskable_layers
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.store import MaskStore
from rayprune.pruning.update.decision import decide
from rayprune.pruning.update.phases import phases_of
from rayprune.pruning.update.regrowth import DropAndGrow
from rayprune.pruning.update.selection import Selection

SIXTEEN = torch.arange(1.0, 17.0).reshape(4, 4)


def now(target: float) -> float:
    return target


class Case:
    """One layer with weights 1 to 16, its store, and a selection by a config."""

    def __init__(self, **config) -> None:
        net = nn.Sequential(nn.Linear(4, 4, bias=False))
        with torch.no_grad():
            net[0].weight.copy_(SIXTEEN)
        found = maskable_layers(make_maskable(net))
        self.layers = [PrunableLayer(name, layer, "all") for name, layer in found.items()]
        self.store = MaskStore(self.layers)
        self.config = PruningConfig(**config)
        phases = phases_of(self.config, self.layers, frozenset())
        self.targets = [(phase, phase.budgets) for phase in phases]
        self.selection = Selection(self.config, self.store.weights, self.store.eligible, 0, 0)

    def growth(self, means: WindowMean, step: float = 100.0) -> DropAndGrow:
        schedule = self.config.build_schedule(self.config.sparsity)
        masks = self.store.masks
        return DropAndGrow(self.selection, schedule, means, masks, now, step)


def test_the_lowest_scores_go_and_nothing_is_changed() -> None:
    case = Case(sparsity=0.5)
    before = copy.deepcopy(case.store.weight("0.weight"))
    keeps, grows = decide(case.selection, case.targets, now)
    assert torch.equal(keeps["0.weight"], SIXTEEN > 8)
    assert grows == {}
    assert torch.equal(case.store.weight("0.weight"), before)
    assert case.store.masks == {}


def test_a_ramp_and_the_share_of_a_threshold_say_how_much_is_due() -> None:
    case = Case(sparsity=0.5)
    keeps, _ = decide(case.selection, case.targets, lambda target: target / 2)
    assert torch.equal(keeps["0.weight"], SIXTEEN > 4)
    case = Case(sparsity=None, threshold={"absolute": 10.0})
    keeps, _ = decide(case.selection, case.targets, now, share=0.5)
    assert torch.equal(keeps["0.weight"], SIXTEEN > 5)


def test_what_an_earlier_phase_drops_a_later_one_can_not_choose() -> None:
    hybrid = {"neuron": 0.25, "weight": 0.5}
    case = Case(granularity="hybrid", hybrid=hybrid, sparsity=None)
    weights = SIXTEEN.clone()
    weights[0] = torch.tensor([14.5, 0.1, 0.2, 0.3])  # the weakest unit, with a strong weight
    with torch.no_grad():
        case.store.weight("0.weight").copy_(weights)
    keeps, _ = decide(case.selection, case.targets, now)
    # With the first row four more of the others' twelve go: exactly eight stay.
    assert torch.equal(keeps["0.weight"], SIXTEEN > 8)
    alone = Case(granularity="neuron", sparsity=0.25)
    units, _ = decide(alone.selection, alone.targets, now)
    assert torch.equal(units["0.weight"], SIXTEEN > 4)


def test_growth_replaces_what_is_dropped_by_the_largest_gradients() -> None:
    rigl = {"kind": "rigl", "begin": 0, "end": 1000, "every": 100, "drop_fraction": 0.5}
    case = Case(sparsity=0.5, schedule=rigl)
    with torch.no_grad():
        case.store.commit({"0.weight": SIXTEEN > 8}, {})
    means = WindowMean()
    means.add({"0.weight": SIXTEEN.flip(0)}, window=1)
    growth = case.growth(means)
    keeps, grows = decide(case.selection, case.targets, now, growth=growth)
    dropped = (case.store.mask("0.weight") & ~keeps["0.weight"]).sum()
    assert dropped == grows["0.weight"].sum() > 0
    assert not bool((grows["0.weight"] & case.store.mask("0.weight")).any())
    chosen = SIXTEEN.flip(0)[grows["0.weight"]]
    off = ~case.store.mask("0.weight") & ~grows["0.weight"]
    assert chosen.min() > SIXTEEN.flip(0)[off].max()


def test_growth_by_gradient_without_gradients_is_refused_before_anything_grows() -> None:
    case = Case(sparsity=0.5, schedule={"kind": "rigl", "begin": 0, "end": 1000, "every": 100})
    with pytest.raises(InputError, match="gather_gradients"):
        decide(case.selection, case.targets, now, growth=case.growth(WindowMean()))
