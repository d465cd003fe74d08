"""What a granularity asks of the very layers: that M divides them, that no weight is shared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

from torch import nn

from rayprune.errors import ConfigError, InputError
from rayprune.pruning.checks import listed
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity import NofM, parse, undivided
from rayprune.pruning.granularity.removable import find_units
from rayprune.pruning.granularity.sensors import Sensors
from rayprune.pruning.layers.prunable import PrunableLayer, protected_names


def subjects(
    config: PruningConfig,
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    heads: Collection[str],
    tied: Collection[str],
    sensors: Callable[[], Sensors] | None,
) -> tuple[PrunableLayer, ...]:
    """Return the layers that a granularity can prune; all others are exempt.

    Args:
        config: names the granularity.
        module: holds them.
        layers: the maskable layers that may be pruned at all.
        heads: names of layers of which no unit can go.
        tied: names of layers that share a weight with another.
        sensors: tells which layers read the observation.

    Raises:
        ConfigError: nothing tells, or there are none.
    """
    if config.granularity == "neuron":
        return _hidden(layers, heads)
    if config.granularity == "layer":
        return _in_units(config, module, layers, [*heads, *tied])
    if config.granularity != "input":
        return tuple(layers)
    if sensors is None:
        raise ConfigError(
            "`granularity` 'input' needs to know which layers read the observation: pass "
            "Pruner(sensors=...), see rayprune.pruning.granularity.sensors.find_sensors."
        )
    try:
        columns = sensors().columns
    except InputError as error:
        raise ConfigError(f"`granularity` can't be 'input': {error}") from error
    return tuple(
        dataclasses.replace(layer, columns=columns[layer.name])
        for layer in layers
        if layer.name in columns
    )


def _hidden(layers: Sequence[PrunableLayer], heads: Collection[str]) -> tuple[PrunableLayer, ...]:
    hidden = tuple(layer for layer in layers if layer.name not in heads)
    if layers and not hidden:
        raise ConfigError(
            f"`granularity` can't be 'neuron': the units of {listed(x.name for x in layers)} are "
            "the network's own outputs, and none can go. Choose 'weight', or add a hidden layer."
        )
    return hidden


def _in_units(
    config: PruningConfig,
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    barred: Collection[str],
) -> tuple[PrunableLayer, ...]:
    if config.criterion == "return":
        # Without its critic a policy acts as before; what it would learn, no return tells.
        layers = [layer for layer in layers if layer.group != "value"]
    units = find_units(module, {layer.name: layer.module for layer in layers}, barred)
    by_layer = {name: unit for unit in units for name in unit.layers}
    if not by_layer:
        raise ConfigError(
            "`granularity` can't be 'layer': the network has no residual block and no layer whose "
            "output is shaped like its input. Choose PrunableResidualCNN or hidden layers of one "
            "width, or another granularity."
        )
    return tuple(
        dataclasses.replace(layer, unit=by_layer[layer.name])
        for layer in layers
        if layer.name in by_layer
    )


def structure_faults(
    config: PruningConfig, layers: Sequence[PrunableLayer], tied: Collection[str]
) -> list[str]:
    """Return why these layers can't be pruned at the config's granularity.

    Args:
        config: sound in itself.
        layers: the prunable layers, protected ones included.
        tied: names of layers that share a weight with another.
    """
    protected = protected_names(layers, config.protect)
    free = [layer for layer in layers if layer.name not in protected]
    pattern = parse(config.granularity)
    if pattern is not None:
        return _undivided(config.granularity, pattern, free)
    if config.granularity == "input":
        return _still_read(sorted(protected))
    if config.granularity in ("neuron", "hybrid"):
        return _tied(config.granularity, [x.name for x in free if x.name in tied])
    return []


def _undivided(granularity: str, pattern: NofM, layers: Sequence[PrunableLayer]) -> list[str]:
    sizes = {x.name: undivided(x.module, x.parameters, pattern) for x in layers}
    wrong = {name: size for name, size in sizes.items() if size is not None}
    if not wrong:
        return []
    each = "; ".join(f"{name!r} has {size} inputs" for name, size in wrong.items())
    return [
        f"`pruning.granularity` {granularity!r} needs layers whose inputs {pattern.m} divides, but "
        f"{each}. List {'it' if len(wrong) == 1 else 'them'} under `pruning.protect`, or take "
        "another M."
    ]


def _still_read(protected: Sequence[str]) -> list[str]:
    if not protected:
        return []
    return [
        f"`pruning.protect` can't hold {listed(protected)} with granularity 'input': a protected "
        "layer would go on reading every sensor. Leave it out."
    ]


def _tied(granularity: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [
        f"`pruning.granularity` {granularity!r} can't remove units of {listed(names)}, whose "
        "weights are tied: a row is a unit of one layer and not of the other. List them under "
        "`pruning.protect`, or take granularity 'weight'."
    ]
