"""`Quantiser`: quantisation-aware training of one module, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import nn

from rayprune.errors import ConfigError
from rayprune.pruning.checks import listed
from rayprune.pruning.layers.attach import Exclusions, is_maskable, not_excluded
from rayprune.pruning.layers.masked import MaskedLayer
from rayprune.pruning.layers.subclasses import masked_class, plain_class
from rayprune.pruning.quantisation.config import QuantisationConfig
from rayprune.pruning.quantisation.layers import (
    BUFFERS,
    FROZEN,
    OBSERVING,
    OFF,
    QUANTISED,
    QuantisedLayer,
)
from rayprune.pruning.quantisation.rounding import rounded, weight_grid

DEFAULT_HORIZON = 200_000
Chosen = Callable[[str], bool]
"""Whether a layer of that name is quantised."""


class Quantiser:
    """Quantises one module by one config; the caller tells it the time.

    It changes the classes of layers in place: parameters keep their identity, names and optimizer
    state. Masks and `rayprune.Pruner` may come before or after.

    Args:
        module: any with Linear layers or convolutions; not wrapped in DDP.
        config: or a mapping of a `QuantisationConfig`'s fields; assign `config` to change it.
        layers: whether a layer of a name is to be quantised; None for all.
        exclude: modules or glob patterns that are not touched, such as target networks.
        horizon: env steps of the whole run, which fractions refer to.

    Raises:
        ConfigError: a layer can't be quantised and isn't skipped; or none is left.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> quantiser = Quantiser(net, QuantisationConfig(start=100, freeze=200))
    >>> quantiser.update(99), quantiser.update(100), quantiser.update(150), quantiser.update(200)
    (False, True, False, True)
    >>> net[0].precision.phase == FROZEN, net[0].precision.weights
    (True, 8)
    """

    def __init__(
        self,
        module: nn.Module,
        config: QuantisationConfig | Mapping[str, Any],
        *,
        layers: Chosen | None = None,
        exclude: Exclusions = (),
        horizon: int = DEFAULT_HORIZON,
    ) -> None:
        self.config = (
            config
            if isinstance(config, QuantisationConfig)
            else QuantisationConfig.from_dict(config)
        )
        self.horizon = horizon
        faults = faults_of(module, self.config, layers=layers, exclude=exclude)
        if faults:
            raise ConfigError(faults)
        chosen = candidates(module, layers, exclude)
        names = [name for name in chosen if not skipped(name, self.config)]
        make_quantisable(module, names)
        self.layers = {name: cast("QuantisedLayer", module.get_submodule(name)) for name in names}
        """The layers that are quantised, by name, in the module's order."""

    def update(self, clock: float) -> bool:
        """Do what the time asks for: begin to round, or hold the ranges.

        Args:
            clock: lifetime env steps, or updates where none are sampled.

        Returns:
            Whether layers compute otherwise from now on.
        """
        phase = self.phase_at(clock)
        for layer in self.layers.values():
            layer.follow = self.config.follow
        changed = [
            layer.tell(phase, self.config.weights, bits)
            for layer, bits in zip(self.layers.values(), self._activation_bits(), strict=True)
        ]
        return any(changed)

    def phase_at(self, clock: float) -> int:
        """Return the phase that a time is in: `OFF`, `OBSERVING` or `FROZEN`."""
        start, freeze = self.config.times(self.horizon)
        if clock < start:
            return OFF
        return OBSERVING if clock < freeze else FROZEN

    def _activation_bits(self) -> list[int | None]:
        config = self.config
        if config.activations is None:
            return [None] * len(self.layers)
        return [config.observations, *[config.activations] * (len(self.layers) - 1)]


def candidates(
    module: nn.Module, layers: Chosen | None = None, exclude: Exclusions = ()
) -> dict[str, nn.Module]:
    """Return the layers with weights that are to be quantised, whether they can be or not."""
    return {
        name: layer
        for name, layer in not_excluded(module, exclude)
        if is_maskable(layer) and (layers is None or layers(name))
    }


def faults_of(
    module: nn.Module,
    config: QuantisationConfig,
    *,
    layers: Chosen | None = None,
    exclude: Exclusions = (),
) -> list[str]:
    """Return why a module can't be quantised as a config says; see `Quantiser`."""
    found = candidates(module, layers, exclude)
    unmatched = [p for p in config.skip if not any(fnmatchcase(name, p) for name in found)]
    faults = [
        f"`quantise.skip` names {pattern!r}, which matches no layer. There are {listed(found)}."
        for pattern in unmatched
    ]
    left = {name: layer for name, layer in found.items() if not skipped(name, config)}
    unable = {name: layer for name, layer in left.items() if quantised_class(layer) is None}
    if unable:
        kinds = sorted({type(layer).__name__.removeprefix("Masked") for layer in unable.values()})
        faults.append(
            f"`quantise` can't be done to {listed(unable)} ({', '.join(kinds)}): Linear layers and "
            "convolutions of torch's own classes can be quantised. Name the others in "
            "`quantise.skip`, and they stay in floating point."
        )
    elif not left:
        faults.append("`quantise` leaves no layer to quantise: `quantise.skip` names all of them.")
    return faults


