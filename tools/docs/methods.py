"""The page of all names that a config may choose, from the registries."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Final

from tools.docs.markdown import GENERATED, plain, table

INTRODUCTION = """\
What a YAML file, a `PruningConfig` or a command may choose by name; `rayprune list KIND` prints
the same. Most kinds take your own: see [Write a criterion, a schedule, a
family](../how-to/own-methods.md).
"""

KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "criteria": (
        "Criteria",
        "`pruning.criterion`: the importance scores that rank what is pruned; higher means keep.",
    ),
    "granularities": ("Granularities", "`pruning.granularity`: what is removed together."),
    "distributions": (
        "Distributions",
        "`pruning.distribution`: how a sparsity splits over the layers.",
    ),
    "schedules": ("Schedules", "`pruning.schedule.kind`: when how much is pruned."),
    "recipes": (
        "Recipes",
        "`pruning.recipe`: named settings that hold together; what you give beside one is kept.",
    ),
    "penalties": ("Penalties", "`pruning.penalty.kind`: what shrinks weights while training."),
    "remedies": (
        "Remedies",
        "`pruning.remedies`: what keeps learning stable while networks are pruned.",
    ),
    "groups": ("Groups", "`pruning.groups.NAME`: what a group of layers may choose for itself."),
    "objectives": (
        "Objectives",
        "`pruning.evidence.objective`: what gradients of criteria are taken of.",
    ),
    "algorithms": ("Algorithms", "`algorithm`: RLlib's, by name."),
    "methods": ("Search methods", "`search.method`: how a sweep chooses and replaces its trials."),
    "quantise": ("Quantisation", "The keys of `quantise`."),
    "targets": ("Targets", "`--target`, `fit.target`: where a policy shall act."),
}
"""What ``rayprune list`` takes -> the heading here, and what chooses it."""


def methods_page() -> str:
    """Return docs/reference/methods.md."""
    parts = [GENERATED, "", "# Methods", "", INTRODUCTION]
    for kind, (heading, chosen_by) in KINDS.items():
        parts += [f"## {heading}", "", chosen_by, "", _table(kind), ""]
    parts += ["## Export formats", "", "`rayprune export --format NAME`.", "", _formats(), ""]
    return "\n".join(parts)


def _table(kind: str) -> str:
    from rayprune.cli.list import list_names

    # What this machine lacks for a target is no property of the target.
    entries = {
        entry["name"]: re.sub(r" \(needs: .*\)$", "", entry["description"])
        for entry in list_names(kind, as_json=True)[kind]
    }
    rows = [[f"`{name}`", plain(text)] for name, text in entries.items()]
    if kind == "criteria":
        return _criteria(rows)
    if kind == "schedules":
        from rayprune.pruning.schedules import SCHEDULES

        told = zip(rows, SCHEDULES.values(), strict=True)
        return table(
            ["name", "what it is", "source"], [[*row, _sources(kind)] for row, kind in told]
        )
    return table(["name", "what it is"], rows)


def _criteria(rows: list[list[str]]) -> str:
    from rayprune.pruning.criteria import CRITERIA

    told = zip(rows, CRITERIA.values(), strict=True)
    head = ["name", "what it is", "scores", "needs", "source"]
    return table(head, [[*row, c.scores, _evidence(c), _sources(c)] for row, c in told])


def _evidence(criterion: Any) -> str:
    if criterion.needs_returns:
        return "episodes played"
    found = sorted(name.replace("_", " ") for name in criterion.evidence)
    return ", ".join(found) or "the weights alone"


def _sources(entry: object) -> str:
    """Return the papers that a docstring names, as links."""
    doc = " ".join((inspect.getdoc(entry) or "").split())
    found = re.findall(
        r"((?:[A-Z][\w-]+(?: et al\.| & [A-Z][\w-]+)? )\d{4}) \(arXiv:([\d.]+)\)", doc
    )
    return ", ".join(f"[{who}](https://arxiv.org/abs/{number})" for who, number in found)


def _formats() -> str:
    from rayprune.deploy.formats import FORMATS, format_named

    rows = []
    for name in FORMATS:
        form = format_named(name)
        options = ", ".join(f"`--{option.replace('_', '-')}`" for option in sorted(form.options))
        said = plain((type(form).__doc__ or "").split("\n", 1)[0])
        rows.append([f"`{name}`", f"`{form.suffix}`", said, options])
    return table(["name", "ends in", "what it is", "its options"], rows)
