"""Compaction of random SimBa-like, gated, MobileNet-like and transformer-like networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rayprune import compact
from rayprune.deploy.compaction.plan import apply_plan
from rayprune.deploy.compaction.proof import error_between
from rayprune.deploy.compaction.trace import tensors_in
from tests.unit.deploy.compaction.modern_nets import FAMILIES, drawn, inputs

STREAMS = ("first", "down", "block.6", ".3", "inner.2", "o", "out_proj")


def check(family: str, seed: int) -> None:
    net = drawn(family, seed)
    small = compact(net, inputs(family))
    with torch.no_grad():
        unseen = inputs(family, batch=4)
        assert error_between(net(unseen), small.module(unseen)) <= 1e-5
        net = net.double()
        again = apply_plan(copy.deepcopy(net), small.plan)
        assert error_between(net(unseen.double()), again(unseen.double())) <= 1e-12
    assert small.left or not dead_units(small.module, inputs(family))


@torch.no_grad()
def dead_units(module: nn.Module, x: Tensor) -> list[tuple[str, int]]:
    """Return the units that no weight reaches, or that may be anything: by layer and place.

    As if the heads read all of a stream: what no head reads of it, a block before them may. And
    as if no rectifier held anything back: only weights count.
    """
    module, found = copy.deepcopy(module), []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and name.startswith(("out", "heads")):
            layer.weight.normal_()
        if isinstance(layer, (nn.ReLU, nn.ReLU6)):
            layer.forward = bent
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and not name.startswith(("out", "heads")):
            axis = -1 if isinstance(layer, nn.Linear) else 1
            lonely = (layer.weight == 0).flatten(1).all(1)
            units = range(len(lonely)) if len(lonely) > 1 else ()
            # What a stream is not read of behind a block may be read before it.
            apart = not name.endswith(STREAMS)
            found += [
                (name, unit)
                for unit in units
                if lonely[unit] or (apart and ignored(module, x, layer, axis, unit))
            ]
    return found


def bent(x: Tensor) -> Tensor:
    """Bend, but hold nothing back: of what is straight the mean behind a norm says nothing."""
    return x * torch.sigmoid(x / 50)


def ignored(module: nn.Module, x: Tensor, layer: nn.Module, axis: int, unit: int) -> bool:
    """Whether the outputs are the same, whatever a unit of a layer puts out."""

    def disturb(_: nn.Module, __: object, output: Tensor) -> Tensor:
        # So large, and so often, that no rectifier holds all of it back.
        noise = 100 * torch.randn_like(output.select(axis, unit))
        return output.clone().select_scatter(noise, axis, unit)

    handle = layer.register_forward_hook(disturb)
    seen = [tensors_in(module(x)) for _ in range(12)]
    handle.remove()
    return all(torch.equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hundred_networks_compute_the_same_without_their_dead_units(family):
    for seed in range(25):
        check(family, seed)


def test_a_layer_whose_units_another_ones_last_unit_needs_keeps_no_last_unit_besides():
    check("mobilenet", 700417)


@pytest.mark.matrix
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("family", FAMILIES)
def test_two_thousand_networks_compute_the_same_without_their_dead_units(family, part):
    for seed in range(50 * part, 50 * part + 50):
        check(family, 1000 + seed)
