"""Remedies: what keeps reinforcement learning stable while its networks are pruned.

Sparse networks follow their targets' noise more than dense ones do, and a policy that a cut has
changed is no longer the one that filled the replay buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rayprune.pruning.checks import Faults, must, unknown_keys
from rayprune.pruning.registry import Registry
from rayprune.pruning.remedies.base import Remedy
from rayprune.pruning.remedies.hold_deviation import HoldDeviation
from rayprune.pruning.remedies.n_step import NStep
from rayprune.pruning.remedies.reconstruct import Reconstruct
from rayprune.pruning.remedies.replay_limit import ReplayLimit
from rayprune.pruning.remedies.replay_reset import ReplayReset
from rayprune.pruning.remedies.rescale import Rescale

_REGISTRY: Registry[type[Remedy]] = Registry(
    "remedy",
    {
        "hold_deviation": HoldDeviation,
        "n_step": NStep,
        "reconstruct": Reconstruct,
        "replay_limit": ReplayLimit,
        "replay_reset": ReplayReset,
        "rescale": Rescale,
    },
)
REMEDIES: Mapping[str, type[Remedy]] = _REGISTRY
"""Name -> remedy, in the order in which they are called."""


def register_remedy(name: str, remedy: type[Remedy]) -> None:
    """Make a remedy known to `PruningConfig` and the YAML, as a key of ``remedies``.

    Args:
        name: a new name, the first of its ``options``.
        remedy: its class.

    Raises:
        ConfigError: the name is taken.
    """
    _REGISTRY.add(name, remedy)


def remedy_options() -> dict[str, str]:
    """Return all keys of ``remedies``, with what each does in a line."""
    return {key: line for remedy in REMEDIES.values() for key, line in remedy.options.items()}


def chosen_remedies(settings: Mapping[str, Any]) -> Iterator[tuple[str, type[Remedy]]]:
    """Yield the remedies that a config's ``remedies`` asks for, with their names.

    >>> [name for name, _ in chosen_remedies({"rescale": False, "n_step": 3, "replay_limit": None})]
    ['n_step']
    """
    for name, remedy in REMEDIES.items():
        if settings.get(name) not in (None, False):
            yield name, remedy


def remedy_faults(prefix: str, values: Mapping[str, Any]) -> Faults:
    """Yield the faults of a config's remedies.

    Args:
        prefix: what the field names start with in the messages.
        values: the mapping as it was given.
    """
    field, remedies, known = f"{prefix}remedies", values.get("remedies", {}), remedy_options()
    if not isinstance(remedies, Mapping):
        yield must(field, f"a mapping of {sorted(known)}", remedies)
        return
    yield from unknown_keys(field, remedies, known)
    for remedy in REMEDIES.values():
        yield from remedy.faults(field, remedies)


def replay_faults(settings: Mapping[str, Any], algorithm: str) -> Faults:
    """Yield the faults of remedies that an algorithm without a replay buffer can't be given.

    Args:
        settings: the config's ``remedies``, sound in themselves.
        algorithm: its name.
    """
    for name, remedy in chosen_remedies(settings):
        if remedy.needs_replay:
            yield (
                f"`pruning.remedies.{name}` needs a replay buffer that fills while training, which "
                f"{algorithm} does not have. Leave it out, or take DQN or SAC."
            )
