"""Search spaces: which keys of an experiment vary, and in which domains."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from rayprune import yaml12
from rayprune.errors import ConfigError, did_you_mean, shown
from rayprune.search.domains import (
    FACTORS,
    RESAMPLE,
    Choices,
    Domain,
    domain_faults,
    domain_from_tune,
    domain_of,
)

ROOTS: Final = ("pruning", "quantise", "rllib", "env_config", "stop")
"""Where a key of ``search.space`` may lie."""
_BARE: Final = re.compile(r"[^.\"'=\s]+")

Path: TypeAlias = "tuple[str, ...]"


class Space(Mapping[str, Domain]):
    """Dotted keys and the domains that their values come from.

    >>> space = Space.from_dict({"pruning.sparsity": {"uniform": [0.5, 0.98]},
    ...                          "pruning.criterion": {"choice": ["l1", "taylor"]}})
    >>> space.apply({"pruning": {"sparsity": 0.9}}, {"pruning.criterion": "l1"})
    {'pruning': {'sparsity': 0.9, 'criterion': 'l1'}}
    >>> sorted(space.sample(random.Random(0)))
    ['pruning.criterion', 'pruning.sparsity']
    """

    def __init__(self, domains: Mapping[Path, Domain]) -> None:
        self._paths = {join_key(path): tuple(path) for path in domains}
        self._domains = {join_key(path): domain for path, domain in domains.items()}

    @classmethod
    def faults_of(cls, values: object, prefix: str = "search.space") -> list[str]:
        """Return every fault of a YAML file's ``search.space``.

        >>> for fault in Space.faults_of({"prunning.sparsity": {"uniform": [0, 1]},
        ...                               "pruning.sparsity": {"unifrom": [0.5, 0.9]}}):
        ...     print(fault)
        `search.space.prunning.sparsity` must lie under one of ['env_config', 'pruning', 'quantise',
        'rllib', 'stop'], but is under 'prunning'. Did you mean 'pruning'?
        `search.space.pruning.sparsity` must be one of ['choice', 'grid', 'loguniform', 'quniform',
        'randint', 'uniform'], but is 'unifrom'. Did you mean 'uniform'?
        """
        if not isinstance(values, Mapping) or not values:
            return [
                f"`{prefix}` must be a mapping such as "
                f"{{pruning.sparsity: {{uniform: [0.5, 0.98]}}}}, but is {shown(values)}."
            ]
        faults: list[str] = []
        for key, value in values.items():
            faults += _key_faults(key, f"{prefix}.{key}")
            faults += domain_faults(value, f"{prefix}.{key}")
        sound = [key for key in values if not _key_faults(key, prefix)]
        return faults + _overlap_faults(sound, prefix)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Space:
        """Build from a YAML file's ``search.space``; ConfigError holds every fault."""
        faults = cls.faults_of(values)
        if faults:
            raise ConfigError(faults)
        return cls(
            {tuple(yaml12.split_key(key) or ()): domain_of(value) for key, value in values.items()}
        )

    @classmethod
    def from_tune(cls, domains: Mapping[str, Any]) -> Space:
        """Build from nested ``tune.*`` domains, as ``hyperparam_mutations`` holds them.

        A list stands for choices, a function for what it returns.

        Raises:
            ConfigError: a value that is none of them.
        """
        faults: list[str] = []
        found: dict[Path, Domain] = {}
        for path, value in _leaves(domains):
            domain = domain_from_tune(value)
            if domain is None:
                faults.append(
                    f"`{join_key(path)}` must be a tune domain, a list of choices or a function, "
                    f"but is {shown(value)}. Give tune.uniform(...), say."
                )
            else:
                found[path] = domain
        if faults:
            raise ConfigError(faults)
        return cls(found)

    def __getitem__(self, key: str) -> Domain:
        return self._domains[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    @property
    def grid_size(self) -> int:
        """How many combinations its choices have; 1 without any."""
        return math.prod(len(d.values) for d in self._domains.values() if isinstance(d, Choices))

    def to_tune(self) -> dict[str, Any]:
        """Return Ray Tune's domains by dotted key; `apply` puts them where they belong."""
        return {key: domain.to_tune() for key, domain in self.items()}

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """Draw a value for every key."""
        return {key: domain.sample(rng) for key, domain in self.items()}

    def perturb(
        self,
        values: Mapping[str, Any],
        rng: random.Random,
        *,
        resample: float = RESAMPLE,
        factors: Sequence[float] = FACTORS,
    ) -> dict[str, Any]:
        """Explore around ``values``, never outside the bounds.

        Jaderberg et al. 2017 (arXiv:1711.09846): each value is drawn anew with some probability,
        and else moved a little, as its domain defines it.

        Args:
            values: dotted key -> value; keys outside the space are left out of the answer.
            rng: where the chance comes from.
            resample: probability of drawing anew.
            factors: by what a number is multiplied.
        """
        return {
            key: domain.sample(rng)
            if key not in values or rng.random() < resample
            else domain.perturb(values[key], rng, factors)
            for key, domain in self.items()
        }

    def apply(self, raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of a nested mapping with the values written at their keys.

        Raises:
            ConfigError: a key leads through a value that is no mapping.
        """
        result = copy.deepcopy(dict(raw))
        for key, value in values.items():
            yaml12.write_at(result, self._paths[key], value, partial(_no_mapping, key))
        return result

    def read(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that a nested mapping holds at the space's keys, where it has them."""
        found: dict[str, Any] = {}
        for key, path in self._paths.items():
            holder: Any = raw
            for segment in path:
                holder = holder.get(segment, _ABSENT) if isinstance(holder, Mapping) else _ABSENT
            if holder is not _ABSENT:
                found[key] = holder
        return found

    def probes(self) -> Iterator[tuple[str, Any]]:
        """Yield each key with each end or choice of its domain, to check an experiment with."""
        for key, domain in self.items():
            for value in domain.probes():
                yield key, value


def join_key(path: Sequence[str]) -> str:
    """Return the dotted key of a path; a segment that needs it is quoted.

    >>> join_key(["pruning", "distribution", "pi.0"])
    'pruning.distribution."pi.0"'
    """
    return ".".join(
        segment if _BARE.fullmatch(segment) else json.dumps(segment) for segment in path
    )


_ABSENT: Final = object()


def _no_mapping(key: str, path: Sequence[str], held: object) -> ConfigError:
    return ConfigError(
        f"`search.space.{key}` can't be varied: `{join_key(path)}` is {shown(held)}, not a "
        "mapping. Write it as one, or vary it as a whole."
    )


def _leaves(nested: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and set(value) != {"grid_search"}:
            yield from _leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _key_faults(key: object, field: str) -> list[str]:
    path = yaml12.split_key(key) if isinstance(key, str) else None
    if path is None:
        return [
            f"`{field}` must be a dotted key, such as pruning.sparsity; quote a layer's dotted "
            "name: 'pruning.distribution.\"pi.0\"'."
        ]
    if path[0] not in ROOTS:
        return [
            f"`{field}` must lie under one of {sorted(ROOTS)}, but is under {path[0]!r}."
            f"{did_you_mean(path[0], ROOTS)}"
        ]
    if len(path) == 1:
        return [f"`{field}` must name a key inside `{path[0]}`, such as pruning.sparsity."]
    return []


def _overlap_faults(keys: Sequence[str], prefix: str) -> list[str]:
    """No key may lie inside another, nor be another one written differently."""
    known = [(key, yaml12.split_key(key) or []) for key in keys]
    return [
        f"`{prefix}.{inner}` lies in `{prefix}.{outer}`, which is varied as a whole. Drop one."
        for index, (outer, above) in enumerate(known)
        for other, (inner, below) in enumerate(known)
        if below[: len(above)] == above and (len(above) < len(below) or index < other)
    ]
