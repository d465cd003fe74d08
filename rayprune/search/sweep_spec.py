"""A sweep's YAML, parsed and checked: the experiment, its space, its objectives, its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rayprune.algorithms import is_offline
from rayprune.config import ExperimentConfig, experiment_faults, load_raw
from rayprune.errors import ConfigError, shown
from rayprune.pruning.schedules import schedule_of
from rayprune.rllib.experiment.experiment_checks import experiment_parts_faults
from rayprune.rllib.experiment.recipe_inputs import with_known_inputs
from rayprune.search.config import SearchConfig, search_faults
from rayprune.search.methods import METHODS
from rayprune.search.objectives import Objectives
from rayprune.search.space import Space


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep's file says, parsed."""

    raw: Mapping[str, Any]
    """The nested mapping, with a sound value at every key of the space."""
    out: Path
    experiment: ExperimentConfig
    """Of that mapping; trials put their own values at the space's keys."""
    search: SearchConfig
    space: Space
    objectives: Objectives

    @classmethod
    def of(cls, raw: Mapping[str, Any], out: Path) -> Sweep:
        """Parse a mapping that `load_sweep` has checked.

        Args:
            raw: the nested mapping.
            out: the sweep's directory.

        Raises:
            ConfigError: every fault that shows without Ray.
        """
        search = SearchConfig.from_raw(raw.get("search"))
        space = Space.from_dict(search.space)
        base = with_values(raw, space)
        faults, experiment = experiment_faults({**base, "search": None}, check_paths=False)
        if experiment is None:
            raise ConfigError(faults)
        # With all defaults, so that a trial needn't know them.
        base["search"] = search.model_dump()
        return cls(
            raw=base,
            out=out.absolute(),
            experiment=experiment,
            search=search,
            space=space,
            objectives=replace(Objectives.from_dict(search.objectives), reference=search.reference),
        )

    def with_dense_return(self, dense_return: float) -> Sweep:
        """Return the sweep whose constraint knows what the dense policy earns."""
        return replace(self, objectives=self.objectives.with_dense_return(dense_return))

    @property
    def trials(self) -> int:
        """How many there will be."""
        return METHODS[self.search.method].trials(self.search, self.space)


def load_sweep(
    path: Path, overrides: Sequence[str] = (), seed: int | None = None
) -> dict[str, Any]:
    """Read a sweep's YAML and report the faults of all its parts together.

    Args:
        path: the YAML file.
        overrides: ``KEY=VALUE`` strings of ``--set``.
        seed: replaces the file's seed.

    Returns:
        The nested mapping for `Sweep.of`.

    Raises:
        ConfigError: with every fault, those of values at the space's ends included.
    """
    raw, faults = load_raw(path, overrides, seed)
    raw = with_known_inputs(raw)
    more, search = search_faults(raw.get("search"))
    faults += more
    if search is None:
        # The rest is checked as far as it goes without the space.
        faults += experiment_parts_faults({**raw, "search": None})
        raise ConfigError(faults)
    space = Space.from_dict(search.space)
    try:
        base = {**with_values(raw, space), "search": None}
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from error
    faults += experiment_parts_faults(base) or _space_faults(base, space)
    faults += _stop_faults(raw, search) + _gate_faults(base, space)
    if faults:
        raise ConfigError(faults)
    return raw


def with_values(raw: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Return the mapping with a first value at each key of the space that it has none at."""
    present = space.read(raw)
    firsts: dict[str, Any] = {}
    for key, value in space.probes():
        if key not in present:
            firsts.setdefault(key, value)
    return space.apply(raw, firsts)


def _space_faults(base: Mapping[str, Any], space: Space) -> list[str]:
    """Return the faults of experiments at each end, or choice, of each key."""
    faults: list[str] = []
    for key, value in space.probes():
        found, _ = experiment_faults(space.apply(base, {key: value}), check_paths=False)
        faults += [f"`search.space.{key}` allows {shown(value)}: {fault}" for fault in found]
    return faults


def _gate_faults(base: Mapping[str, Any], space: Space) -> list[str]:
    """A gate rolls its run back, and a trial's clock only goes forward."""
    every = [base, *(space.apply(base, {key: value}) for key, value in space.probes())]
    blocks = [raw["pruning"] for raw in every if isinstance(raw.get("pruning"), Mapping)]
    schedules = [block.get("schedule") for block in blocks]
    found = [block for block in schedules if schedule_of(block).finds_sparsity]
    if not found:
        return []
    return [
        f"`pruning.schedule.kind` {found[0]['kind']} can't be used in a sweep, whose "
        "trials can't roll back. Run it by `rayprune train`; or let the sweep find the "
        "sparsity, by `search.objectives: {sparsity: max, subject_to: {return_at_least: 0.95}}`."
    ]


def _stop_faults(raw: Mapping[str, Any], search: SearchConfig) -> list[str]:
    stop = raw.get("stop")
    if is_offline(raw.get("algorithm")):
        return [
            f"`algorithm` can't be {raw['algorithm']} in a sweep, whose members are measured by "
            "env steps: it samples none. Run `rayprune train` for each value with --set."
        ]
    if not isinstance(stop, Mapping):
        return []
    others = sorted({"return", "updates"} & set(stop))
    faults = [
        f"`stop.{key}` can't be used in a sweep, whose members train for the same env steps. "
        "Give `stop.env_steps`."
        for key in others
    ]
    steps = stop.get("env_steps")
    if isinstance(steps, (int, float)) and steps < search.interval:
        faults.append(
            f"`search.interval` must be at most `stop.env_steps` ({shown(steps)}), but is "
            f"{search.interval}: no trial would ever be measured. Lower it, or raise "
            "`stop.env_steps`."
        )
    return faults
