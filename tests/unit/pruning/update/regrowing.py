"""Small nets that drop and regrow, for the tests of regrowth."""

import torch
from torch import nn

from rayprune import Pruner, PruningConfig

RIGL = {"kind": "rigl", "begin": 100, "end": 1000, "every": 100, "drop_fraction": 0.5}
SET = {**RIGL, "kind": "set"}
GROW = {"kind": "grow", "begin": 100, "end": 500, "every": 100, "start": 0.9}


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5))


def pruner_of(schedule, module=None, seed=0, **config):
    config = {"sparsity": 0.7, "schedule": schedule, **config}
    pruner = Pruner(module or net(), PruningConfig(**config), seed=seed)
    pruner.start()
    return pruner


def give_gradients(pruner, seed=0):
    generator = torch.Generator().manual_seed(seed)
    gradients = {p: torch.randn(p.shape, generator=generator) for p in pruner.parameters.values()}
    pruner.gather_gradients(gradients)
    return {name: gradients[weight] for name, weight in pruner.parameters.items()}


def active(pruner):
    return {name: int(mask.sum()) for name, mask in pruner.masks.items()}


def copies(pruner):
    return {name: mask.clone() for name, mask in pruner.masks.items()}
