"""Gradients of a minibatch by replaying what it took to compute another's.

A minibatch is computed as RLlib does, and once more in the leanest way, which is recorded. The next
one is computed as RLlib does and replayed; only if all gradients are the same to the bit, every
time so far, are those that follow replayed alone. It is seen to again in each update that logs;
where that takes longer than replaying saves, nothing is replayed for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rayprune.rllib.learner.updates.programs import Program, program_of, same_tensors
from rayprune.rllib.learner.updates.recording import NotRecordable, record
from rayprune.rllib.learner.updates.replay_gain import ReplayGain
from rayprune.rllib.settings.foreign_code import is_known
from rayprune.rllib.settings.kept_parts import keep

TRIES: Final = 3
"""Recordings of one Learner that may turn out not to hold for other minibatches."""

_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FORWARDS: Final = ("forward", "_forward", "_forward_train", "forward_train")


class Computed(NamedTuple):
    """What is computed of a minibatch."""

    gradients: dict[Any, Tensor | None]
    """By parameter."""
    td_errors: dict[str, Tensor]
    """By module id; empty where the algorithm has none."""
    carried: list[Tensor]
    """What the next loss takes over, see `LossState`."""

    @property
    def tensors(self) -> list[Tensor | None]:
        """All of it."""
        return [*self.gradients.values(), *self.td_errors.values(), *self.carried]


Compute = Callable[[], Computed]


class Replays:
    """Records and replays the gradients of one Learner."""

    def __init__(self) -> None:
        self._recorded: _Recorded | None = None
        self._holds = False
        self._failures = 0
        self._gain = ReplayGain()

    @property
    def are_off(self) -> bool:
        """Whether recordings haven't held too often."""
        return self._failures >= TRIES

    def begin(self) -> None:
        """Trust no recording until one is seen to hold: numbers in the loss may be others."""
        self._holds = False
        self._gain.begin_round()

    def replayed(self, batch: Mapping[str, Any], learner: Any) -> Computed | None:
        """Return what is computed of a minibatch, if a recording holds for it.

        Args:
            batch: tensors by column by module id.
            learner: whose parameters and whose loss are asked for.
        """
        recorded = self._recorded
        if not self._holds or recorded is None:
            return None
        inputs = _Inputs(batch, learner)
        if not recorded.fits(inputs, learner._params):
            return None
        self._gain.count_replay()
        return recorded.run(inputs)

    def watched(
        self, batch: Mapping[str, Any], learner: Any, computes: tuple[Compute, Compute]
    ) -> Computed:
        """Compute as RLlib does, and record the same or see whether a recording holds for it.

        Args:
            batch: tensors by column by module id.
            learner: its parameters are read, and its modules.
            computes: what computes of that batch as RLlib does, and what in the leanest way.
        """
        as_rllib, bare = computes
        if self._gain.pauses:
            return as_rllib()
        inputs = _Inputs(batch, learner)
        drawn = _Generators(inputs.tensors)
        with self._gain.computing():
            computed = as_rllib()
        if self._may_watch(learner):
            put = learner._loss_state.put
            put(learner, batch, inputs.carried)
            with drawn.as_before():
                self._watch(inputs, learner, computed, bare, drawn)
            put(learner, batch, computed.carried)
        return computed

    def _may_watch(self, learner: Any) -> bool:
        layers = _layers_of(learner)
        foreign = [name for layer in layers if (name := _foreign_in(layer))]
        if foreign:
            self._stop(f"{foreign[0]} may do more than torch is told")
        watched = any(_is_hooked(layer) or getattr(layer, "observes", False) for layer in layers)
        return not foreign and not watched

    def _watch(
        self,
        inputs: _Inputs,
        learner: Any,
        computed: Computed,
        bare: Compute,
        drawn: _Generators,
    ) -> None:
        recorded = self._recorded
        if recorded is not None and recorded.fits(inputs, learner._params):
            with self._gain.comparing():
                same = recorded.gives(computed, inputs)
            self._holds = same and drawn.are_where_they_were()
            if not self._holds:
                self._forget("a recording gives other gradients")
            return
        if recorded is not None:
            self._forget("no two minibatches are alike")
            if self.are_off:
                return
        try:
            self._recorded = _Recorded(inputs, learner, bare)
        except NotRecordable as reason:
            self._stop(str(reason))
            return
        if not (self._recorded.is_of(computed) and drawn.are_where_they_were()):
            self._forget("the loss alone has other gradients")

    def _stop(self, why: str) -> None:
        self._failures = TRIES
        self._forget(why)

    def _forget(self, why: str) -> None:
        # One that did hold, and doesn't any more, was of numbers that follow a schedule.
        if self._recorded is None or not self._recorded.has_held:
            self._failures += 1
        self._recorded = None
        self._gain.forget()
        if self.are_off:
            keep("way to gradients of the Learner", why)


