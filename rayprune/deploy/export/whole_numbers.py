"""A policy in whole numbers on its way to a file: made, written, and proven to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from rayprune.deploy.export.quantisation import closeness
from rayprune.deploy.integer.policy import IntegerPolicy, Quantised
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.odd_inputs import odd_cases, odd_inputs
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import in_parts, module_run, random_inputs
from rayprune.errors import InvariantError

OBSERVATIONS: Final = 4000
"""Random ones, as many again ten times as far out, and what is odd in each element."""
_FAR: Final = 10.0
_EXTREMES: Final = (3.4e38, -3.4e38, 1e-40, -0.0)


def told_of(found: Quantised, exact: DeployablePolicy, recorded: Sequence[Array]) -> dict[str, Any]:
    """Return what a certificate says of a policy in whole numbers, before there is a file.

    Args:
        found: the policy.
        exact: it in floats, with nothing rounded that was not trained so.
        recorded: inputs as they were met.
    """
    run = in_parts(module_run(found.policy), recorded)
    return {
        "calibrated": found.calibrated,
        "layers": found.layers,
        "closeness": closeness(found.policy.interface, in_parts(module_run(exact), recorded), run),
        "as_trained": closeness(
            found.policy.interface, in_parts(module_run(found.rounded), recorded), run
        ),
    }


def prove_bits(
    policy: IntegerPolicy, artifact: Artifact, recorded: Sequence[Array], seed: int
) -> dict[str, Any]:
    """Compare a file with the model of its arithmetic, bit by bit.

    Args:
        policy: the model.
        artifact: the file, opened.
        recorded: inputs as they were met.
        seed: of the random ones.

    Returns:
        How many observations of each kind were equal.

    Raises:
        InvariantError: an output differs in a bit.
    """
    counts = {}
    for kind, given in _cases(policy, recorded, seed).items():
        wanted, had = (in_parts(run, given) for run in (module_run(policy), artifact.run))
        for port, one, other in zip(policy.interface.outputs, wanted, had, strict=True):
            if not _same_bits(one, other):
                raise InvariantError(
                    f"The exported file doesn't compute what its model in whole numbers does: on "
                    f"{kind} observations `{port.name}` differs. Nothing was written. Please "
                    "report it with the checkpoint."
                )
        counts[kind] = len(given[0])
    return counts


def _cases(
    policy: IntegerPolicy, recorded: Sequence[Array], seed: int
) -> Mapping[str, list[Array]]:
    ports = policy.interface
    drawn = random_inputs(ports, list(recorded), OBSERVATIONS, seed)
    far = [x * np.float32(_FAR) if x.dtype == np.float32 else x for x in drawn]
    # NaN and infinities come of the cases themselves.
    odd = odd_cases(ports, seed)
    extreme = [case._replace(value=value) for case in odd for value in _EXTREMES]
    return {
        "recorded": list(recorded),
        "random": drawn,
        "far": far,
        "odd": odd_inputs(recorded, [*odd, *extreme]) if odd else [x[:1] for x in recorded],
    }


def _same_bits(one: Array, other: Array) -> bool:
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    nan = np.isnan(one)
    # Which NaN it is no one can tell.
    here, there = (np.where(nan, 0, x).astype(np.float32).view(np.int32) for x in (one, other))
    return bool(np.array_equal(nan, np.isnan(other)) and np.array_equal(here, there))
