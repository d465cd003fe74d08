"""`Share`: layers that are under one config, all of a module's or a group's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from rayprune.errors import ConfigError
from rayprune.pruning.blocks.groups import Naming
from rayprune.pruning.checks import choice_fault
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.update.budget_faults import protect_faults

REST: Final = "*"
"""The share of all layers whose groups have no choices of their own."""
_PREFIX: Final = "pruning."


@dataclass(frozen=True, slots=True)
class Share:
    """The layers that are under one config."""

    name: str
    """The group's, or `REST`."""
    config: PruningConfig
    layers: frozenset[str]
    naming: Naming | None = None
    """How a group's fields are called; None where they are the whole config's."""

    def told(self, faults: Iterable[str]) -> list[str]:
        """Word faults of this config by the fields that a user has given."""
        if self.naming is None:
            return list(faults)
        placed = [_full(x).replace(f"`{_PREFIX}", f"`{self.naming.prefix}") for x in faults]
        return self.naming.told(placed)


def shares_of(config: PruningConfig, groups: Mapping[str, str]) -> list[Share]:
    """Split a module's layers by the configs that they are under.

    Args:
        config: the whole one.
        groups: layer name -> group.

    Raises:
        ConfigError: a name or pattern is of no layer.
    """
    own = config.own_groups
    if not own:
        return [Share(REST, config, frozenset(groups))]
    faults = list(_name_faults(config, groups))
    if faults:
        raise ConfigError(faults)
    shares = [Share(REST, config.of_the_rest(), _within(groups, set(groups.values()) - set(own)))]
    shares += [
        Share(
            name,
            config.of_group(name),
            _within(groups, {name}),
            Naming(_PREFIX, name, _given(config), config.groups[name]),
        )
        for name in own
    ]
    return [_narrowed(share) for share in shares if share.layers]


def _given(config: PruningConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if value is not None}


def _within(groups: Mapping[str, str], names: Collection[str]) -> frozenset[str]:
    return frozenset(layer for layer, group in groups.items() if group in names)


def _narrowed(share: Share) -> Share:
    """Leave out what the whole config says of other layers by their names."""
    protect = [p for p in share.config.protect if any(fnmatchcase(x, p) for x in share.layers)]
    split = share.config.distribution
    own = share.naming is not None and "distribution" in share.naming.own
    if not (own or isinstance(split, str)):
        split = {name: split[name] for name in split if name in share.layers} or "uniform"
    config = share.config.unchecked(protect=tuple(protect), distribution=split)
    return Share(share.name, config, share.layers, share.naming)


def _name_faults(config: PruningConfig, groups: Mapping[str, str]) -> Iterator[str]:
    known = sorted(set(groups.values()))
    yield from protect_faults(config, list(groups))
    for name in config.groups:
        if name not in known:
            yield choice_fault(f"{_PREFIX}groups", name, known)
    if not isinstance(config.distribution, str):
        for name in config.distribution:
            if name not in groups:
                yield choice_fault(f"{_PREFIX}distribution", name, groups)


def _full(fault: str) -> str:
    """Name a fault's field as the YAML does; a schedule's own checks know their fields only."""
    field = fault.removeprefix("`").partition("`")[0]
    if not fault.startswith("`") or field.startswith(_PREFIX):
        return fault
    block = "" if field.partition(".")[0] in PruningConfig.names() else "schedule."
    return fault.replace("`", f"`{_PREFIX}{block}", 1)
