"""NaN and infinities in a policy's inputs: a file must not make a plausible action of them.

A sensor that fails gives NaN, and a clamp or a ReLU that is written as a comparison takes NaN for a
number. What torch makes of it is what a file has to make of it: NaN in, NaN out. Of an infinity
torch makes NaN (in a sum, or times zero) or a number (by a tanh, or by bounds). There a file may be
more careful than torch, but not less.

A discrete choice is always one of the choices, in torch too. What it was made of, ``dist_inputs``,
says that it is worth nothing; in C the function returns 1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from rayprune.deploy.compaction.double_precision import Double
from rayprune.deploy.policy.agreement import TOLERANCE
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import InvariantError

Run = Callable[[list[Array]], list[Array]]
VALUES: Final = (math.nan, math.inf, -math.inf)
_MOST_NUMBERS: Final = 2**22
"""Fed in all: of an image not every pixel is tried."""
_LEAST: Final = 16
"""Elements that are tried however large they all are."""


class Odd(NamedTuple):
    """One element of one input, replaced."""

    place: int
    """Of the input, in the interface's order."""
    element: int
    """Of the flattened input."""
    value: float


def odd_cases(interface: Interface, seed: int) -> list[Odd]:
    """Return what is tried: each element of each input of floats, or as many as time allows."""
    elements = [
        (place, element)
        for place, port in enumerate(interface.inputs)
        if port.dtype == "float32"
        for element in range(math.prod(port.shape))
    ]
    numbers = sum(math.prod(port.shape) for port in interface.inputs)
    most = max(_LEAST, _MOST_NUMBERS // (len(VALUES) * max(1, numbers)))
    if len(elements) > most:
        drawn = np.random.default_rng(seed).choice(len(elements), most, replace=False)
        elements = [elements[index] for index in sorted(drawn)]
    return [Odd(*element, value) for element in elements for value in VALUES]


def odd_inputs(recorded: Sequence[Array], cases: Sequence[Odd]) -> list[Array]:
    """Return the first of the recorded inputs once for each case, the element replaced."""
    inputs = [np.repeat(x[:1], len(cases), axis=0) for x in recorded]
    for row, case in enumerate(cases):
        inputs[case.place][row].reshape(-1)[case.element] = case.value
    return inputs


def poisonous(outputs: Sequence[Array]) -> Array:
    """Return for which rows all outputs of floats are nothing but NaN, shape ``(rows,)``."""
    floats = [x for x in outputs if x.dtype.kind == "f"]
    found = [np.isnan(x).all(axis=tuple(range(1, x.ndim))) for x in floats]
    whole: Array = np.logical_and.reduce(found)
    return whole


def prove_odd(
    policy: DeployablePolicy, run: Run, recorded: Sequence[Array], seed: int
) -> dict[str, Any]:
    """Feed NaN and infinities to a file, and compare with what torch makes of them.

    Args:
        policy: what the file was written of.
        run: runs the file.
        recorded: inputs of it as they were met.
        seed: of which elements are tried, where they are too many.

    Returns:
        What the certificate says: how many inputs, and of how many NaN came out.

    Raises:
        InvariantError: the file isn't as careful as torch; names the element.
    """
    cases = odd_cases(policy.interface, seed)
    if not cases:
        return {"inputs": 0, "nan": 0}
    inputs = odd_inputs(recorded, cases)
    expected = [*_expected(policy, inputs)]
    alone = [run([x[row : row + 1] for x in inputs]) for row in range(len(cases))]
    # One at a time, and beside each other: runtimes have other kernels for either.
    for got in (run(inputs), [np.concatenate(parts) for parts in zip(*alone, strict=True)]):
        wrong = np.logical_and.reduce([_wrong(cases, want, got) for want in expected])
        if wrong.any():
            row = int(wrong.argmax())
            nan = any(np.isnan(x[row]).any() for x in expected[0] if x.dtype.kind == "f")
            raise _refusal(policy.interface, cases[row], "NaN" if nan else "no NaN")
    return {"inputs": len(cases), "nan": int(poisonous(expected[0]).sum())}


def _expected(policy: DeployablePolicy, inputs: list[Array]) -> Iterator[list[Array]]:
    """Yield what torch makes of inputs, in float32 and in float64.

    Of infinities its vectors of float32 make NaN in some activations, by their approximation alone.
    """
    with torch.inference_mode():
        yield [x.numpy() for x in policy(*map(torch.from_numpy, inputs))]
        double = copy.deepcopy(policy).double()
        exact = [torch.from_numpy(x) for x in inputs]
        exact = [x.double() if x.is_floating_point() else x for x in exact]
        try:
            with Double():
                yield [x.numpy() for x in double(*exact)]
        except RuntimeError:  # a type of its own making that can't be doubled
            return


def _wrong(cases: Sequence[Odd], expected: Sequence[Array], got: Sequence[Array]) -> Array:
    """Return which rows have an output that isn't as careful as torch's, shape ``(rows,)``."""
    infinite = np.array([math.isinf(case.value) for case in cases])
    found = np.zeros(len(cases), bool)
    for want, have in zip(expected, got, strict=True):
        if want.dtype.kind != "f":
            continue
        want, have = (x.reshape(len(cases), -1).astype(np.float64) for x in (want, have))
        with np.errstate(invalid="ignore"):
            near = np.abs(have - want) <= TOLERANCE * np.maximum(1.0, np.abs(want))
        near &= np.isfinite(want)
        alike = near | (have == want) | (np.isnan(want) & np.isnan(have))
        careful = infinite[:, None] & (np.isnan(have) | ~np.isfinite(want) & ~np.isfinite(have))
        found |= ~(alike | careful).all(axis=1)
    return found


def _refusal(interface: Interface, case: Odd, gives: str) -> InvariantError:
    port = interface.inputs[case.place]
    return InvariantError(
        f"The exported file makes of {case.value} in element {case.element} of `{port.name}` "
        f"something else than the policy does in torch, where {gives} comes out. Nothing was "
        "written. Take another format, and please report it with the checkpoint."
    )
