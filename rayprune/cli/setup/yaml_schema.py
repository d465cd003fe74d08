"""The JSON Schema of an experiment's YAML, made of the models that check it and the registries.

It says less than the checks do: what depends on two keys at once is left to them. Names that a
module of ``imports`` registers are known to nobody beforehand, so a file that has ``imports`` may
use any.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from rayprune.algorithms import ALGORITHMS
from rayprune.config import ExperimentConfig
from rayprune.fit.config import FitConfig
from rayprune.pruning.blocks import distillation, evidence
from rayprune.pruning.blocks.groups import OWN
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.criteria import CRITERIA
from rayprune.pruning.distributions import DISTRIBUTIONS
from rayprune.pruning.granularity import GRANULARITIES, POOLINGS
from rayprune.pruning.penalties import PENALTIES
from rayprune.pruning.quantisation.config import ACTIVATIONS, LINES, WEIGHTS
from rayprune.pruning.recipes import RECIPES
from rayprune.pruning.remedies import remedy_options
from rayprune.pruning.schedules import SCHEDULES, complete, schedule_of
from rayprune.search.config import SearchConfig
from rayprune.search.methods import METHODS

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_SHARE: Final[dict[str, Any]] = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
_NUMBERS: Final[dict[str, Any]] = {"type": "object", "additionalProperties": {"type": "number"}}
# Where a value is prepared before it is checked, pydantic leaves its own words in the schema.
_LIMITS: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
_NAME: Final[dict[str, Any]] = {"type": "string"}
_REQUIRED: Final = ("algorithm", "env")


def yaml_schema(rllib: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """Return the schema.

    Args:
        rllib: by method of RLlib's AlgorithmConfig its keywords, of any algorithm.
    """
    schema: dict[str, Any] = _without_titles(ExperimentConfig.model_json_schema(by_alias=True))
    blocks = schema["properties"]
    _describe(blocks, ExperimentConfig)
    for name, held in schema.get("$defs", {}).items():
        model = next((one for one in _sections() if one.__name__ == name), None)
        if model is not None:
            _describe(held["properties"], model)
    blocks |= {
        "pruning": _pruning(),
        "quantise": _quantise(),
        "search": _block(
            SearchConfig, method=_enum(METHODS, {n: m.line for n, m in METHODS.items()})
        ),
        "fit": _block(FitConfig),
        "rllib": _rllib(rllib),
        "versions": {"type": "object", "description": "What wrote the file; read by nobody."},
    }
    for name, block in blocks.items():
        if name not in _REQUIRED:
            # A block whose lines are all commented out means its defaults.
            blocks[name] = _or_null(block)
    definitions = schema.pop("$defs", {})
    for name in ("search", "fit"):
        definitions |= _raised(blocks[name])
    return {
        "$schema": DRAFT,
        "title": "rayprune experiment",
        "description": "A YAML for rayprune train, sweep and fit.",
        "type": "object",
        "properties": blocks,
        "additionalProperties": False,
        "required": [*_REQUIRED],
        "if": {"not": {"required": ["imports"]}},
        "then": {"properties": _registered_names()},
        "$defs": definitions,
    }


def _registered_names() -> dict[str, Any]:
    """Return what holds where nothing registers names of its own."""
    lines = {name: known.line for name, known in ALGORITHMS.items()}
    kinds = _enum(SCHEDULES, _first_lines(SCHEDULES))
    names = {
        "criterion": _enum(CRITERIA, _first_lines(CRITERIA)),
        "granularity": {
            "anyOf": [
                _enum(["filter", *GRANULARITIES], _first_lines(GRANULARITIES)),
                {"type": "string", "pattern": r"^\d+:\d+$", "description": "N of each M inputs."},
            ]
        },
        "distribution": {"anyOf": [_enum(DISTRIBUTIONS, _first_lines(DISTRIBUTIONS)), _NUMBERS]},
        "schedule": {"properties": {"kind": kinds}, "allOf": [*_keys_by_kind()]},
        "penalty": {
            "properties": {"kind": _enum(PENALTIES, _first_lines(PENALTIES))},
        },
    }
    return {"algorithm": _enum(ALGORITHMS, lines), "pruning": {"properties": names}}


def _keys_by_kind() -> Iterator[dict[str, Any]]:
    """Yield for each kind of schedule which keys it has."""
    for kind in SCHEDULES:
        wanted = {"properties": {"kind": {"const": kind}}, "required": ["kind"]}
        yield {"if": wanted, "then": {"propertyNames": {"enum": sorted(_keys_of(kind))}}}


def _keys_of(kind: str) -> set[str]:
    """Return the keys that a schedule's mapping may have."""
    rules = schedule_of({"kind": kind})
    return {"kind"} | rules.keys()


