"""A pass over minibatches (calibration data) that measures what is wanted, and no more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.pruning.evidence.coalitions import coalitions_of
from rayprune.pruning.evidence.evidence import GRADIENT, Evidence
from rayprune.pruning.evidence.layer_calls import LayerCall, LayerCalls, recording
from rayprune.pruning.evidence.objectives import ANY_GROUP, Actions, Objective
from rayprune.pruning.evidence.per_sample import squared_gradients, squared_inputs
from rayprune.pruning.evidence.reduce import Reduce, SingleProcess
from rayprune.pruning.layers.attach import join
from rayprune.pruning.layers.attention import OUT, PACKED, SEPARATE, head_sizes
from rayprune.pruning.layers.attention_projections import project_again
from rayprune.pruning.layers.hooks import unit_axis, unit_means
from rayprune.pruning.layers.kinds import kind_of
from rayprune.pruning.layers.masked import prunable_parameters
from rayprune.pruning.layers.parametrised import tensor_name
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.layers.recurrent import unroll
from rayprune.pruning.layers.subclasses import has_own_forward
from rayprune.pruning.precision import scored

FISHER = "fisher_diagonal"
INPUT_NORM = "input_norm"
ACTIVATIONS = "activations"
ACTIVITY = "activity"
ACTIONS = "actions"
COALITIONS = "coalitions"
MEASURED: frozenset[str] = frozenset(
    {GRADIENT, FISHER, INPUT_NORM, ACTIVATIONS, ACTIVITY, ACTIONS, COALITIONS}
)
"""What minibatches can tell."""


def measure(
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    wanted: frozenset[str],
    batch: Any,
    loss: Objective | Callable[[nn.Module, Any], Any] | None,
    limits: Mapping[str, Any],
    across: Reduce | None = None,
) -> Evidence:
    """Gather what is wanted.

    Args:
        module: what is pruned.
        layers: those of its layers that are to be scored.
        wanted: of `MEASURED`; of what is not, nothing is gathered.
        batch: a minibatch, or an iterable of them.
        loss: ``f(module, minibatch) -> scalar``, or an objective that knows more.
        limits: how much is looked at; see `limited`.
        across: brings several processes together.

    Raises:
        InputError: something is wanted that can't be told from what was given.
    """
    if not wanted & MEASURED:
        return Evidence()
    across = SingleProcess() if across is None else across
    objective = Objective.of(loss)
    seen = list(limited(minibatches(batch), limits))
    found = gather(module, layers, wanted, seen, objective, across)
    if COALITIONS in wanted:
        found |= Evidence({COALITIONS: coalitions_of(module, layers, seen, objective, across)})
    return found


def gather(
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    wanted: Collection[str],
    batches: Iterable[Any],
    objective: Objective,
    across: Reduce | None = None,
) -> Evidence:
    """Measure evidence on minibatches, in one pass over them.

    Args:
        module: what is pruned; its parameters' ``.grad`` and its mode are left alone.
        layers: its layers that can be pruned.
        wanted: of `MEASURED`.
        batches: what ``objective`` takes; each is seen once.
        objective: what to differentiate, and what the policy does.
        across: brings several processes together.

    Raises:
        InputError: there is no batch.
    """
    wanted = frozenset(wanted) & MEASURED - {COALITIONS}
    if not wanted:
        return Evidence()
    sums = _Sums(layers, wanted)
    for batch in batches:
        sums.add(module, batch, objective)
    return sums.evidence(across or SingleProcess())


class _Sums:
    """Running sums over the minibatches."""

    def __init__(self, layers: Sequence[PrunableLayer], wanted: frozenset[str]) -> None:
        self._layers = {layer.name: layer.module for layer in layers}
        self._weights: dict[str, nn.Parameter] = {
            layer.full_name(name): weight
            for layer in layers
            for name, weight in layer.parameters.items()
        }
        self._groups = {
            layer.full_name(name): layer.group for layer in layers for name in layer.parameters
        }
        self._names = {
            join(layer.name, tensor_name(name)): layer.full_name(name)
            for layer in layers
            for name in layer.parameters
        }
        self._wanted = wanted
        self._batches = 0
        self._samples = 0
        self._tables: dict[str, dict[str, Tensor]] = {
            kind: {} for kind in (GRADIENT, FISHER, INPUT_NORM)
        }
        self._activations: dict[str, list[Tensor]] = {}
        self._activity: dict[str, tuple[Tensor, int]] = {}
        """Sums of the units' sizes, and of how many rows."""
        self._actions: dict[str, list[Actions]] = {}

    def add(self, module: nn.Module, batch: Any, objective: Objective) -> None:
        """Run one minibatch through the module."""
        samples = sample_count(batch)
        differentiate = bool(self._wanted & {GRADIENT, FISHER})
        units = bool(self._wanted & {ACTIVATIONS, ACTIVITY, ACTIONS})
        if differentiate or not units:
            with (
                torch.set_grad_enabled(differentiate),
                recording(
                    module, self._recorded(), edges=FISHER in self._wanted, activations=False
                ) as record,
            ):
                loss = objective.loss(module, batch)
                if differentiate:
                    self._differentiate(_checked(loss), record, samples)
            self._add_inputs(record, samples)
        if units:
            with (
                torch.no_grad(),
                recording(module, self._layers, edges=False, activations=True) as record,
            ):
                actions = self._run(module, batch, objective)
            self._add_units(record, actions)
            if not differentiate:
                self._add_inputs(record, samples)
        self._batches += 1
        self._samples += samples

    def _run(self, module: nn.Module, batch: Any, objective: Objective) -> Mapping[str, Actions]:
        """Run a minibatch; return what the policy does, if that is known or asked for."""
        if objective.tells_actions or self._wanted & {ACTIVATIONS, ACTIONS}:
            return objective.actions(module, batch)
        objective.loss(module, batch)
        return {}

    def evidence(self, across: Reduce) -> Evidence:
        """Finish the sums, over all processes."""
        if not self._batches:
            raise InputError("`batch` must hold at least one minibatch, but is empty.")
        tables: dict[str, Mapping[str, Any]] = {}
        for kind, named in self._tables.items():
            if kind in self._wanted:
                divisor = {GRADIENT: self._batches, FISHER: self._samples, INPUT_NORM: 1}[kind]
                means = across.mean([total / divisor for total in named.values()])
                tables[kind] = dict(zip(named, means, strict=True))
        if INPUT_NORM in tables:
            tables[INPUT_NORM] = {n: total.sqrt() for n, total in tables[INPUT_NORM].items()}
        if ACTIVITY in self._wanted:
            means = across.mean([total / rows for total, rows in self._activity.values()])
            tables[ACTIVITY] = dict(zip(self._activity, means, strict=True))
        return Evidence({**tables, **self._unit_tables(across)})

    def _recorded(self) -> dict[str, Any]:
        return self._layers if self._wanted & {FISHER, INPUT_NORM} else {}

    def _differentiate(self, loss: Tensor, record: LayerCalls, samples: int) -> None:
        weights = {n: w for n, w in self._weights.items() if w.requires_grad}
        weights = weights if GRADIENT in self._wanted else {}
        found = record.gradients(loss, weights)
        for name, gradient in found.weights.items():
            if gradient is not None:
                self._sum(GRADIENT, name, gradient)
        if FISHER not in self._wanted:
            return
        for layer, calls in record.calls.items():
            each = [(call, found.take(call)) for call in calls]
            # The loss is a mean: a sample's own gradient is that many times its share.
            self._add_fisher(layer, [(c.args, _scaled(d, samples)) for c, d in each], samples)

    def _add_fisher(
        self, name: str, calls: Sequence[tuple[list[Tensor], list[Tensor | None]]], samples: int
    ) -> None:
        layer = self._layers[name]
        known = [call for call in calls if any(delta is not None for delta in call[1])]
        if known and not has_own_forward(layer):
            for key, squares in squared_gradients(layer, known, samples).items():
                self._sum_of(FISHER, name, key, squares)

    def _add_inputs(self, record: LayerCalls, samples: int) -> None:
        if INPUT_NORM not in self._wanted:
            return
        for name, calls in record.calls.items():
            layer = self._layers[name]
            for call in () if has_own_forward(layer) else calls:
                for key, squares in squared_inputs(layer, call.args, samples).items():
                    self._sum_of(INPUT_NORM, name, key, squares)

    def _add_units(self, record: LayerCalls, actions: Mapping[str, Actions]) -> None:
        for group, policy in actions.items():
            self._actions.setdefault(group, []).append(policy)
        for name, calls in record.calls.items():
            if self._wanted & {ACTIVATIONS, ACTIONS}:
                for full, values in self._rows(name, calls[0], actions):
                    self._activations.setdefault(full, []).append(values)
            if ACTIVITY in self._wanted:
                for full, values in self._rows(name, calls[0], actions, sizes=True):
                    total, rows = self._activity.get(full, (0.0, 0))
                    self._activity[full] = total + values.sum(dim=0), rows + len(values)

    def _rows(
        self, name: str, call: LayerCall, actions: Mapping[str, Actions], *, sizes: bool = False
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the activations of a layer's units, or their sizes, without known padding."""
        for key, values in _units(self._layers[name], call, sizes=sizes).items():
            full = self._named(name, key)
            if full is not None:
                policy = _of_group(actions, self._groups[full]) if actions else None
                valid = None if policy is None else policy.valid
                if policy is not None:
                    values = _by_observation(values, len(policy.means))
                whole = valid is None or len(valid) != len(values)
                yield full, values if whole else values[valid]

    def _unit_tables(self, across: Reduce) -> dict[str, dict[str, Any]]:
        if not self._actions or not self._wanted & {ACTIVATIONS, ACTIONS}:
            return {}
        values = {name: across.join(torch.cat(rows)) for name, rows in self._activations.items()}
        policies = {group: _joined(rows, across) for group, rows in self._actions.items()}
        actions = {name: _of_group(policies, self._groups[name]) for name in self._weights}
        return {ACTIVATIONS: values, ACTIONS: actions}

    def _named(self, layer: str, tensor: str) -> str | None:
        """Return the parameter that a layer's tensor is made of; None if it is not scored."""
        return self._names.get(join(layer, tensor))

    def _sum_of(self, kind: str, layer: str, tensor: str, value: Tensor) -> None:
        name = self._named(layer, tensor)
        if name is not None:
            self._sum(kind, name, value)

    def _sum(self, kind: str, name: str, value: Tensor) -> None:
        held = self._tables[kind].get(name)
        self._tables[kind][name] = (
            scored(value.detach()).clone() if held is None else held.add_(value)
        )


def minibatches(batch: Any) -> Iterator[Any]:
    """Yield the minibatches of ``batch``: itself if it is a tensor or a mapping, else its items."""
    if isinstance(batch, (Tensor, Mapping)):
        yield batch
    elif isinstance(batch, Iterable):
        yield from batch
    else:
        raise InputError(
            f"`batch` must be a tensor, a mapping of tensors or an iterable of such minibatches, "
            f"but is {type(batch).__name__}."
        )


def limited(batches: Iterable[Any], limits: Mapping[str, Any]) -> Iterator[Any]:
    """Yield minibatches while the limits last, ``minibatches`` and ``observations``; at least one.

    >>> batches = [torch.zeros(8, 1)] * 3
    >>> len(list(limited(batches, {"minibatches": 9, "observations": 17})))
    2
    """
    observations = 0
    for index, batch in enumerate(batches):
        observations += sample_count(batch)
        within = observations <= limits["observations"]
        if index and (index >= limits["minibatches"] or not within):
            return
        yield batch


def sample_count(batch: Any) -> int:
    """Return the samples of a minibatch: the rows of the first tensor in it.

    >>> sample_count({"obs": torch.zeros(8, 3)}), sample_count((torch.zeros(5), torch.zeros(5, 2)))
    (8, 5)
    """
    if isinstance(batch, Tensor):
        return len(batch)
    values = batch.values() if isinstance(batch, Mapping) else batch
    for value in values if isinstance(values, Iterable) else ():
        if isinstance(value, (Tensor, Mapping, tuple, list)) and (count := sample_count(value)):
            return count
    return 0


def _checked(loss: object) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(
            f"`loss` must return a scalar tensor that depends on the module's weights, "
            f"but gave {given}."
        )
    return loss.reshape(())


def _scaled(deltas: Sequence[Tensor | None], factor: int) -> list[Tensor | None]:
    return [None if delta is None else delta * factor for delta in deltas]


def _of_group(actions: Mapping[str, Actions], group: str) -> Actions:
    return actions[group] if group in actions else actions[ANY_GROUP]


def _joined(rows: Sequence[Actions], across: Reduce) -> Actions:
    kept = [row.means if row.valid is None else row.means[row.valid] for row in rows]
    return Actions(across.join(scored(torch.cat(kept))), rows[0].sizes)


def _units(layer: nn.Module, call: LayerCall, *, sizes: bool = False) -> dict[str, Tensor]:
    """Return the activations of a layer's units, ``(rows, units)``, by the part's parameter.

    Args:
        layer: whose units.
        call: of the layer.
        sizes: of the activations, absolute before a filter's are averaged.
    """
    size: Callable[[Tensor], Tensor] = torch.abs if sizes else scored
    if isinstance(layer, nn.RNNBase):
        strands = unroll(layer, call.args[0], call.args[1:]).directions
        return {f"weight_ih{s.suffix}": size(scored(s.outputs.flatten(0, 1))) for s in strands}
    if isinstance(layer, nn.MultiheadAttention):
        return {name: size(rows) for name, rows in _projected_units(layer, call).items()}
    assert call.activation is not None
    first = "weight_ih" if kind_of(layer).recurrent else "weight"
    return {first: unit_means(size(scored(call.activation)), unit_axis(layer))}


def _by_observation(values: Tensor, observations: int) -> Tensor:
    """Return activations ``(observations, units)``, of tokens their mean, as of a filter's places.

    Args:
        values: ``(rows, units)``, an observation's rows one after the other.
        observations: how many there are.
    """
    if len(values) <= observations or len(values) % observations:
        return values
    tokens: Tensor = values.unflatten(0, (observations, -1))
    return tokens.mean(1)


def _projected_units(layer: nn.MultiheadAttention, call: LayerCall) -> dict[str, Tensor]:
    """Return what units of attention are at each place: of a query and its key the product."""
    seen, *_ = project_again(layer, call.args)
    if len({made.shape[:2] for each in seen.outputs.values() for made in each}) > 1:
        raise InputError(
            f"Activations of {type(layer).__name__} units can't be laid side by side where queries "
            "and keys differ in number. Take a criterion of weights, such as 'fisher'."
        )
    made = {
        name: scored(torch.cat(each, -1).detach().flatten(0, 1))
        for name, each in seen.outputs.items()
    }
    if PACKED not in made:
        pairs, values = (SEPARATE[0], SEPARATE[2])
        return {pairs: made[pairs] * made[SEPARATE[1]], values: made[values], OUT: made[OUT]}
    sizes = head_sizes(layer, prunable_parameters(layer))
    rows = sizes.count * sizes.width
    queries, keys, held = made[PACKED].split([rows, rows, sizes.count * sizes.values], -1)
    return {PACKED: torch.cat([queries * keys, held], -1), OUT: made[OUT]}
