"""Which layers read the observation, and which of their inputs is which sensor: found by running.

A layer reads the observation if its input depends on it through no other prunable layer. The
dependence must be that of a copy (reshaped, permuted, scaled, padded, beside other inputs), so that
a column belongs to one sensor. Each sensor is given a number, and the inputs are read off; nothing
is differentiated, because RLlib's inference runs without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.pruning.layers.attention import OUT
from rayprune.pruning.layers.attention_projections import arranged
from rayprune.pruning.layers.hooks import hooked, unit_axis
from rayprune.pruning.layers.kinds import CONVOLUTIONS, axes_of, kind_of
from rayprune.pruning.layers.masked import prunable_parameters
from rayprune.pruning.layers.parametrised import tensor_name
from rayprune.pruning.layers.prunable import Columns

Run = Callable[[Sequence[Tensor]], object]


@dataclass(frozen=True, slots=True)
class Sensors:
    """The sensors of a module."""

    sizes: tuple[int, ...]
    """How many there are in each leaf of the observation."""
    columns: Mapping[str, Columns]
    """Layer name -> for each sensor the input that reads it."""

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.sizes)


def find_sensors(
    layers: Mapping[str, nn.Module], observations: Sequence[Tensor], run: Run
) -> Sensors:
    """Find the sensors by running the module a few times.

    Args:
        layers: the layers that may read them, by name.
        observations: the leaves of an observation, floats, one of each: vectors, or images with
            the channels last, with as many leading axes of length 1 as ``run`` wants. A vector's
            elements are sensors, and an image's channels where a convolution reads it.
        run: runs all nets of the module on such leaves.

    Raises:
        InputError: a layer reads a mix of sensors, or was not run.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> find_sensors({"0": net[0], "2": net[2]}, [torch.zeros(1, 2)], lambda leaves: net(*leaves))
    Sensors(sizes=(2,), columns={'0': (0, 1)})
    """
    by_element = _numbered(observations, lambda leaf: torch.arange(leaf.numel()).view(leaf.shape))
    by_channel = _numbered(
        observations, lambda leaf: torch.arange(leaf.shape[-1]).expand(leaf.shape)
    )
    ones = _inputs(layers, run, [torch.ones_like(leaf) for leaf in observations])
    missing = sorted(layers.keys() - ones.keys())
    if missing:
        raise InputError(f"Sensors can't be found: layers {missing} did not run.")
    element = _read(layers, ones, run, by_element, convolutions=False)
    channel = _read(layers, ones, run, by_channel, convolutions=True)
    return _joined(by_element, element, by_channel, channel)


def reading_parameters(layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[str]:
    """Return the parameters of a layer that its inputs meet: none that reads hidden units.

    Args:
        layer: a maskable one; of a stack the first layer, in both directions.
        parameters: its prunable parameters.

    >>> lstm = nn.LSTM(2, 2, num_layers=2)
    >>> reading_parameters(lstm, dict(lstm.named_parameters()))
    ['weight_ih_l0']
    """
    if isinstance(layer, nn.MultiheadAttention):
        return [name for name in parameters if not name.endswith(OUT)]
    if not kind_of(layer).recurrent:
        return list(parameters)
    first = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")
    return [name for name in parameters if tensor_name(name).rpartition(".")[2] in first]


def unplugged(sensors: Sensors, layers: Mapping[str, nn.Module]) -> list[bool]:
    """Return for each sensor whether no layer reads it: all its columns are exactly zero.

    Args:
        sensors: of these layers.
        layers: by name, masked or not.
    """
    dead = [True] * sensors.count
    for name, columns in sensors.columns.items():
        weights = prunable_parameters(layers[name])
        for parameter in reading_parameters(layers[name], weights):
            rows = axes_of(layers[name]).rows(weights[parameter].detach())
            used = rows.movedim(1, 0).flatten(1).any(dim=1).tolist()
            dead = [d and (c is None or not used[c]) for d, c in zip(dead, columns, strict=True)]
    return dead


@dataclass(frozen=True, slots=True)
class _Numbered:
    """Leaves filled with the numbers of their sensors, counted on from leaf to leaf."""

    leaves: list[Tensor]
    sizes: list[int]

    def filled(self, backwards: bool) -> list[Tensor]:
        # From 2 on: what does not depend on the observation stays what it is for ones.
        if backwards:
            return [sum(self.sizes) + 1 - leaf for leaf in self.leaves]
        return [leaf + 2 for leaf in self.leaves]


def _numbered(observations: Sequence[Tensor], number: Callable[[Tensor], Tensor]) -> _Numbered:
    leaves, sizes = [], list[int]()
    for leaf in observations:
        numbers = number(leaf)
        leaves.append((numbers + sum(sizes)).to(leaf))
        sizes.append(int(numbers.max()) + 1)
    return _Numbered(leaves, sizes)


def _read(
    layers: Mapping[str, nn.Module],
    ones: Mapping[str, Tensor],
    run: Run,
    numbered: _Numbered,
    convolutions: bool,
) -> dict[str, dict[int, int]]:
    """Return for each layer of a kind which sensor is at which of its inputs."""
    forwards = _inputs(layers, run, numbered.filled(backwards=False))
    backwards = _inputs(layers, run, numbered.filled(backwards=True))
    total = sum(numbered.sizes)
    found = {}
    for name, layer in layers.items():
        if isinstance(layer, CONVOLUTIONS) is convolutions:
            base, up, down = (_by_input(layer, held[name]) for held in (ones, forwards, backwards))
            found[name] = _matched(name, base, up, down, total)
            if found[name] and not kind_of(layer).multiplies:
                raise InputError(
                    f"Sensors have no columns in layer {name!r}: an Embedding looks its inputs up, "
                    "and a Bilinear multiplies them. Choose another granularity than 'input'."
                )
    return found


def _matched(name: str, base: Tensor, up: Tensor, down: Tensor, total: int) -> dict[int, int]:
    """Return sensor -> input, from what each input was for ones and for two numberings."""
    depends = (up != base) | (down != base)
    scale = torch.where(base == 0, 1.0, base)
    number = (up / scale).round()
    error = (up - number * scale).abs() + (down - (total + 3 - number) * scale).abs()
    wrong = (error > 1e-3 * scale.abs()) | (base == 0)
    places = depends.nonzero().view(-1).tolist()
    sensors = [int(number[place]) - 2 for place in places]
    if bool((wrong & depends).any()) or len({*sensors}) < len(sensors):
        raise InputError(
            f"Sensors can't be told apart in layer {name!r}: its inputs are a mix of them. Choose "
            "another granularity than 'input'."
        )
    return dict(zip(sensors, places, strict=True))


def _joined(
    by_element: _Numbered,
    element: Mapping[str, Mapping[int, int]],
    by_channel: _Numbered,
    channel: Mapping[str, Mapping[int, int]],
) -> Sensors:
    """Choose for each leaf between elements and channels, and put the leaves together."""
    sizes: list[int] = []
    columns: dict[str, list[int | None]] = {
        name: [] for name, places in {**element, **channel}.items() if places
    }
    starts = [0, 0]
    for elements, channels in zip(by_element.sizes, by_channel.sizes, strict=True):
        ranges = range(starts[0], starts[0] + elements), range(starts[1], starts[1] + channels)
        starts = [ranges[0].stop, ranges[1].stop]
        as_image = any(sensor in places for places in channel.values() for sensor in ranges[1])
        if as_image and any(s in places for places in element.values() for s in ranges[0]):
            raise InputError(
                "Sensors can't be told: one layer reads an image's channels, another its pixels. "
                "Choose another granularity than 'input'."
            )
        chosen, kind = (ranges[1], channel) if as_image else (ranges[0], element)
        sizes.append(len(chosen))
        for name, found in columns.items():
            places = kind.get(name, {})
            found += [places.get(sensor) for sensor in chosen]
    return Sensors(tuple(sizes), {name: tuple(found) for name, found in columns.items()})


def _by_input(layer: nn.Module, given: Tensor) -> Tensor:
    """Return one number for each input of a layer, shape ``(inputs,)``; a channel's is its sum."""
    values = given.detach().double()
    if isinstance(layer, CONVOLUTIONS):
        values = values.movedim(unit_axis(layer), -1)
    return values.reshape(-1, values.shape[-1]).sum(dim=0)


