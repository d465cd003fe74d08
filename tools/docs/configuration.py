"""The page of all keys of a YAML file: type, default, meaning, and what the checks refuse.

Types and defaults come from the models, meanings from their docstrings, refusals from the checks.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from griffe import Docstring, DocstringSectionKind
from pydantic import BaseModel

from tools.docs.kinds import kind_of
from tools.docs.markdown import GENERATED, first_sentence, plain, table
from tools.docs.refusals import refusals

INTRODUCTION = """\
Every key that a YAML file may hold. Unknown keys are refused, with the nearest known one; all
faults of a file are told at once. `--set a.b.c=VALUE` replaces any of them; a layer's dotted name
is one quoted segment: `--set 'pruning.distribution."pi.0"=0.5'`. YAML is 1.2: `2:4` and `off` are
text, `3e-4` is a number.

*Refused unless* is what the checks answered when this page was made and each key was given wrong
values. A fault that two keys make together is told in the same way; [messages](messages.md) has
all of them.
"""

IN_AN_EDITOR = """\
## In an editor

`rayprune schema` prints the JSON Schema of all this: every key with its type, default and meaning.
Editors that read YAML (VS Code with its extension, Neovim, JetBrains) complete and check a file
whose first lines have `# yaml-language-server: $schema=FILE`, as all presets do.
"""

SCHEDULES_TOLD = """\
`kind` and the keys of that kind, with what they are where the file says nothing. `begin`, `end` and
other times up to 1 are fractions of the run, above it env steps (updates, offline); `every` is the
env steps between mask updates. `begin: {return: R}` waits for a validation return.
[Methods](methods.md#schedules) says what each does."""

Faults = Callable[[dict[str, Any]], Iterable[str]]


def configuration_page() -> str:
    """Return docs/reference/configuration.md."""
    from rayprune.config import ExperimentConfig

    parts = [GENERATED, "", "# Configuration", "", INTRODUCTION, "## The file", ""]
    parts += [_model_table(ExperimentConfig, "", _file_faults), ""]
    for name, info in ExperimentConfig.model_fields.items():
        inner = _inner_model(info.annotation)
        if inner is not None:
            parts += [f"## {name}", "", first_sentence(inner.__doc__), ""]
            parts += [_model_table(inner, f"{name}.", _within(name)), ""]
    parts += [*_pruning(), *_quantise(), *_search(), *_fit(), IN_AN_EDITOR]
    return "\n".join(parts)


# ---------------------------------------------------------------------- models


def _model_table(model: type[BaseModel], prefix: str, faults: Faults) -> str:
    told = attribute_docstrings(model)
    rows = []
    for name, info in model.model_fields.items():
        key = info.alias or name
        meaning = plain(MEANINGS.get(f"{prefix}{key}") or told.get(name) or info.description or "")
        default = "required" if info.is_required() else _shown(_default_of(info))
        kind = _linked(key, prefix) or kind_of(_annotation(model, name))
        refused = refusals(f"{prefix}{key}", lambda value, key=key: faults({key: value}))
        rows.append([f"`{key}`", kind, default, meaning, refused])
    return table(["key", "type", "default", "what it is", "refused unless it"], rows)


def attribute_docstrings(model: type) -> dict[str, str]:
    """Return what stands below each attribute of a class, by its name."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, below in zip(body.body, body.body[1:], strict=False):
        said = below.value if isinstance(below, ast.Expr) else None
        if isinstance(node, ast.AnnAssign) and isinstance(said, ast.Constant):
            assert isinstance(node.target, ast.Name)
            found[node.target.id] = str(said.value)
    return found


def _default_of(info: Any) -> Any:
    return info.default_factory() if info.default_factory else info.default


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    options = getattr(annotation, "__args__", ()) or (annotation,)
    return next((x for x in options if isinstance(x, type) and issubclass(x, BaseModel)), None)


def _annotation(model: type, name: str) -> str:
    return str(inspect.get_annotations(model).get(name, ""))


_BLOCKS: Final = {"pruning", "quantise", "search", "fit"}


def _linked(key: str, prefix: str) -> str:
    from rayprune.config import ExperimentConfig

    if prefix:
        return ""
    inner = _inner_model(ExperimentConfig.model_fields[key].annotation)
    return f"[block](#{key})" if key in _BLOCKS or inner is not None else ""


def _shown(value: Any) -> str:
    """Return a default as YAML writes it."""
    if isinstance(value, BaseModel):
        return "see there"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(held)}" for key, held in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value)


_GIVEN: Final = {
    "name": "x",
    "algorithm": "PPO",
    "env": "CartPole-v1",
    "pruning": {"sparsity": 0.5},
}


def _file_faults(changes: dict[str, Any]) -> list[str]:
    from rayprune.config import experiment_faults

    return experiment_faults({**_GIVEN, **changes})[0]


def _within(block: str) -> Faults:
    return lambda changes: _file_faults({block: changes})


# ---------------------------------------------------------------------- pruning


def _pruning() -> list[str]:
    from rayprune.pruning.config import PruningConfig

    told = _arguments(PruningConfig)
    rows = []
    for field in dataclasses.fields(PruningConfig):
        default = field.default
        if default is dataclasses.MISSING:
            default = field.default_factory() if callable(field.default_factory) else None
        refused = refusals(
            f"pruning.{field.name}",
            lambda value, name=field.name: PruningConfig.faults_of({name: value}),
        )
        kind = kind_of(str(field.type))
        rows.append([f"`{field.name}`", kind, _shown(default), told.get(field.name, ""), refused])
    head = ["key", "type", "default", "what it is", "refused unless it"]
    return [
        "## pruning",
        "",
        "What to prune, how much of it, and when. The names are in [methods](methods.md).",
        "",
        table(head, rows),
        "",
        *_schedules(),
        *_blocks_of_pruning(),
    ]


def _arguments(documented: Any) -> dict[str, str]:
    """Return what a Google docstring says of each argument."""
    parsed = Docstring(inspect.getdoc(documented) or "").parse("google", warn_missing_types=False)
    return {
        argument.name: plain(argument.description)
        for section in parsed
        if section.kind is DocstringSectionKind.parameters
        for argument in section.value
    }


def _schedules() -> list[str]:
    from rayprune.pruning.config import PruningConfig
    from rayprune.pruning.schedules import SCHEDULES, complete

    def faults(block: dict[str, Any]) -> list[str]:
        return PruningConfig.faults_of({"sparsity": 0.5, "schedule": block})

    rows, kinds_of = [], dict[str, list[str]]()
    for kind in SCHEDULES:
        missing = re.findall(r"schedule\.(\w+)` is missing", "\n".join(faults({"kind": kind})))
        full = {key: value for key, value in complete({"kind": kind}).items() if key != "kind"}
        keys = [f"`{key}` (required)" for key in missing]
        keys += [f"`{key}: {_yaml(value)}`" for key, value in full.items()]
        rows.append([f"`{kind}`", ", ".join(keys)])
        for key in (*missing, *full):
            kinds_of.setdefault(key, []).append(kind)
    told = [
        [
            f"`{key}`",
            "all others" if len(kinds) > len(SCHEDULES) / 2 else ", ".join(f"`{k}`" for k in kinds),
            refusals(
                f"pruning.schedule.{key}",
                lambda value, key=key, kind=kinds[0]: faults({"kind": kind, key: value}),
            ),
        ]
        for key, kinds in sorted(kinds_of.items(), key=lambda item: -len(item[1]))
    ]
    return [
        "### pruning.schedule",
        "",
        SCHEDULES_TOLD,
        "",
        table(["kind", "its keys"], rows),
        "",
        table(["key", "kinds", "refused unless it"], told),
        "",
    ]


def _blocks_of_pruning() -> list[str]:
    from rayprune.pruning.blocks import distillation, evidence
    from rayprune.pruning.blocks.groups import OWN
    from rayprune.pruning.penalties import PENALTIES
    from rayprune.pruning.remedies import remedy_options

    def keys(field: str, block: Mapping[str, Any]) -> str:
        from rayprune.pruning.config import PruningConfig

        def faults(key: str, value: Any) -> list[str]:
            return PruningConfig.faults_of({"sparsity": 0.5, field: {key: value}})

        rows = [
            [
                f"`{key}`",
                f"`{_yaml(value)}`",
                refusals(f"pruning.{field}.{key}", lambda given, key=key: faults(key, given)),
            ]
            for key, value in block.items()
        ]
        return table(["key", "default", "refused unless it"], rows)

    own = table(["key", "what it is"], [[f"`{key}`", plain(text)] for key, text in OWN.items()])
    remedies = table(
        ["key", "what it does"],
        [[f"`{key}`", plain(text)] for key, text in remedy_options().items()],
    )
    penalties = table(
        ["kind", "what it does"],
        [[f"`{name}`", first_sentence(kind.__doc__)] for name, kind in PENALTIES.items()],
    )
    return [
        "### pruning.groups",
        "",
        "A budget for each group of layers (`policy`, `value`, `shared`), or choices of its own.",
        "",
        own,
        "",
        "### pruning.evidence",
        "",
        "What criteria that need data go by; [methods](methods.md#objectives) has the objectives.",
        "",
        keys("evidence", evidence.DEFAULTS),
        "",
        "### pruning.distillation",
        "",
        "A KL term to a frozen policy. Null: no such term.",
        "",
        keys("distillation", distillation.DEFAULTS),
        "",
        "### pruning.penalty",
        "",
        "`{kind: KIND, strength: x}`, or null.",
        "",
        penalties,
        "",
        "### pruning.remedies",
        "",
        remedies,
        "",
    ]


# ---------------------------------------------------------------------- the other blocks


def _quantise() -> list[str]:
    from rayprune.pruning.quantisation.config import QuantisationConfig

    told = _arguments(QuantisationConfig)
    rows = []
    for field in dataclasses.fields(QuantisationConfig):
        refused = refusals(
            f"quantise.{field.name}",
            lambda value, name=field.name: QuantisationConfig.parse({name: value})[0],
        )
        rows.append(
            [
                f"`{field.name}`",
                kind_of(str(field.type)),
                _shown(field.default),
                told.get(field.name, ""),
                refused,
            ]
        )
    return [
        "## quantise",
        "",
        "How the policy learns to act with weights and activations of few bits; or it doesn't.",
        "",
        table(["key", "type", "default", "what it is", "refused unless it"], rows),
        "",
    ]


def _search() -> list[str]:
    from rayprune.search.config import SearchConfig, search_faults

    space = {"space": {"pruning.sparsity": {"uniform": [0.5, 0.9]}}}
    return [
        "## search",
        "",
        "For `rayprune sweep`. [Run a sweep](../how-to/sweep.md) shows it.",
        "",
        _model_table(
            SearchConfig, "search.", lambda changes: search_faults({**space, **changes})[0]
        ),
        "",
    ]


def _fit() -> list[str]:
    from rayprune.fit.config import FitConfig, fit_faults

    return [
        "## fit",
        "",
        "For `rayprune fit`. [From a budget to a proven file](../how-to/fit.md) shows it.",
        "",
        _model_table(
            FitConfig, "fit.", lambda changes: fit_faults({"flash": "64KB", **changes})[0]
        ),
        "",
    ]


MEANINGS: Final[Mapping[str, str]] = {
    "name": "Of the run's directory: letters, digits, '.', '_' and '-'. Default: the file's name.",
    "algorithm": "RLlib's; see [methods](methods.md#algorithms).",
    "env": "A gymnasium id such as CartPole-v1, or `module:Id`.",
    "env_config": "Keyword arguments of the environment.",
    "seed": "Of everything that is drawn; `--seed` replaces it.",
    "pruning": "What to prune, how much of it, and when.",
    "stop": "When a run ends.",
    "evaluation": "How the policy is measured.",
    "normalise": "What is normalised by running statistics.",
    "tracking": "Where a run is followed, beside its own directory.",
    "evaluation.episodes": "Episodes of each validation and of the test.",
    "evaluation.validation_seed": "Seed of the first validation episode; the others follow it.",
    "evaluation.test_seed": "Seed of the first test episode. Test episodes choose nothing.",
    "tracking.wandb": "Weights & Biases: `offline` needs no account.",
    "tracking.project": "The project in Weights & Biases.",
    "tracking.tensorboard": "Whether event files for TensorBoard are written.",
    "search.method": "How trials are chosen; see [methods](methods.md#search-methods).",
    "search.space": "Dotted key -> `uniform`, `loguniform`, `choice`, `grid` and others.",
    "search.objectives": "Measurement -> `max` or `min`; `subject_to` bounds others.",
    "fit.deadline": "What 99 of 100 actions take at most, such as `1ms`.",
    "fit.p99": "The same under its other name.",
    "fit.latency": "What an action takes at the median, such as `200us`.",
    "fit.flash": "Code and constants, such as `64KB` (of 1,024 bytes).",
    "fit.ram": "Beside them, the stack included.",
    "fit.instructions": "Of one action.",
    "fit.parameters": "That aren't zero.",
    "fit.energy": "Of one action, such as `5uJ`, where the target reports it.",
    "fit.granularities": "Each beside the unpruned network.",
}
"""Of keys whose models say nothing because their names do; a test holds that all are keys."""