def _pruning() -> dict[str, Any]:
    """Return the block ``pruning``, whose checks are rayprune's own."""
    told = _arguments(PruningConfig)
    keys = set[str]().union(*map(_keys_of, SCHEDULES))
    schedule: dict[str, Any] = {
        "type": "object",
        "properties": {
            "kind": _NAME,
            "every": {"type": "integer", "minimum": 1},
            **{key: {} for key in sorted(keys - {"kind", "every"})},
        },
        "default": complete({}),
    }
    fields: dict[str, dict[str, Any]] = {
        "recipe": _or_null(_enum(RECIPES, _first_lines(RECIPES))),
        "sparsity": _or_null(_SHARE),
        "threshold": _or_null(_object("absolute", "percentile", "mean_fraction", "of_lowest")),
        "criterion": {**_NAME, "default": "l1"},
        "granularity": {**_NAME, "default": "weight"},
        "hybrid": _or_null(_object("neuron", "head", "weight")),
        "pooling": _enum(POOLINGS),
        "distribution": {"anyOf": [_NAME, _NUMBERS], "default": "uniform"},
        "operation": {"anyOf": [{"const": "zero"}, _object("scale", "steps")]},
        "schedule": schedule,
        "protect": {"type": "array", "items": _NAME},
        "frozen": _enum(["keep", "prune"]),
        "groups": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": [*OWN, "neuron", "weight"]},
            },
        },
        "on_clone": _enum(["hold", "regrow"]),
        "penalty": _or_null({"type": "object"}),
        "distillation": _or_null(_object(*distillation.DEFAULTS)),
        "remedies": {
            "type": "object",
            "properties": {key: {"description": line} for key, line in remedy_options().items()},
            "additionalProperties": False,
        },
        "compact_every": _or_null({"type": "integer", "minimum": 1}),
        "max_kl": _or_null({"type": "number", "exclusiveMinimum": 0}),
        "max_value_change": _or_null({"type": "number", "exclusiveMinimum": 0}),
        "evidence": _object(*evidence.DEFAULTS),
        "plasticity": _or_null(_object("every")),
        "fused_optimizer": {"type": "boolean"},
        "horizon": _or_null({"type": "integer", "minimum": 1}),
    }
    # A field that is new since this was written is any value, rather than none.
    properties = {
        name: {**fields.get(name, {}), "description": told.get(name, "")}
        for name in PruningConfig.names()
    }
    return {
        "type": "object",
        "description": "What is pruned, how much of it, and when.",
        "properties": properties,
        "additionalProperties": False,
    }


def _quantise() -> dict[str, Any]:
    values: dict[str, dict[str, Any]] = {
        "weights": {"enum": [*WEIGHTS]},
        "activations": {"enum": [*ACTIVATIONS, None]},
        "observations": {"enum": [*ACTIVATIONS, None]},
        "start": {"type": "number", "minimum": 0},
        "freeze": {"type": "number", "minimum": 0},
        "follow": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "skip": {"type": "array", "items": _NAME},
    }
    properties = {key: {**values.get(key, {}), "description": line} for key, line in LINES.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _rllib(methods: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """Return the block ``rllib``; values are RLlib's, and it checks them."""
    return {
        "type": "object",
        "description": "RLlib's AlgorithmConfig: each of its methods with its keyword arguments.",
        "properties": {
            method: {"type": "object", "propertyNames": {"enum": sorted(keys)}}
            for method, keys in sorted(methods.items())
        },
        "additionalProperties": False,
    }


def _block(model: type[BaseModel], **replaced: dict[str, Any]) -> dict[str, Any]:
    """Return a model as a block."""
    block: dict[str, Any] = _without_titles(model.model_json_schema(by_alias=True))
    _describe(block["properties"], model)
    for name, schema in replaced.items():
        held = block["properties"][name]
        block["properties"][name] = {**held, **schema}
    return block


def _describe(properties: dict[str, Any], model: type[BaseModel]) -> None:
    """Say of each property what the docstring under its field says."""
    told = _attribute_docstrings(model)
    for name, info in model.model_fields.items():
        text = told.get(name) or info.description
        if text:
            properties[info.alias or name]["description"] = text


def _sections() -> list[type[BaseModel]]:
    base = ExperimentConfig.__mro__[1]
    return [*base.__subclasses__()]


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the texts that stand under a class's fields."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        text = after.value if isinstance(after, ast.Expr) else None
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if named and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[field.target.id] = _plain(text.value)  # type: ignore[attr-defined]
    return found


def _arguments(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each argument."""
    section = (inspect.getdoc(kind) or "").partition("Args:\n")[2].partition("\nRaises:")[0]
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return {name: _plain(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _first_lines(registry: Mapping[str, object]) -> dict[str, str]:
    lines = {
        name: (inspect.getdoc(held) or "").split("\n", 1)[0] for name, held in registry.items()
    }
    return {name: _plain(line) for name, line in lines.items()}


def _enum(names: Iterable[str], lines: Mapping[str, str] | None = None) -> dict[str, Any]:
    held = [*names]
    if not lines:
        return {"enum": held}
    # What editors show beside each name that they offer.
    return {"enum": held, "markdownEnumDescriptions": [lines.get(name, "") for name in held]}


def _object(*keys: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: {} for key in keys},
        "additionalProperties": False,
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that null fits, too."""
    if "type" in schema and isinstance(schema["type"], str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _raised(block: dict[str, Any]) -> dict[str, Any]:
    """Take a block's own definitions out of it; its references are to the whole file's."""
    held = block if "$defs" in block else block.get("anyOf", [{}])[0]
    found: dict[str, Any] = held.pop("$defs", {})
    return found


def _without_titles(schema: Any) -> Any:
    """Return a schema without the titles that pydantic makes of names, its limits in full."""
    if isinstance(schema, list):
        return [_without_titles(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        _LIMITS.get(key, key): _without_titles(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
