"""Recorded operations, made into a function that does no more than what its results need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from rayprune.rllib.learner.updates.recording import Call, Recording, storage_of

Program = Callable[[list[Tensor]], list[Tensor | None]]
"""Takes other inputs of the recorded shapes; returns what was made of them."""

_aten: Final = torch.ops.aten
_LIFT: Final = _aten.lift_fresh.default
_SAME: Final = frozenset({_aten.detach.default, _LIFT, _aten.alias.default})
"""Return what they are given, as far as it isn't differentiated."""
_CONSTANT: Final = frozenset(
    {
        _aten.scalar_tensor.default,
        _aten.ones_like.default,
        _aten.zeros_like.default,
        _aten.new_zeros.default,
        _aten.zeros.default,
    }
)
"""Return the same each time for tensors of one shape."""
_OF_TENSORS: Final[Mapping[Any, Any]] = {
    _aten.mul.Scalar: _aten.mul.Tensor,
    _aten.div.Scalar: _aten.div.Tensor,
    _aten.eq.Scalar: _aten.eq.Tensor,
    _aten.ne.Scalar: _aten.ne.Tensor,
    _aten.ge.Scalar: _aten.ge.Tensor,
    _aten.gt.Scalar: _aten.gt.Tensor,
    _aten.le.Scalar: _aten.le.Tensor,
    _aten.lt.Scalar: _aten.lt.Tensor,
    _aten.mul.Tensor: _aten.mul.Tensor,
    _aten.div.Tensor: _aten.div.Tensor,
    _aten.add.Tensor: _aten.add.Tensor,
    _aten.sub.Tensor: _aten.sub.Tensor,
}
"""Operations of a tensor and a number, which torch makes a tensor of at each call."""
_DRAWS: Final = torch.Tag.nondeterministic_seeded
_FRESH: Final = frozenset({_aten.new_empty_strided.default, _aten.empty_like.default})


def program_of(recording: Recording) -> Program:
    """Make a program of what was recorded."""
    return _Writer(recording).program()


