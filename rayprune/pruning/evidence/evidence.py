"""Evidence: what an importance score may know of a weight or a unit beyond the weight itself.

Two sources fill it. `rayprune.pruning.evidence.gradients` sums gradients up while training goes
on; a pass over minibatches (`rayprune.pruning.evidence.batches`) measures the rest when a mask
update is due. Both gather only what the criterion asks for by the names of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from rayprune.errors import InputError

Named = Mapping[str, Tensor]
"""Tensors by full parameter name."""

GRADIENT = "gradient"
MOVEMENT = "movement"
ACCUMULATED: frozenset[str] = frozenset({GRADIENT, MOVEMENT})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was gathered, by the input's name and then by full parameter name.

    A unit's input (activations, coalitions) lies under the first parameter of its part.
    """

    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def get(self, criterion: str, wanted: str, name: str) -> Any:
        """Return one input of a criterion for one parameter.

        Raises:
            InputError: it was not gathered; says what to pass.
        """
        table = self.tables.get(wanted)
        if table is None:
            raise InputError(f"Criterion {criterion!r} needs `{wanted}`. {_way_out(wanted)}")
        if name not in table:
            raise InputError(
                f"Criterion {criterion!r} needs `{wanted}` of {name!r}, which the batches never "
                "reached, or which is frozen, or whose layer has a forward of its own. Protect "
                "that layer, or give batches and a loss that use it."
            )
        return table[name]

    def __or__(self, other: Evidence) -> Evidence:
        return Evidence({**self.tables, **other.tables})

    def beside(self, other: Evidence) -> Evidence:
        """Return both together, where each is of parameters of its own.

        >>> both = Evidence({"gradient": {"a": 1}}).beside(Evidence({"gradient": {"b": 2}}))
        >>> both.tables, both.of(["b"]).tables
        ({'gradient': {'a': 1, 'b': 2}}, {'gradient': {'b': 2}})
        """
        kinds = dict.fromkeys([*self.tables, *other.tables])
        return Evidence({k: {**self.tables.get(k, {}), **other.tables.get(k, {})} for k in kinds})

    def of(self, names: Collection[str]) -> Evidence:
        """Return what is known of some parameters."""
        tables = {
            kind: {name: held for name, held in table.items() if name in names}
            for kind, table in self.tables.items()
        }
        return Evidence({kind: table for kind, table in tables.items() if table})

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)


NOTHING = Evidence()

Source = Callable[[], Evidence]
"""Gathers evidence when it is asked to: nothing is computed while no mask update is due."""


def _way_out(wanted: str) -> str:
    if wanted == MOVEMENT:
        return (
            "It is summed up in training: call `Pruner.observe_gradients` at every step, "
            "or train with `rayprune train`."
        )
    return (
        "Pass `batch=` (observations, or an iterable of minibatches) and `loss=` "
        "(f(module, batch) -> scalar) to `scores` or `prune_to`."
    )
