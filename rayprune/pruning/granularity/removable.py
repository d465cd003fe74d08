"""Which parts of a network can go whole: residual branches, and layers of one width.

A residual block says so by a class attribute ``residual_branch``, the names of the children whose
output is added to the block's input. With all their weights zero, and no biases, the block is
exactly the identity.

A Linear with as many inputs as outputs, or a convolution that keeps channels and size, goes by
becoming the identity, with a zero bias. That is a network of the same class, which needs no wrapper
to be saved, synchronised, exported or read by plain RLlib; its n ones are counted as weights that
are left. What follows it stays: after a
ReLU a second one changes nothing, so that layer and activation can be dropped together; a second
tanh does change its input, and stays as an activation without weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from torch import nn

from rayprune.errors import ConfigError
from rayprune.pruning.layers.attach import join
from rayprune.pruning.layers.identity import can_be_identity, identity_weight
from rayprune.pruning.layers.masked import MaskedLayer
from rayprune.pruning.layers.prunable import Unit


def find_units(
    module: nn.Module, layers: Mapping[str, MaskedLayer], barred: Collection[str]
) -> list[Unit]:
    """Return the units of a module.

    Args:
        module: holds the layers.
        layers: those that can be pruned, by name.
        barred: names of layers that can't become the identity: output heads, tied ones.

    Raises:
        ConfigError: a residual branch has a bias.
    """
    units = list(_blocks(module, layers))
    inside = {name for unit in units for name in unit.layers}
    units += [
        Unit(name, (name,), identity=True)
        for name, layer in layers.items()
        if can_be_identity(layer) and name not in inside and name not in barred
    ]
    return units


def without(weights: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    """Return a module's weights as they are without a unit.

    Args:
        weights: NumPy arrays or CPU tensors by full name.
        unit: of that module.

    Returns:
        The same mapping, with new arrays for the unit's parameters.
    """
    changed = dict(weights)
    for layer in unit.layers:
        for name, value in weights.items():
            if name == join(layer, "weight") or name.startswith(f"{layer}.weight_"):
                held = np.asarray(value)
                changed[name] = _gone(held, unit)
            elif name == join(layer, "bias"):
                changed[name] = np.zeros_like(np.asarray(value))
    return changed


def _gone(weight: np.ndarray[Any, Any], unit: Unit) -> np.ndarray[Any, Any]:
    if unit.identity:
        return identity_weight(weight.shape).numpy().astype(weight.dtype)
    return np.zeros_like(weight)


def _blocks(module: nn.Module, layers: Mapping[str, MaskedLayer]) -> Iterable[Unit]:
    for name, block in module.named_modules():
        branch = getattr(type(block), "residual_branch", None)
        if branch is None:
            continue
        roots = [join(name, child) for child in branch]
        inside = [
            layer
            for layer in layers
            if any(layer == root or layer.startswith(f"{root}.") for root in roots)
        ]
        biased = [layer for layer in inside if getattr(layers[layer], "bias", None) is not None]
        if biased:
            raise ConfigError(
                f"`granularity` 'layer' can't remove block {name!r}: {biased[0]!r} in its "
                "`residual_branch` has a bias, so zero weights don't make it the identity. Build "
                "it with bias=False, or list it under `protect`."
            )
        if inside:
            yield Unit(name, tuple(inside), identity=False)
