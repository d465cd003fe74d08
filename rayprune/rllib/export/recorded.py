"""What a policy met and did in episodes: the inputs that an export is proven on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
import tree
from ray.rllib.core.columns import Columns

from rayprune.deploy.export.quantisation import closeness
from rayprune.deploy.policy.agreement import Agreement, agreement
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.runs import draw_noise
from rayprune.errors import InvariantError
from rayprune.rllib.evaluation.steps import Acted

_MOST_STEPS: Final = 10_000
_MOST_BYTES: Final = 2**26
"""So many observations are recorded at most: images are large."""


class Recorded:
    """What a policy was given and what it did, step by step, up to a number of steps.

    Args:
        interface: of the greedy policy.
    """

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._inputs: list[list[Array]] = []
        self._did: list[tuple[Array, Array | None]] = []
        self._steps = self._bytes = 0

    def watch(self, acted: Acted) -> None:
        """Keep a step of an `Evaluator`, unless there are enough."""
        if self._steps >= _MOST_STEPS or self._bytes >= _MOST_BYTES:
            return
        batched = tree.map_structure(lambda *leaves: np.stack(leaves), *acted.observations)
        leaves = [*self._interface.leaves(batched), *self._states(acted)]
        self._inputs.append(leaves)
        logits = None if acted.logits is None else _flat(acted.logits, len(leaves[0]))
        self._did.append((np.stack(acted.for_env), logits))
        self._steps += len(leaves[0])
        self._bytes += sum(leaf.nbytes for leaf in leaves)

    def inputs(self, interface: Interface) -> list[Array]:
        """Return the steps as inputs of ``interface``, which may want noise."""
        joined = self._joined()
        count = len(interface.observations)
        return [*joined[:count], *draw_noise(interface, len(joined[0]), seed=0), *joined[count:]]

    def proven(self, run: Any) -> Agreement:
        """Compare what RLlib did with what a policy does.

        Raises:
            InvariantError: they differ.
        """
        stateless = replace(self._interface, states=())
        found = agreement(stateless, *self._both(run))
        if not found.holds:
            raise InvariantError(
                f"The policy outside RLlib doesn't do what it does there: on {found.observations} "
                f"observations `{found.worst}` differs by {found.max_error:.2e} and "
                f"{found.differing_actions} action(s) differ. Nothing was written. A module whose "
                "inference depends on more than its inputs can't be exported."
            )
        return found

    def near(self, run: Any) -> dict[str, Any]:
        """Tell how near what RLlib did is to what a policy does that rounds otherwise."""
        return closeness(self._interface, *self._both(run))

    def _both(self, run: Any) -> tuple[list[Array], list[Array]]:
        """Return actions and the distribution's inputs: RLlib's, and a policy's."""
        actions, dist_inputs = run(self._joined())[:2]
        did = np.concatenate([step[0] for step in self._did]).astype(actions.dtype)
        logits = [step[1] for step in self._did if step[1] is not None]
        # Of a Q-network RLlib gives the action alone.
        given = np.concatenate(logits) if logits else dist_inputs
        return [did, given], [actions, dist_inputs]

    def _states(self, acted: Acted) -> list[Array]:
        held = dict(tree.flatten_with_path(acted.batch.get(Columns.STATE_IN, {})))
        named = {".".join(["state", *map(str, path)]): state for path, state in held.items()}
        return [named[port.name].numpy().copy() for port in self._interface.states]

    def _joined(self) -> list[Array]:
        return [np.concatenate(parts) for parts in zip(*self._inputs, strict=True)]


def _flat(logits: torch.Tensor, rows: int) -> Array:
    # A recurrent module's have a time axis, of one step.
    flat: Array = logits.reshape(rows, -1).numpy().copy()
    return flat
