"""``rayprune list``: the names that a YAML file may use."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from rayprune.cli.options import AsJson, Debug, tell
from rayprune.errors import ConfigError, did_you_mean


def _criteria() -> dict[str, str]:
    from rayprune.pruning.criteria import CRITERIA

    return _described(CRITERIA)


def _schedules() -> dict[str, str]:
    from rayprune.pruning.schedules import SCHEDULES

    return _described(SCHEDULES)


def _distributions() -> dict[str, str]:
    from rayprune.pruning.distributions import DISTRIBUTIONS

    return _described(DISTRIBUTIONS)


def _granularities() -> dict[str, str]:
    from rayprune.pruning.granularity import GRANULARITIES

    return _described(GRANULARITIES)


def _groups() -> dict[str, str]:
    """Return what a group may choose for itself."""
    from rayprune.pruning.blocks.groups import OWN

    return dict(OWN)


def _objectives() -> dict[str, str]:
    from rayprune.pruning.evidence.objectives import OBJECTIVES

    return dict(OBJECTIVES)


def _algorithms() -> dict[str, str]:
    from rayprune.algorithms import ALGORITHMS

    return {name: known.line for name, known in ALGORITHMS.items()}


def _methods() -> dict[str, str]:
    from rayprune.search.methods import METHODS

    return {name: method.line for name, method in METHODS.items()}


def _penalties() -> dict[str, str]:
    from rayprune.pruning.penalties import PENALTIES

    return _described(PENALTIES)


def _recipes() -> dict[str, str]:
    from rayprune.pruning.recipes import RECIPES

    return _described(RECIPES)


def _remedies() -> dict[str, str]:
    from rayprune.pruning.remedies import remedy_options

    return remedy_options()


def _quantise() -> dict[str, str]:
    """Return the keys of the ``quantise`` block."""
    from rayprune.pruning.quantisation.config import LINES

    return dict(LINES)


def _targets() -> dict[str, str]:
    """Return what `--target` may be, and the packages that it lacks here."""
    from rayprune.deploy.targets import TARGETS, target_class

    told = {}
    for name in TARGETS:
        kind = target_class(name)
        lacking = () if name == "command" else kind(name).missing()
        needs = f" (needs: apt-get install {' '.join(lacking)})" if lacking else ""
        told["command: ..." if name == "command" else name] = f"{kind.line}{needs}"
    return told


def _examples() -> dict[str, str]:
    """Return the folders of the examples in C."""
    from rayprune.deploy.examples import EXAMPLES, FOLDER

    return {str(FOLDER / name): text for name, text in EXAMPLES.items()}


def _cluster() -> dict[str, str]:
    """Return the files for clusters, each with its header's first line."""
    from rayprune.presets import shipped

    return {str(path): _opening(path) for path in sorted(shipped("cluster").iterdir())}


def _opening(path: Path) -> str:
    """Return a file's first paragraph, without what makes it a comment or a heading."""
    lines = path.read_text(encoding="utf-8").splitlines()
    plain = [line.lstrip("# ") for line in lines if not line.startswith("#!")]
    return " ".join(itertools.takewhile(bool, plain))


_SOURCES: Mapping[str, Callable[[], dict[str, str]]] = {
    "criteria": _criteria,
    "schedules": _schedules,
    "distributions": _distributions,
    "granularities": _granularities,
    "groups": _groups,
    "objectives": _objectives,
    "algorithms": _algorithms,
    "methods": _methods,
    "penalties": _penalties,
    "recipes": _recipes,
    "remedies": _remedies,
    "quantise": _quantise,
    "targets": _targets,
    "examples": _examples,
    "cluster": _cluster,
}
_CONFIGS: Final = "configs"
_PLACES: Final = ("examples", "cluster")
"""Whose names are paths: a table would break them."""


def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help=f"One of: {', '.join((*_SOURCES, _CONFIGS))}.",
            autocompletion=lambda incomplete: [
                one for one in (*_SOURCES, _CONFIGS) if one.startswith(incomplete)
            ],
        ),
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """List the names that a YAML file may use.

    Example: rayprune list criteria
    """
    kinds = [*_SOURCES, _CONFIGS]
    if kind not in kinds:
        raise ConfigError(
            f"KIND must be one of {kinds}, but is {kind!r}.{did_you_mean(kind, kinds)}"
        )
    if kind == _CONFIGS:
        return _list_presets(as_json)
    entries = _SOURCES[kind]()
    if kind in _PLACES and not as_json:
        tell(*(f"{place}\n    {description}" for place, description in entries.items()))
    elif not as_json:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("name", overflow="fold")  # a name is of no use without its end
        table.add_column("what it is")
        for name, description in entries.items():
            table.add_row(name, description)
        tell(table)
    return {kind: [{"name": name, "description": text} for name, text in entries.items()]}


def _list_presets(as_json: bool) -> dict[str, Any]:
    from rayprune.cli.printing.preset_table import preset_rows, preset_table

    rows = preset_rows()
    if not as_json:
        tell(preset_table(rows), "Each name goes where a config's path does: rayprune train NAME.")
    return {_CONFIGS: rows}


def _described(registry: Mapping[str, object]) -> dict[str, str]:
    """Return the first line of each entry's docstring."""
    return {
        name: (inspect.getdoc(entry) or "").split("\n", 1)[0].replace("``", "")
        for name, entry in registry.items()
    }