class _Writer:
    """Writes the source of one program."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._same: dict[int, Tensor] = {}
        self._viewed: dict[int, Call] = {}
        self._written = {storage_of(t) for call in recording.calls for t in call.written}
        self._known: dict[Any, Tensor] = {}
        calls = [self._copying(call) for call in recording.calls]
        calls = _with_flat_sums(calls)
        self._calls = [call for call in calls if not self._is_same(call)]
        self._skip_copies()
        self._held: dict[str, Any] = {}
        self._names = {id(t): f"i{n}" for n, t in enumerate(recording.inputs)}
        self._lines: list[str] = []

    def program(self) -> Program:
        """Return the function."""
        needed = self._needed()
        written = {storage_of(t) for call in needed for t in call.written}
        for call in needed:
            if self._never_changes(call, written):
                self._hold_results(call)
            else:
                self._write(call)
        results = [None if out is None else self._name(out) for out in self._recording.outputs]
        inputs = ", ".join(f"i{n}" for n in range(len(self._recording.inputs)))
        body = [f"[{inputs}] = inputs", *self._lines, f"return [{', '.join(map(str, results))}]"]
        source = "def program(inputs):\n" + "".join(f"    {line}\n" for line in body)
        exec(compile(source, "<recorded gradients>", "exec"), self._held)
        # Nothing is differentiated, but kernels of LSTMs keep what is needed only if it may be.
        made: Program = self._held["program"]
        return made

    def _copying(self, call: Call) -> Call:
        """Return a call that makes a tensor anew each time, if it is written to."""
        if call.function is not _LIFT or storage_of(call.result) not in self._written:
            return call
        return Call(_aten.clone.default, call.args, {}, call.result)

    def _is_same(self, call: Call) -> bool:
        """Whether a call returns what is there already; note what that is."""
        if not isinstance(call.result, Tensor) or call.written:
            return False
        there = self._there(call)
        if there is None:
            if storage_of(call.result) not in self._written:
                self._known[self._key(call)] = call.result
            self._viewed[id(call.result)] = call
            return False
        self._same[id(call.result)] = there
        return True

    def _there(self, call: Call) -> Tensor | None:
        if call.function in _SAME:
            return self._first(call.args[0])
        if call.function is _aten.t.default:
            before = self._viewed.get(id(self._first(call.args[0])))
            if before is not None and before.function is _aten.t.default:
                return self._first(before.args[0])
        if any(storage_of(tensor) in self._written for tensor in [call.result, *call.read]):
            return None
        if _is_by_one(call) or _is_first_power(call):
            return self._first(call.args[0])
        return self._known.get(self._key(call)) if _is_repeatable(call) else None

    def _key(self, call: Call) -> Any:
        leaves, spec = tree_flatten((call.args, dict(call.kwargs)))
        named = [id(self._first(x)) if isinstance(x, Tensor) else (type(x), x) for x in leaves]
        return call.function, str(spec), tuple(map(str, named))

    def _first(self, tensor: Tensor) -> Tensor:
        """Return what a tensor is the same as."""
        return self._same.get(id(tensor), tensor)

    def _skip_copies(self) -> None:
        """Take gradients where they were made: recording has kept autograd from doing so."""
        fresh = {id(call.result) for call in self._calls if call.function in _FRESH}
        outputs = [self._first(out) for out in self._recording.outputs if out is not None]
        wanted = fresh & {id(out) for out in outputs}
        taken = {storage_of(out) for out in outputs}
        skipped: set[int] = set()
        for call in self._calls:
            if call.function is not _aten.copy_.default or id(call.args[0]) not in wanted:
                continue
            if _is_alike(*call.args[:2]) and self._is_free(call.args[1], taken):
                taken.add(storage_of(call.args[1]))
                self._same[id(call.args[0])] = self._first(call.args[1])
                skipped.add(id(call.args[0]))
        self._calls = [call for call in self._calls if id(call.result) not in skipped]

    def _is_free(self, tensor: Tensor, taken: set[int]) -> bool:
        """Whether a tensor was made by these calls, in memory that no other result lies in."""
        key = storage_of(tensor)
        if key in taken:
            return False
        return any(
            storage_of(made) == key and not call.function.is_view
            for call in self._calls
            for made in call.made
        )

    def _needed(self) -> list[Call]:
        """Return the calls that results depend on, those that draw for later ones too, in order."""
        outputs = [self._first(out) for out in self._recording.outputs if out is not None]
        used = {id(out) for out in outputs}
        live = {storage_of(out) for out in outputs}
        needed = []
        for call in reversed(self._calls):
            if (
                any(id(self._first(made)) in used for made in call.made)
                or any(storage_of(tensor) in live for tensor in call.written)
                or _DRAWS in call.function.tags
            ):
                needed.append(call)
                # Of what constants are like, no more than the shape is read.
                read = [] if call.function in _CONSTANT else call.read
                used |= {id(self._first(tensor)) for tensor in read}
                live |= {storage_of(tensor) for tensor in read}
        return needed[::-1]

    def _never_changes(self, call: Call, written: set[int]) -> bool:
        """Whether a call returns the same each time: a view of what stays, or a constant."""
        if call.function in _CONSTANT:
            # Who takes a result over writes to it.
            kept = written | {storage_of(t) for t in self._recording.outputs if t is not None}
            return not any(storage_of(made) in kept for made in call.made)
        stay = all(self._stays(tensor) for tensor in call.read)
        return bool(call.function.is_view and stay and call.read)

    def _stays(self, tensor: Tensor) -> bool:
        name = self._names.get(id(self._first(tensor)), "")
        return name.startswith("h") or (not name and not self._is_made(tensor))

    def _is_made(self, tensor: Tensor) -> bool:
        first = id(self._first(tensor))
        return any(id(made) == first for call in self._calls for made in call.made)

    def _hold_results(self, call: Call) -> None:
        for made in call.made:
            # Autograd's graph hangs on it.
            self._hold(made, made.detach())

    def _hold(self, tensor: Tensor, held: Tensor) -> str:
        name = f"h{len(self._held)}"
        self._held[name] = held
        self._names[id(tensor)] = name
        return name

    def _write(self, call: Call) -> None:
        call = _of_tensors(call)
        given = [self._literal(value) for value in call.args]
        given += [f"{key}={self._literal(value)}" for key, value in call.kwargs.items()]
        function = (
            f"f_{call.function._schema.name.partition('::')[2]}_{call.function._overloadname}"
        )
        self._held[function] = call.function._op
        called = f"{function}({', '.join(given)})"
        one = isinstance(call.result, Tensor)
        # Gradients that nobody asked for are None.
        results = [call.result] if one else call.result
        names = [self._new_name(r) if isinstance(r, Tensor) else "_" for r in results]
        target = names[0] if one else f"[{', '.join(names)}]"
        self._lines.append(f"{target} = {called}")

    def _new_name(self, tensor: Tensor) -> str:
        """Name a result, or what was written to, which has a name."""
        first = id(self._first(tensor))
        return self._names.setdefault(first, f"v{len(self._names)}")

    def _name(self, tensor: Tensor) -> str:
        first = self._first(tensor)
        if id(first) in self._names:
            return self._names[id(first)]
        # The `data` of numbers that follow a schedule is put into other memory; weights' is not.
        return self._hold(first, first.detach() if first.requires_grad else first)

    def _literal(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self._name(value)
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self._literal, value))}]"
        if value is None or isinstance(value, bool | int | str) or _is_finite(value):
            return repr(value)
        name = f"k{len(self._held)}"
        self._held[name] = value
        return name


def _is_by_one(call: Call) -> bool:
    """Whether a call multiplies by one, and keeps shape and type."""
    if call.function is not _aten.mul.Tensor or type(call.args[1]) is not float:
        return False
    return call.args[1] == 1.0 and _is_alike(call.args[0], call.result)


def _is_first_power(call: Call) -> bool:
    return call.function is _aten.pow.Tensor_Scalar and call.args[1] == 1.0


def _with_flat_sums(calls: Iterable[Call]) -> list[Call]:
    """Return calls, those sums over rows flat at once of which a bias' gradient is a view."""
    sums: dict[int, Call] = {}
    found = []
    for call in calls:
        if call.function is _aten.sum.dim_IntList and call.args[1:] == ([0], True):
            sums[id(call.result)] = call
        elif call.function is _aten.view.default and id(call.args[0]) in sums:
            summed = sums[id(call.args[0])].args[0]
            if summed.dim() == 2 and call.args[1] == [summed.shape[1]]:
                call = Call(_aten.sum.dim_IntList, (summed, [0], False), {}, call.result)
        found.append(call)
    return found


