"""Coalitions of units, for Shapley values: what a policy is worth with only some units left.

A unit that is out has all its incoming weights zero, as pruning leaves it; its bias stays.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.pruning.evidence.objectives import Objective
from rayprune.pruning.evidence.reduce import Reduce
from rayprune.pruning.granularity import Part
from rayprune.pruning.granularity.neuron import unit_parts
from rayprune.pruning.layers.hooks import hooked
from rayprune.pruning.layers.masked import MaskedLayer, MaskedLinear
from rayprune.pruning.layers.parametrised import lists_of, tensor_name
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.precision import scored

# Floats of one layer's outputs that are evaluated at a time.
CHUNK = 1 << 19
# Units that join in one go: their work grows with the square.
STEP = 32
AGREEMENT = 1e-3
"""How far a shortcut's values may be off, as a share of the largest."""


class Coalitions:
    """The value of every coalition of one layer's units, on some observations.

    The value is minus the objective's loss; with outputs and a divergence it is minus the mean
    divergence from the whole network's outputs.

    Args:
        module: the network.
        layer: whose units take part.
        part: the units, in terms of the layer's parameters.
        batches: the minibatches.
        objective: what a coalition is worth.
        across: brings several processes together.
    """

    def __init__(
        self,
        module: nn.Module,
        layer: PrunableLayer,
        part: Part,
        batches: Sequence[Any],
        objective: Objective,
        across: Reduce,
    ) -> None:
        self.units = part.count
        self.estimate: Any = None
        """What a criterion leaves here of how far it has converged."""
        self._across = across
        self._module, self._layer, self._part = module, layer, part
        self._batches, self._objective = batches, objective
        self._shortcuts: dict[int, Shortcut | None] = {}
        self._references: dict[int, Tensor] = {}

    @property
    def batches(self) -> int:
        """How many minibatches there are."""
        return len(self._batches)

    @property
    def device(self) -> torch.device:
        """Where the units are."""
        return next(iter(self._layer.parameters.values())).device

    def mean_over_processes(self, values: Tensor) -> Tensor:
        """Return the mean over the processes, each of which has observations of its own."""
        return self._across.mean([values])[0]

    @torch.no_grad()
    def prefixes(self, order: Tensor, batch: int) -> Tensor:
        """Value the growing coalitions of an order: nobody, its first unit, its first two, ...

        Args:
            order: a permutation of the units, shape ``(units,)``.
            batch: which minibatch to value them on.

        Returns:
            Shape ``(units + 1,)``, float64.
        """
        if batch not in self._shortcuts:
            self._shortcuts[batch] = self._find_shortcut(batch)
        shortcut = self._shortcuts[batch]
        if shortcut is not None:
            return shortcut.prefixes(order)
        alive = torch.zeros(self.units, dtype=torch.bool, device=order.device)
        values = [self.value(alive, batch)]
        for unit in order:
            alive[unit] = True
            values.append(self.value(alive, batch))
        return torch.stack(values)

    @torch.no_grad()
    def value(self, alive: Tensor, batch: int) -> Tensor:
        """Value one coalition by running the whole network without the others.

        Args:
            alive: bool, shape ``(units,)``.
            batch: which minibatch.

        Returns:
            A scalar, float64.
        """
        given = self._batches[batch]
        outputs, divergence = self._objective.outputs, self._objective.divergence
        if outputs is not None and batch not in self._references:
            self._references[batch] = scored(outputs(self._module, given))
        with _without(self._layer, self._part, ~alive):
            if outputs is None or divergence is None:
                return -self._objective.loss(self._module, given).double()
            changed = scored(outputs(self._module, given))
        return -divergence(self._references[batch], changed).double().mean()

    def _find_shortcut(self, batch: int) -> Shortcut | None:
        """Return a shortcut if there is one that gives what the whole network gives."""
        given = self._batches[batch]
        try:
            found = Shortcut.find(self._module, self._layer, self._part, given, self._objective)
            return found if found is not None and self._holds(found, batch) else None
        except RuntimeError:  # shapes that don't meet: the units take other ways, too
            return None

    def _holds(self, shortcut: Shortcut, batch: int) -> bool:
        """Put a shortcut to the test, for nothing is known of the code between the layers."""
        every_other = torch.arange(self.units, device=self.device) % 2 == 0
        nobody = torch.zeros_like(every_other)
        coalitions = [nobody, every_other, ~every_other, ~nobody]
        quick = torch.cat([shortcut.value(alive) for alive in coalitions])
        slow = torch.stack([self.value(alive, batch) for alive in coalitions])
        scale = max(float(quick.abs().max()), 1e-6)
        return bool(((slow - quick).abs() <= AGREEMENT * scale).all())