class _Inputs:
    """A minibatch's tensors, and those that its loss takes over from the last one.

    Args:
        batch: tensors by column by module id.
        learner: whose loss is to be computed.
    """

    def __init__(self, batch: Mapping[str, Any], learner: Any) -> None:
        self.tensors: list[Tensor] = []
        names: list[Any] = []
        for module_id, columns in batch.items():
            names += [module_id, *columns]
            for column in columns.values():
                self.tensors.extend([column] if isinstance(column, Tensor) else tree_leaves(column))
        self.carried: list[Tensor] = learner._loss_state.carried(learner, batch)
        self.tensors.extend(self.carried)
        shapes = [(tensor.shape, tensor.dtype) for tensor in self.tensors]
        self.form = names, shapes, learner._loss_state.phase(learner)
        """Of which modules and columns they are, how large, and which loss will be computed."""


class _Recorded:
    """A program that computes gradients of minibatches of one shape.

    Args:
        inputs: a minibatch.
        learner: whose parameters it reads.
        compute: what is to be recorded.
    """

    def __init__(self, inputs: _Inputs, learner: Any, compute: Compute) -> None:
        found: list[Computed] = []

        def outputs() -> list[Tensor | None]:
            found.append(compute())
            return found[0].tensors

        recording = record(inputs.tensors, outputs)
        self._first = found[0]
        self.has_held = False
        self._keys = list(found[0].gradients), list(found[0].td_errors)
        self._form = inputs.form
        self._known = [id(parameter) for parameter in learner._params]
        self._weights = [p for layer in _layers_of(learner) for p in layer._parameters.values()]
        self._state = self._state_now()
        self._hooks = [vars(layer)[name] for layer in _layers_of(learner) for name in _HOOKS]
        self._program: Program = program_of(recording)

    def fits(self, inputs: _Inputs, parameters: Iterable[Any]) -> bool:
        """Whether it was recorded with such inputs, these parameters and no one watching."""
        return (
            inputs.form == self._form
            and [id(parameter) for parameter in parameters] == self._known
            and self._state_now() == self._state
            and not any(self._hooks)
        )

    def _state_now(self) -> list[Any]:
        """Return where weights lie, which learn, and whether someone changes their gradients."""
        return [
            weight is not None
            and (weight.data_ptr(), weight.requires_grad, bool(weight._backward_hooks))
            for weight in self._weights
        ]

    def run(self, inputs: _Inputs) -> Computed:
        """Return what it computes of a minibatch."""
        made = self._program(inputs.tensors)
        parameters, module_ids = self._keys
        beside: list[Any] = made[len(parameters) :]
        return Computed(
            dict(zip(parameters, made, strict=False)),
            dict(zip(module_ids, beside, strict=False)),
            beside[len(module_ids) :],
        )

    def is_of(self, computed: Computed) -> bool:
        """Whether what was recorded came to the same, to the bit."""
        first, self._first = self._first, Computed({}, {}, [])
        return _are_same(first, computed)

    def gives(self, computed: Computed, inputs: _Inputs) -> bool:
        """Whether it computes the same, to the bit."""
        same = _are_same(self.run(inputs), computed)
        self.has_held |= same
        return same


class _Generators:
    """Torch's generators of random numbers, as they are now.

    Args:
        inputs: on whose devices they are.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        self._devices = {tensor.device for tensor in inputs if tensor.device.type == "cuda"}
        self._before = self._after = self._states()

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Have them go on from there for a while, and put back how far they have come since."""
        self._after = self._states()
        self._set(self._before)
        try:
            yield
        finally:
            self._set(self._after)

    def are_where_they_were(self) -> bool:
        """Whether as much has been drawn `as_before` as had been drawn before that."""
        now, after = self._states(), self._after
        return torch.equal(now[0], after[0]) and all(
            torch.equal(state, after[1][device]) for device, state in now[1].items()
        )

    def _states(self) -> tuple[Tensor, dict[torch.device, Tensor]]:
        return torch.get_rng_state(), {d: torch.cuda.get_rng_state(d) for d in self._devices}

    def _set(self, states: tuple[Tensor, dict[torch.device, Tensor]]) -> None:
        torch.set_rng_state(states[0])
        for device, state in states[1].items():
            torch.cuda.set_rng_state(state, device)


def _are_same(one: Computed, other: Computed) -> bool:
    keys = len(one.gradients) == len(other.gradients) and list(one[1]) == list(other[1])
    same = keys and all(a is b for a, b in zip(one.gradients, other.gradients, strict=True))
    return same and same_tensors(one.tensors, other.tensors)


def _is_hooked(layer: nn.Module) -> bool:
    watched = (
        weight is not None and weight._backward_hooks for weight in layer._parameters.values()
    )
    return any(getattr(layer, hooks) for hooks in _HOOKS) or any(watched)


def _foreign_in(layer: nn.Module) -> str:
    """Name what of a layer is a user's, its class or a forward of its own; empty if nothing is."""
    if not is_known(type(layer)):
        return type(layer).__name__
    return next((f"a `{name}` put on a layer" for name in _FORWARDS if name in vars(layer)), "")


def _layers_of(learner: Any) -> list[nn.Module]:
    held = learner.module._rl_modules.values()
    return [layer for module in held for layer in module.modules()]