def _of_tensors(call: Call) -> Call:
    """Return a call that has a tensor in a number's place, where that is the same and sooner."""
    function = _OF_TENSORS.get(call.function)
    if function is None or len(call.args) != 2 or call.kwargs or not _is_finite(call.args[1]):
        return call
    one, number = call.args
    if not isinstance(one, Tensor) or one.dtype not in (torch.float32, torch.float64):
        return call
    return Call(function, (one, torch.tensor(number, dtype=one.dtype)), {}, call.result)


def _is_repeatable(call: Call) -> bool:
    """Whether a call returns the same when it is given the same."""
    tags = call.function.tags
    return _DRAWS not in tags and call.function not in _FRESH


def _is_finite(value: Any) -> bool:
    return type(value) in (float, int) and math.isfinite(value)


def _is_alike(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape and one.stride() == other.stride()
    return same and one.dtype == other.dtype and one.device == other.device


def same_tensors(some: Iterable[Tensor | None], others: Iterable[Tensor | None]) -> bool:
    """Whether tensors are the same to the bit, NaN like NaN, and lie in the same order."""
    return all(
        one is other
        if one is None or other is None
        else one.stride() == other.stride() and _same(one, other)
        for one, other in zip(some, others, strict=True)
    )


def _same(one: Tensor, other: Tensor) -> bool:
    if torch.equal(one, other):
        return True
    alike = one.shape == other.shape and one.dtype == other.dtype and one.is_floating_point()
    return alike and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
