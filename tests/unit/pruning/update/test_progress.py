import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig

LATE = {"kind": "linear", "begin": 1000, "end": 2000, "every": 500}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    )


def pruner_of(**config):
    return Pruner(net(), PruningConfig(schedule=LATE, criterion="l1", **config), heads=["4"])


@pytest.mark.parametrize(
    "config",
    [
        {"sparsity": 0.8},
        {"sparsity": 0.803, "distribution": "uniform"},
        {"sparsity": 0.8, "distribution": "global", "protect": ["4"]},
        {"granularity": "neuron", "sparsity": 0.7, "pooling": "l2"},
        {"granularity": "block", "sparsity": 0.7},
        {"granularity": "2:4"},
        {"granularity": "hybrid", "hybrid": {"neuron": 0.5, "weight": 0.8}},
        {"groups": {"all": {"sparsity": 0.6}}, "sparsity": 0.0},
        {"sparsity": 0.9, "distribution": {"2": 0.5}},
    ],
    ids=str,
)
def test_a_state_from_the_end_has_arrived_long_before_the_schedule_begins(config):
    done = pruner_of(**config)
    assert not done.arrived
    done.update(1500)
    assert not done.arrived
    done.update(2000)
    assert done.arrived
    early = pruner_of(**config)
    early.take_masks(done.masks)
    assert early.arrived
    assert not early.finished(0)
    before = {name: mask.clone() for name, mask in early.masks.items()}
    early.update(2000)
    assert all(torch.equal(mask, before[name]) for name, mask in early.masks.items())


def test_what_is_still_fading_has_not_arrived():
    pruner = pruner_of(sparsity=0.5, operation={"scale": 0.5, "steps": 3})
    pruner.update(2000)
    assert not pruner.arrived
    for step in (2500, 3000):
        pruner.update(step)
    assert pruner.arrived


def test_a_threshold_never_says_that_it_has_arrived():
    pruner = pruner_of(threshold={"absolute": 0.1})
    pruner.update(2000)
    assert pruner.finished(2000)
    assert not pruner.arrived


def test_a_dense_config_has_arrived_and_says_that_it_is_dense():
    pruner = pruner_of(sparsity=0)
    assert pruner.arrived
    assert pruner.config.dense
    for config in (
        {"sparsity": 0.1},
        {"threshold": {"absolute": 0.1}},
        {"sparsity": 0.0, "groups": {"all": {"sparsity": 0.5}}},
        {"sparsity": 0.0, "distribution": {"2": 0.5}},
        {"schedule": {"kind": "gated"}},
        {"granularity": "1:4"},
    ):
        assert not PruningConfig(**config).dense


def test_one_weight_too_many_is_not_there():
    done = pruner_of(sparsity=0.8, distribution="uniform")
    done.update(2000)
    masks = {name: mask.clone() for name, mask in done.masks.items()}
    row, column = (~masks["2.weight"]).nonzero()[0]
    masks["2.weight"][row, column] = True
    early = pruner_of(sparsity=0.8, distribution="uniform")
    early.take_masks(masks)
    assert not early.arrived
