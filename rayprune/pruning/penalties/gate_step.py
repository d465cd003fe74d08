"""The part of a Pruner that holds unit gates, and moves them after each optimizer step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.pruning.granularity.neuron import UnitPart, unit_parts
from rayprune.pruning.layers.prunable import protected_names
from rayprune.pruning.packing import copied
from rayprune.pruning.penalties import penalty_of
from rayprune.pruning.pruner_part import Pick, PrunerPart

DECAYS = (0.9, 0.999)
"""Of the slopes' running mean and mean square: Adam's."""
AJAR = 0.01
"""What the most open gate of a layer does not fall below."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Gates:
    """The gates of one set of units; every tensor is of shape ``(units,)``."""

    part: UnitPart
    """The units, with the shapes of their parameters."""
    values: Tensor
    mean: Tensor
    """Running mean of the slopes."""
    square: Tensor
    """Running mean of their squares."""
    steps: int = 0

    @classmethod
    def opened(cls, part: UnitPart, like: Tensor) -> Gates:
        """Return open gates on the device of a weight."""
        zeros = torch.zeros(part.count, dtype=torch.float32, device=like.device)
        return cls(part, torch.ones_like(zeros), zeros, zeros)

    @property
    def size(self) -> int:
        """How many weights a unit has."""
        return sum(shape.numel() for shape in self.part.shapes.values()) // self.part.count

    def seeing(self, products: Mapping[str, Tensor]) -> Gates:
        """Return them with one step's slopes taken in.

        Args:
            products: weights times their gradients, by parameter.
        """
        fast, slow = DECAYS
        sums = self.part.pool({n: p.to(torch.float32) for n, p in products.items()}, "sum")
        slope = torch.where(self.values > 0, sums / self.values, 0.0)
        mean = self.mean.lerp(slope, 1 - fast)
        square = self.square.lerp(slope.square(), 1 - slow)
        return replace(self, mean=mean, square=square, steps=self.steps + 1)

    def moved(self, amount: float, pressure: float) -> Gates:
        """Return them after one step.

        Args:
            amount: the step's size.
            pressure: strength times cost.
        """
        fast, slow = (1 - decay ** max(self.steps, 1) for decay in DECAYS)
        slope = (self.mean / fast) / ((self.square / slow).sqrt() + _TINY)
        values = (self.values - amount * (slope + pressure)).clamp_(0.0, 1.0)
        values = torch.where(self.values > 0, values, 0.0)  # one that has closed stays so
        most_open = values.argmax(dim=0, keepdim=True)
        # A layer without any unit would cut the network in two.
        return replace(self, values=values.scatter(0, most_open, values[most_open].clamp(min=AJAR)))

    def follow(self, part: UnitPart, pick: Pick) -> Gates:
        """Return those of the units that a compaction has left, by the parameters as they are."""
        name = part.parameters[0]

        def left(values: Tensor) -> Tensor:
            whole = dict(self.part.expand(values, {}))[name]
            return pick(name, whole).reshape(part.gates, part.units, -1)[0, :, 0].clone()

        kept = [left(values) for values in (self.values, self.mean, self.square)]
        return Gates(part, kept[0], kept[1], kept[2], self.steps)


class UnitGates(PrunerPart):
    """The gates of all units that may be pruned, where the config's penalty is one of gates."""

    key: ClassVar[str] = "gates"

    def __init__(self) -> None:
        self._gates: dict[str, Gates] = {}

    @property
    def values(self) -> dict[str, Tensor]:
        """The gates by the name of the first parameter of their units, ``(units,)``."""
        return {name: gates.values for name, gates in self._gates.items()}

    @property
    def wants_gradients(self) -> bool:
        """Whether units have gates."""
        block = self.pruner.config.penalty
        return block is not None and penalty_of(block).gated

    @property
    def wants_rates(self) -> bool:
        """Whether units have gates."""
        return self.wants_gradients

    def on_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """Take the slopes of one step in; units without a gradient have none."""
        for part, weights in self._parts():
            found = {name: gradients.get(weight) for name, weight in weights.items()}
            products = {n: weights[n].detach() * g for n, g in found.items() if g is not None}
            if len(products) == len(weights):
                name = part.parameters[0]
                self._gates[name] = self._gates_of(part, weights).seeing(products)

    def after_step(self, clock: float, rates: Mapping[nn.Parameter, float]) -> None:
        """Move the gates, and their units' weights with them, until the schedule's end.

        Raises:
            InputError: the learning rate of a weight with a gate is missing.
        """
        config = self.pruner.config
        if clock >= config.build_schedule(0.0).end:
            return
        found = [(self._gates_of(part, weights), weights) for part, weights in self._parts()]
        units = sum(gates.part.count for gates, _ in found)
        mean = sum(gates.size * gates.part.count for gates, _ in found) / max(units, 1)
        for gates, weights in found:
            name = gates.part.parameters[0]
            if weights[name] not in rates:
                raise InputError(f"`rates` must hold the learning rate of {name!r}, but doesn't.")
            amount = rates[weights[name]] * gates.size**0.5
            moved = gates.moved(amount, config.penalty["strength"] * gates.size / mean)
            # The optimizer may have moved the weights of a closed gate.
            factors = torch.where(gates.values > 0, moved.values / gates.values, 0.0)
            for key, factor in gates.part.expand(factors, {}):
                weights[key].data.mul_(factor)
            self._gates[name] = moved

    def on_compaction(self, pick: Pick) -> None:
        """Keep the gates of the units that are left."""
        held, self._gates = self._gates, {}
        for part, weights in self._parts():
            name = part.parameters[0]
            if name in held and all(weight.numel() for weight in weights.values()):
                self._gates[name] = held[name].follow(part, pick)

    def state_dict(self) -> dict[str, Any]:
        """Return the gates and their running means."""
        return {
            name: {
                "steps": gates.steps,
                "values": copied(gates.values),
                "mean": copied(gates.mean),
                "square": copied(gates.square),
            }
            for name, gates in self._gates.items()
        }

    def unpack(self, state: Mapping[str, Any] | None) -> dict[str, Gates]:
        """Return the gates of the units that are there."""
        given, found = state or {}, dict[str, Gates]()
        for part, weights in self._parts() if given else ():
            name = part.parameters[0]
            if name in given:
                held, like = given[name], Gates.opened(part, weights[name]).values
                values, mean, square = (
                    copied(held[key]).to(like).reshape_as(like)
                    for key in ("values", "mean", "square")
                )
                found[name] = Gates(part, values, mean, square, int(held["steps"]))
        return found

    def restore(self, unpacked: dict[str, Gates]) -> None:
        """Take the gates over."""
        self._gates = unpacked

    def _gates_of(self, part: UnitPart, weights: Mapping[str, nn.Parameter]) -> Gates:
        name = part.parameters[0]
        if name not in self._gates:
            self._gates[name] = Gates.opened(part, weights[name])
        return self._gates[name]

    def _parts(self) -> Iterator[tuple[UnitPart, dict[str, nn.Parameter]]]:
        """Yield the sets of units that have gates, with their parameters by full name."""
        pruner = self.pruner
        spared = protected_names(pruner.prunable, pruner.config.protect) | pruner.heads
        for layer in pruner.prunable:
            if layer.name in spared:
                continue
            for part in unit_parts(layer.module, layer.named):
                if isinstance(part, UnitPart) and part.count:
                    yield part, {name: layer.named[name] for name in part.parameters}
