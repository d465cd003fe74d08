"""The proof that an exported file computes what the policy does that it was made of."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any, Final

import numpy as np

from rayprune.deploy.compaction.double_precision import Double
from rayprune.deploy.export.shrink import Shrunk
from rayprune.deploy.formats import open_artifact
from rayprune.deploy.formats.base import EXAMPLES, Examples
from rayprune.deploy.policy.agreement import TOLERANCE, Agreement, agreement
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.odd_inputs import odd_cases, odd_inputs, poisonous, prove_odd
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import Run, in_parts, module_run, random_inputs
from rayprune.errors import InputError, InvariantError, RaypruneError, first_line

RANDOM_OBSERVATIONS: Final = 1000


class FileProof:
    """What a policy does, to hold its exported file against.

    Args:
        plain: the policy, masked as it was.
        small: the policy as it is written.
        recorded: the policy's inputs as they were met.
        seed: of the random inputs.
    """

    def __init__(
        self, plain: DeployablePolicy, small: Shrunk, recorded: list[Array], seed: int
    ) -> None:
        self._plain, self._small, self._recorded, self._seed = plain, small, recorded, seed
        ports = plain.interface
        self._inputs = {
            "recorded": recorded,
            "random": random_inputs(ports, recorded, RANDOM_OBSERVATIONS, seed),
        }

    def examples(self) -> Examples:
        """Return recorded inputs, the outputs expected of them, and what has to give NaN alone."""
        small = self._small
        some = small.grounded([x[:EXAMPLES] for x in self._recorded])
        inputs, outputs = small.inputs(some), small.outputs(module_run(self._plain)(some))
        cases = odd_cases(small.policy.interface, self._seed)
        made = module_run(small.policy)(odd_inputs(inputs, cases))
        return Examples(inputs, outputs, list(itertools.compress(cases, poisonous(made))))

    def equivalence(self, path: Path) -> dict[str, Any]:
        """Run a file on the recorded inputs and on random ones; return how close it comes.

        Raises:
            InvariantError: it computes something else.
        """
        artifact, expected = open_artifact(path), module_run(self._plain)
        return {
            name: _proven(self._small, expected, artifact.run, given, name).to_dict()
            for name, given in self._inputs.items()
        }

    def nan_and_infinity(self, path: Path) -> dict[str, Any]:
        """Run a file on NaN and infinities; return what came of them.

        Raises:
            InvariantError: it doesn't give what the policy does.
        """
        small = self._small
        given = small.inputs(small.grounded([x[:1] for x in self._recorded]))
        return prove_odd(small.policy, open_artifact(path).run, given, self._seed)

    def explained(self, error: InvariantError) -> RaypruneError:
        """Return ``error``, or one that says that float32 is too coarse for the policy."""
        worst = max(_rounding(self._plain, given) for given in self._inputs.values())
        if worst < TOLERANCE / 4:
            return error
        return InputError(
            f"The policy is rounded too much to be compared within {TOLERANCE:.0e}: in float32 its "
            f"own outputs are {worst:.2e} off those in float64. What it observes or computes on "
            "its way is large against what it gives: normalise its observations (pixels divided by "
            "255, RLlib's MeanStdFilter) when it is trained. Nothing was written."
        )


def _proven(small: Shrunk, expected: Run, got: Run, inputs: list[Array], name: str) -> Agreement:
    """Compare a file's outputs with those of the policy that was to be exported, masked as it was.

    Raises:
        InvariantError: they differ.
    """
    interface = small.policy.interface
    inputs = small.grounded(inputs)
    wanted = small.outputs(in_parts(expected, inputs))
    had = _run(got, small.inputs(inputs))
    noise = None
    if interface.noise_kind == "gumbel":
        noise = wanted[1] + inputs[len(interface.observations)]
    found = agreement(interface, wanted, had, noise)
    if not found.holds:
        raise InvariantError(
            f"The exported file doesn't compute what the policy does: on {found.observations} "
            f"{name} observations `{found.worst}` differs by {found.max_error:.2e} (allowed: "
            f"{TOLERANCE:.0e}), and {found.differing_actions} action(s) differ. Nothing was "
            "written. Please report it with the checkpoint."
        )
    return found


def _run(got: Run, inputs: list[Array]) -> list[Array]:
    """Run a file.

    Raises:
        InputError: what should run it can't.
    """
    try:
        return in_parts(got, inputs)
    except Exception as error:  # runtimes' own, which share no base class
        raise InputError(
            f"The file was exported, but can't be run: {first_line(error)}. Nothing was written. "
            "Take another `--format`, or build the module of other layers."
        ) from error


def _rounding(policy: DeployablePolicy, inputs: list[Array]) -> float:
    """Return how far a policy's outputs in float32 are from those in float64."""
    double = module_run(copy.deepcopy(policy).double())
    exact = [x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs]
    try:
        with Double():
            wanted = in_parts(double, exact)
    except RuntimeError:  # a type of its own making that can't be doubled: nothing is known
        return 0.0
    return agreement(policy.interface, wanted, in_parts(module_run(policy), inputs)).max_error