def coalitions_of(
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    batches: Sequence[Any],
    objective: Objective,
    across: Reduce,
) -> dict[str, Coalitions]:
    """Return the coalitions of each layer's units, by the first parameter of their part."""
    # On a copy: an EnvRunner may fetch the weights while units are out.
    twin = copy.deepcopy(module)
    found: dict[str, Coalitions] = {}
    for layer in layers:
        inner: Any = twin.get_submodule(layer.name)
        own = dataclasses.replace(layer, module=inner)
        for part in unit_parts(inner, own.parameters):
            of_group = objective.of_group(layer.group)
            name = layer.full_name(part.parameters[0])
            found[name] = Coalitions(twin, own, part, batches, of_group, across)
    return found


@dataclass(slots=True)
class Shortcut:
    """Values prefixes without running what lies before the layer, by one more column at a time.

    Holds where one Linear is the only one to see the layer's units, each by itself. That Linear's
    outputs then grow by one unit's column; only what follows it has to be run.
    """

    module: nn.Module
    consumer: nn.Linear
    batch: Any
    objective: Objective
    before: dict[nn.Module, Any]
    """What the layers before the consumer give, so that they needn't be run again."""
    empty: Tensor
    """The consumer's outputs when no unit is left, ``(samples, out)``."""
    change: Tensor
    """What each unit's presence changes in the consumer's input, ``(units, samples)``."""
    columns: Tensor
    """The consumer's weight by input, ``(units, out)``, contiguous: orders gather its rows."""
    reference: Tensor
    """The whole network's outputs, ``(samples, d)``."""

    @classmethod
    def find(
        cls, module: nn.Module, layer: PrunableLayer, part: Part, batch: Any, objective: Objective
    ) -> Shortcut | None:
        """Return the shortcut of a layer, on a minibatch; None if its form isn't this."""
        outputs = objective.outputs
        if outputs is None or objective.divergence is None:
            return None
        if not isinstance(layer.module, MaskedLinear):
            return None
        with _calls_of(module) as seen:
            reference = scored(outputs(module, batch))
        order = [call.layer for call in seen]
        if order.count(layer.module) != 1 or order[-1] is layer.module:
            return None
        place = order.index(layer.module) + 1
        consumer, whole = seen[place].layer, seen[place].given
        if not isinstance(consumer, nn.Linear) or order.count(consumer) != 1:
            return None
        if whole.dim() != 2 or whole.shape[1] != part.count:
            return None
        everyone = torch.ones(part.count, dtype=torch.bool, device=whole.device)
        with _without(layer, part, everyone), _calls_of(module) as again:
            outputs(module, batch)
        nobody = again[place].given
        empty = nn.functional.linear(nobody, consumer.weight, consumer.bias)
        before = {call.layer: call.output for call in seen[:place]}
        change = (whole - nobody).T.contiguous()
        columns = consumer.weight.detach().T.contiguous()
        return cls(module, consumer, batch, objective, before, empty, change, columns, reference)

    def value(self, alive: Tensor) -> Tensor:
        """Value one coalition, shape ``(1,)``; see `Coalitions.value`."""
        return self._values((self.empty + self.change[alive].T @ self.columns[alive])[:, None])

    def prefixes(self, order: Tensor) -> Tensor:
        """Value the growing coalitions of an order; see `Coalitions.prefixes`."""
        columns, changes = self.columns[order], self.change[order]
        state = self.empty
        # A triangle of weights costs the square of its side, which pays for wide outputs only.
        wide = state.shape[-1] >= 4 * STEP
        step = STEP if wide else max(1, CHUNK // state.numel())
        running = _running_product if wide else _running_sum
        values = [self._values(state[:, None])]
        for start in range(0, len(order), step):
            piece = slice(start, start + step)
            grown = running(state, changes[piece], columns[piece])
            state = grown[:, -1].clone()
            values.append(self._values(grown))
        return torch.cat(values)

    def _values(self, states: Tensor) -> Tensor:
        """Value coalitions by the consumer's outputs, ``(samples, coalitions, out)``."""
        outputs, divergence = self.objective.outputs, self.objective.divergence
        assert outputs is not None
        assert divergence is not None
        with _answering({**self.before, self.consumer: states.flatten(0, 1)}):
            changed = scored(outputs(self.module, self.batch))
        changed = changed.view(*states.shape[:2], -1).transpose(0, 1)
        return -divergence(self.reference, changed).double().mean(dim=1)


def _running_sum(state: Tensor, changes: Tensor, columns: Tensor) -> Tensor:
    """Add unit after unit to the consumer's outputs, ``(samples, units, out)``.

    Args:
        state: before them, ``(samples, out)``.
        changes: of the consumer's input, ``(units, samples)``.
        columns: of its weight, ``(units, out)``.
    """
    grown = changes.T[:, :, None] * columns
    grown[:, 0] += state
    return torch.cumsum(grown, dim=1)


def _running_product(state: Tensor, changes: Tensor, columns: Tensor) -> Tensor:
    """Do the same as products with a triangle: four times faster than torch.cumsum."""
    units, samples = changes.shape
    triangle = torch.ones(units, units, dtype=state.dtype, device=state.device).tril_()
    rows = triangle * changes.T[:, None, :]
    return torch.baddbmm(state[:, None], rows, columns.expand(samples, -1, -1))


@dataclass(slots=True)
class _Call:
    """One call of a maskable layer."""

    layer: nn.Module
    given: Tensor
    output: Any


@contextmanager
def _calls_of(module: nn.Module) -> Iterator[list[_Call]]:
    """Note the calls of all maskable layers, in order."""
    seen: list[_Call] = []

    def hook(layer: nn.Module, args: Any, output: Any) -> None:
        seen.append(_Call(layer, args[0], output))

    with hooked([layer for layer in module.modules() if isinstance(layer, MaskedLayer)], hook):
        yield seen


@contextmanager
def _answering(answers: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Let layers give these outputs, whatever they are called with."""
    for layer, answer in answers.items():
        layer.forward = lambda *_, _answer=answer, **__: _answer
    try:
        yield
    finally:
        for layer in answers:
            del layer.forward


@contextmanager
def _without(layer: PrunableLayer, part: Part, out: Tensor) -> Iterator[None]:
    """Zero the incoming weights of some units for a while."""
    weights, computed = layer.parameters, lists_of(layer.module)
    kept = {name: weights[name].detach().clone() for name in part.parameters}
    masked: list[nn.ModuleList] = []
    try:
        for name, stays in part.expand(~out, {}):
            held = computed.get(tensor_name(name))
            if held is None:
                weights[name].mul_(stays)
            else:  # what it is computed from may be divided by its norm, which can't be zero
                held.append(_Times(stays))
                masked.append(held)
        yield
    finally:
        for grown in masked:
            del grown[-1]
        for name, value in kept.items():
            weights[name].copy_(value)


class _Times(nn.Module):
    """A parametrisation that multiplies by a mask."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self._mask = mask

    def forward(self, weight: Tensor) -> Tensor:
        """Multiply."""
        return weight * self._mask