def _inputs(
    layers: Mapping[str, nn.Module], run: Run, leaves: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return each layer's input; they put out zeros, so that nothing behind them sees sensors."""
    inputs: dict[nn.Module, Tensor] = {}

    def catch(layer: nn.Module, given: tuple[Any, ...], named: Any, output: Any) -> Any:
        if isinstance(layer, nn.MultiheadAttention):
            inputs[layer] = _attended(layer, given, named)
            return _zeros(output)
        both = [g for g in given if isinstance(g, Tensor)] if isinstance(layer, nn.Bilinear) else []
        inputs[layer] = torch.cat(both, dim=-1) if both else given[0]
        return _zeros(output)

    with hooked({*layers.values()}, catch, with_kwargs=True), torch.no_grad():
        run(leaves)
    return {name: inputs[layer] for name, layer in layers.items() if layer in inputs}


def _attended(layer: nn.MultiheadAttention, given: tuple[Any, ...], named: Any) -> Tensor:
    """Return all that an attention layer reads, row by row: queries, keys and values."""
    read = arranged(layer, given, named).inputs
    if len({x.shape[-1] for x in read}) > 1:
        raise InputError("Sensors can't be found: attention reads keys of another width.")
    return torch.cat([x.flatten(0, -2) for x in read])


def _zeros(output: Any) -> Any:
    if isinstance(output, Tensor):
        return torch.zeros_like(output)
    return tuple(_zeros(item) for item in output) if isinstance(output, tuple) else output