def skipped(name: str, config: QuantisationConfig) -> bool:
    """Whether a config leaves a layer in floating point."""
    return any(fnmatchcase(name, pattern) for pattern in config.skip)


def quantised_class(layer: nn.Module) -> type[nn.Module] | None:
    """Return the class that a layer has once it rounds; None where there is none.

    >>> quantised_class(nn.Linear(1, 1)).__name__, quantised_class(nn.LSTM(1, 1))
    ('QuantisedLinear', None)
    """
    if isinstance(layer, QuantisedLayer):
        return type(layer)
    if not isinstance(layer, MaskedLayer):
        return QUANTISED.get(type(layer))
    plain = QUANTISED.get(plain_class(layer) or type(layer))
    return None if plain is None else masked_class(plain)


def make_quantisable(module: nn.Module, names: Iterable[str]) -> None:
    """Give layers the classes that can round, in place; they compute as before until told."""
    for name in names:
        layer = module.get_submodule(name)
        kind = quantised_class(layer)
        if kind is None or isinstance(layer, QuantisedLayer):
            continue
        device = next(layer.parameters()).device
        layer.register_buffer(BUFFERS[0], torch.zeros(3, device=device))
        layer.register_buffer(BUFFERS[1], torch.zeros(2, device=device))
        layer.__class__ = kind


def quantised_layers(module: nn.Module) -> dict[str, QuantisedLayer]:
    """Return the layers of a module that round now, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, QuantisedLayer) and layer.precision.phase != OFF
    }


def told_layers(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what a record says of the layers of a module that round, by name; JSON only.

    >>> net = nn.Sequential(nn.Linear(1, 1))
    >>> _ = Quantiser(net, QuantisationConfig(start=0)).update(0)
    >>> told_layers(net)
    {'0': {'weights': 8, 'activations': 16, 'range': [0.0, 0.0], 'frozen': False}}
    """
    return {
        name: {
            "weights": layer.precision.weights,
            "activations": layer.precision.activations or None,
            "range": layer.activation_range.tolist(),
            "frozen": layer.precision.phase == FROZEN,
        }
        for name, layer in quantised_layers(module).items()
    }


@torch.no_grad()
def fix(module: nn.Module) -> nn.Module:
    """Put rounded weights into the place of the weights, and hold everything as it is, in place.

    For who reads what a policy is in whole numbers. A layer in full precision becomes torch's own.
    """
    for layer in [part for part in module.modules() if isinstance(part, QuantisedLayer)]:
        told, grid = layer.precision, layer.grid
        if told.phase == OFF:
            _restore(layer)
            continue
        layer.step = weight_grid(layer.weight, told.weights).step.flatten()
        layer.weight.copy_(rounded(layer.weight, weight_grid(layer.weight, told.weights)))
        layer.fixed = told._replace(phase=FROZEN, grid=grid)
    return module


@torch.no_grad()
def with_rounded_weights(module: nn.Module) -> nn.Module:
    """Turn layers that round into torch's own, in place: with rounded weights.

    What they read is in floating point then. For graphs of floats: where two of them add in another
    order, one may round up what the other rounds down, and no tolerance would hold.

    >>> net = nn.Sequential(nn.Linear(1, 1))
    >>> _ = Quantiser(net, QuantisationConfig(weights=4, start=0)).update(0)
    >>> with_rounded_weights(net)
    Sequential(
      (0): Linear(in_features=1, out_features=1, bias=True)
    )
    """
    for layer in [part for part in module.modules() if isinstance(part, QuantisedLayer)]:
        told = layer.precision
        if told.phase != OFF:
            layer.weight.copy_(rounded(layer.weight, weight_grid(layer.weight, told.weights)))
        _restore(layer)
    return module


def _restore(layer: QuantisedLayer) -> None:
    for name in BUFFERS:
        delattr(layer, name)
    masked = isinstance(layer, MaskedLayer)
    kind = plain_class(layer) if isinstance(layer, MaskedLayer) else type(layer)
    plain = next(plain for plain, quantised in QUANTISED.items() if quantised is kind)
    layer.__class__ = masked_class(plain) if masked else plain  # type: ignore[assignment]


def is_quantisation(name: str) -> bool:
    """Whether a name in a state dict is of what quantised layers hold beside torch's.

    >>> is_quantisation("pi.0.quantisation"), is_quantisation("pi.0.weight")
    (True, False)
    """
    return name.rpartition(".")[2] in BUFFERS


def without_quantisation(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict without what quantised layers hold beside torch's."""
    return {name: value for name, value in state.items() if not is_quantisation(name)}
