"""`MaskStore.commit`: what a decision does to masks, weights and the report."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.attach import make_maskable, maskable_layers
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.store import Around, MaskStore, Operation


def store_of(*weights: list[float]) -> MaskStore:
    net = nn.Sequential(*(nn.Linear(len(w), 1, bias=False) for w in weights))
    with torch.no_grad():
        for layer, values in zip(net, weights, strict=True):
            layer.weight.copy_(torch.tensor([values]))
    layers = maskable_layers(make_maskable(net))
    return MaskStore([PrunableLayer(name, layer, "all") for name, layer in layers.items()])


def mask(*kept: int) -> Tensor:
    return torch.tensor([kept], dtype=torch.bool)


@torch.no_grad()
def test_what_is_not_kept_is_masked_zeroed_and_counted() -> None:
    store = store_of([1.0, 2.0, 3.0, 4.0], [5.0, 6.0])
    change = store.commit({"0.weight": mask(0, 1, 1, 0)}, {}, step=7.0)
    assert (change.step, change.pruned, change.grown, change.changed) == (7.0, 2, 0, ("0.weight",))
    assert change.churn == change.sparsity == 2 / 6
    assert store.weight("0.weight").tolist() == [[0.0, 2.0, 3.0, 0.0]]
    assert store.masks["0.weight"].tolist() == [[False, True, True, False]]
    assert store.mask("1.weight") is None  # nothing was decided of it
    assert store.commit({"0.weight": mask(0, 1, 1, 0)}, {}).changed == ()  # gone already


@torch.no_grad()
def test_drops_come_before_growth_and_both_are_churn() -> None:
    store = store_of([1.0, 2.0, 3.0, 4.0])
    store.commit({"0.weight": mask(0, 1, 1, 1)}, {})
    change = store.commit({"0.weight": mask(1, 0, 1, 1)}, {"0.weight": mask(1, 0, 0, 0)})
    assert (change.pruned, change.grown, change.churn, change.sparsity) == (1, 1, 0.5, 0.25)
    assert change.regrown["0.weight"].tolist() == mask(1, 0, 0, 0).tolist()
    assert store.weight("0.weight").tolist() == [[0.0, 0.0, 3.0, 4.0]]  # what grew is zero still
    assert store.commit({}, {"0.weight": mask(0, 0, 0, 0)}).changed == ()


@torch.no_grad()
def test_what_fades_goes_on_at_each_commit_and_can_not_be_chosen_again() -> None:
    store, in_three = store_of([8.0, 8.0]), Operation(updates=3, factor=0.5)
    first = store.commit({"0.weight": mask(0, 1)}, {}, operation=in_three)
    assert (first.pruned, first.changed) == (0, ())
    assert store.eligible("0.weight").tolist() == [[False, True]]
    assert store.weight("0.weight").tolist() == [[4.0, 8.0]]
    store.commit({"0.weight": mask(0, 1)}, {}, operation=in_three)
    assert store.weight("0.weight").tolist() == [[2.0, 8.0]]
    assert store.commit({}, {}, operation=in_three).pruned == 1
    assert store.weight("0.weight").tolist() == [[0.0, 8.0]]


@torch.no_grad()
def test_before_a_drop_comes_for_all_that_is_decided_and_after_it_where_weights_went() -> None:
    store, seen = store_of([1.0, 2.0], [3.0, 4.0]), []
    around = Around(
        [lambda name, weight: seen.append((name, weight.sum().item()))],
        [lambda name, weight: seen.append((name, weight.sum().item())), lambda *_: 3.0],
    )
    keeps = {"0.weight": mask(1, 1), "1.weight": mask(0, 1)}
    change = store.commit(keeps, {}, around=around)
    assert seen == [("0.weight", 3.0), ("1.weight", 7.0), ("1.weight", 4.0)]
    assert change.scales == {"1.weight": 3.0}
