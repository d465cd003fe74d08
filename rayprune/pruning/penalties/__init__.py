"""Penalties that grow sparsity while training: L1 and group lasso by proximal steps, gates."""

from __future__ import annotations

from collections.abc import Mapping

from rayprune.pruning.checks import Faults, choice, must
from rayprune.pruning.component import Chosen
from rayprune.pruning.penalties.base import Penalty
from rayprune.pruning.penalties.gates import GatesPenalty
from rayprune.pruning.penalties.group_lasso import GroupLassoPenalty
from rayprune.pruning.penalties.l1 import L1Penalty
from rayprune.pruning.registry import Registry

__all__ = [
    "PENALTIES",
    "Penalty",
    "penalty_conflicts",
    "penalty_of",
    "register_penalty",
]

_REGISTRY: Registry[type[Penalty]] = Registry(
    "penalty", {"l1": L1Penalty, "group_lasso": GroupLassoPenalty, "gates": GatesPenalty}
)
PENALTIES: Mapping[str, type[Penalty]] = _REGISTRY


def register_penalty(name: str, penalty: type[Penalty]) -> None:
    """Make a penalty known by name to `PruningConfig` and the YAML.

    Args:
        name: a new name.
        penalty: its class.

    Raises:
        ConfigError: the name is taken.
    """
    _REGISTRY.add(name, penalty)


def penalty_of(block: Mapping[str, object]) -> type[Penalty]:
    """Return the class that a config's ``penalty`` names; `Penalty` for one that isn't known."""
    kind = block["kind"]
    return PENALTIES.get(kind, Penalty) if isinstance(kind, str) else Penalty


def penalty_conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield what is wrong with a config's ``penalty``, by itself and beside the other choices."""
    field, block = f"{prefix}penalty", chosen.values.get("penalty")
    if block is None:
        return
    if not isinstance(block, Mapping) or set(block) != {"kind", "strength"}:
        yield must(field, "{kind: k, strength: x} or null", block)
        return
    yield from choice(PENALTIES)(f"{field}.kind", block["kind"])
    penalty = penalty_of(block)
    yield from penalty.faults(field, block)
    yield from penalty.conflicts(prefix, chosen)
