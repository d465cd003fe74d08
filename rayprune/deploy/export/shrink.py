"""A policy made physically smaller for its export, with the proof that it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from rayprune.deploy.compaction.compact import compact
from rayprune.deploy.compaction.plan import Plan
from rayprune.deploy.compaction.proof import prove
from rayprune.deploy.policy.capture import example_inputs
from rayprune.deploy.policy.interface import Array, Port
from rayprune.deploy.policy.policy import DeployablePolicy

_EXAMPLES: Final = 3
_AT_ONCE: Final = 256
_MOST: Final = 1024
"""Recorded observations that the proof runs over, in both precisions; the file sees them all."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A policy without its dead units."""

    policy: DeployablePolicy
    certificate: dict[str, Any]
    """As `rayprune.deploy.compaction.proof.prove` gives it."""
    plan: Plan

    def inputs(self, given: Sequence[Array]) -> list[Array]:
        """Return the old policy's inputs as the smaller one takes them: states may be smaller."""
        adapted = self.plan.adapt(tuple(torch.from_numpy(x) for x in given))
        return [x.numpy() for x in adapted]

    def grounded(self, given: Sequence[Array]) -> list[Array]:
        """Return the old policy's inputs, states zero where no episode moves them from zero."""
        return [x.numpy() for x in self.plan.ground(tuple(torch.from_numpy(x) for x in given))]

    def outputs(self, given: Sequence[Array]) -> list[Array]:
        """Return the old policy's outputs in the form of the smaller one's."""
        adapted = self.plan.adapt_outputs(tuple(torch.from_numpy(x) for x in given[1:]))
        return [given[0], *(x.numpy() for x in adapted)]


def shrink(policy: DeployablePolicy, recorded: Sequence[Array]) -> Shrunk:
    """Remove a policy's dead units, in a copy, and prove that the outputs stay the same.

    Args:
        policy: a `plain_copy`.
        recorded: its inputs as they were met, which the proof runs over besides random ones.

    Raises:
        InvariantError: the smaller policy computes something else; names the layer.
    """
    example = example_inputs(policy, _EXAMPLES)
    small = compact(policy, example, forward=_undecided, shrink_states=True)
    certificate = prove(
        policy,
        small.module,
        small.plan,
        example,
        forward=_undecided,
        observations=_in_parts(recorded),
    )
    module = small.module
    assert isinstance(module, DeployablePolicy)
    module.interface = replace(
        module.interface, states=_ports(policy.interface.states, small.example_input)
    )
    return Shrunk(module, certificate, small.plan)


def unshrunk(policy: DeployablePolicy) -> Shrunk:
    """Return a policy as it is, for those who want its shapes kept."""
    return Shrunk(policy, {"removed": [], "left": []}, Plan())


def _undecided(policy: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    # Without the action: two choices that are as good as equal may come out either way.
    outputs: tuple[Tensor, ...] = policy(*inputs)[1:]
    return outputs


def _ports(states: Sequence[Port], example: Sequence[Tensor]) -> tuple[Port, ...]:
    """Return the states' ports with the shapes that the smaller policy takes."""
    given = example[len(example) - len(states) :]
    return tuple(
        replace(port, shape=tuple(x.shape[1:])) for port, x in zip(states, given, strict=True)
    )


def _in_parts(recorded: Sequence[Array]) -> list[tuple[Tensor, ...]]:
    count = min(len(recorded[0]), _MOST)
    return [
        tuple(torch.from_numpy(x[i : min(i + _AT_ONCE, count)]) for x in recorded)
        for i in range(0, count, _AT_ONCE)
    ]
