"""The ``search`` block of a sweep's YAML, checked, all faults at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rayprune.errors import ConfigError, shown
from rayprune.extras import lacking, needs
from rayprune.pruning.checks import choice_fault
from rayprune.search.methods import METHODS
from rayprune.search.objectives import LATENCY, Objectives
from rayprune.search.space import Space
from rayprune.validation import faults_from


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_whole), Field(gt=0)]


class SearchConfig(BaseModel):
    """How a population is searched; made by ``SearchConfig.from_raw``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    method: str = "mo_pbt"
    population: Count = 8
    """Trials; `grid` has as many as there are combinations."""
    space: dict[str, Any]
    objectives: dict[str, Any] = {"return": "max", "sparsity": "max"}
    interval: Count = 10_000
    """Env steps between two measurements of a trial, at which it may be replaced by a clone."""
    synch: bool | None = None
    """Whether all trials wait for each other at every interval; null: where not all fit at once."""
    reduction_factor: Annotated[int, BeforeValidator(_whole), Field(ge=2)] | None = None
    """One in how many goes on at a rung of `mo_asha` or `asha`; rungs lie at the interval, and at
    this many times the one before. Null: 4."""
    generation: Count | None = None
    """Trials of one generation of `nsga2`; null: the root of `population`."""
    points: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] | None = None
    """Of `listed`: a value for each key of the space, a trial each, in their order."""
    reference: Annotated[tuple[float, ...], Field(strict=False)] | None = None
    """Reference point of the hypervolume, a value per objective; from the first results if not
    given. Trials that are worse than a given one in any objective are never copied from, as long as
    there are others."""
    resources: dict[str, Annotated[float, Field(ge=0, strict=False)]] | None = None
    """``cpu`` and ``gpu`` per trial, at least what RLlib asks for; null: just that."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often a trial that died is started again from its checkpoint."""

    @classmethod
    def from_raw(cls, raw: object) -> SearchConfig:
        """Check a YAML's ``search`` block.

        Raises:
            ConfigError: with every fault.
        """
        faults, config = search_faults(raw)
        if config is None:
            raise ConfigError(faults)
        return config


def search_faults(raw: object) -> tuple[list[str], SearchConfig | None]:
    """Return every fault of a ``search`` block, and its config when there is none.

    >>> search_faults({"method": "mopbt", "space": {"pruning.sparsity": {"uniform": [0.5, 0.9]}}})
    (["`search.method` must be one of ['asha', 'grid', 'listed', 'mo_asha', 'mo_pbt', 'nsga2',
    'pb2', 'pbt', 'random', 'tpe'], but is 'mopbt'. Did you mean 'mo_pbt'?"], None)
    """
    if not isinstance(raw, Mapping):
        return ["`search` is missing: give at least {space: {pruning.sparsity: ...}}."], None
    faults: list[str] = []
    config = None
    try:
        config = SearchConfig.model_validate(dict(raw))
    except ValidationError as error:
        faults += faults_from(error, SearchConfig, prefix="search.")
    method = raw.get("method", "mo_pbt")
    if isinstance(method, str) and method not in METHODS:
        faults.append(choice_fault("search.method", method, METHODS))
    if isinstance(raw.get("space"), Mapping):
        faults += Space.faults_of(raw["space"])
    if "objectives" in raw:
        faults += Objectives.faults_of(raw["objectives"])
    if config is not None and not faults:
        faults += _together(config)
    return faults, None if faults else config


def _together(config: SearchConfig) -> list[str]:
    """Return the faults of keys that are sound by themselves."""
    space, objectives = Space.from_dict(config.space), Objectives.from_dict(config.objectives)
    faults = _method_faults(config, space, objectives)
    if LATENCY in objectives.keys and lacking("deploy"):
        told = needs("`search.objectives.latency` times exported policies, which", "deploy")
        faults.append(f"{told}. Or use `flops`.")
    unknown = sorted(set(config.resources or {}) - {"cpu", "gpu"})
    faults += [choice_fault("search.resources", name, ["cpu", "gpu"]) for name in unknown]
    if config.reference is not None and len(config.reference) != len(objectives.names):
        faults.append(
            f"`search.reference` must have a value for each of {list(objectives.names)}, "
            f"but is {shown(list(config.reference))}."
        )
    return faults


def _method_faults(config: SearchConfig, space: Space, objectives: Objectives) -> list[str]:
    name, method, named = config.method, METHODS[config.method], list(objectives.names)
    faults = []
    if method.one_objective and len(named) > 1:
        faults.append(
            f"`search.objectives` must name one objective for `{name}`, but names {named}. Name "
            "one, constrain the return by `subject_to`, or use `mo_pbt`."
        )
    elif not method.constrained and objectives.constrained:
        faults.append(
            f"`search.objectives.subject_to` can't be used with `{name}`. Use `pbt` or `mo_pbt`."
        )
    faults += method.faults(name, config, space)
    return faults + [
        f"`search.{field}` belongs to {_those_with(field)}, and `search.method` is {name}. Drop it."
        for field in ("reduction_factor", "generation", "points")
        if getattr(config, field) is not None and field not in method.options
    ]


def _those_with(field: str) -> str:
    return " and ".join(f"`{name}`" for name, other in METHODS.items() if field in other.options)
