"""Turns pydantic's errors into rayprune's: the field, the constraint, the value, the way out."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rayprune.errors import did_you_mean, shown, unknown_key

# pydantic's error type -> what the value must be; {name} is taken from the error's context.
_REQUIREMENTS: Mapping[str, str] = types.MappingProxyType(
    {
        "int_type": "an integer",
        "float_type": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "string_type": "text",
        "string_too_short": "text of at least {min_length} character(s)",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
        "list_type": "a list",
        "tuple_type": "a list",
        "greater_than": "greater than {gt}",
        "greater_than_equal": "at least {ge}",
        "less_than": "less than {lt}",
        "less_than_equal": "at most {le}",
        "too_short": "a list of at least {min_length} value(s)",
    }
)


def faults_from(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Describe every fault of a ``ValidationError`` in one sentence each.

    Args:
        error: what validating ``model`` raised.
        model: the model, asked for the names that exist where a key is unknown.
        prefix: put before each field's name, such as ``"pruning."``.

    Returns:
        Messages like `` `stop.env_steps` must be greater than 0, but is -5. ``
    """
    return [_fault(details, model, prefix) for details in error.errors(include_url=False)]


def _fault(details: ErrorDetails, model: type[BaseModel], prefix: str) -> str:
    path = [str(part) for part in details["loc"]]
    if path[-1:] == ["[key]"]:
        holder = prefix + ".".join(path[:-2])
        return f"`{holder}` must have text for its keys, but one is {shown(details['input'])}."
    field = prefix + ".".join(path)
    special = _SPECIAL.get(details["type"])
    if special is not None:
        return special(field, details, model)
    context = details.get("ctx", {})
    if details["type"] in _REQUIREMENTS:
        requirement = _REQUIREMENTS[details["type"]].format(**context)
        return f"`{field}` must be {requirement}, but is {shown(details['input'])}."
    return f"`{field}`: {details['msg']}, but it is {shown(details['input'])}."


def _extra(field: str, details: ErrorDetails, model: type[BaseModel]) -> str:
    holder = _model_at(model, details["loc"][:-1])
    return unknown_key(field, [info.alias or name for name, info in holder.model_fields.items()])


def _missing(field: str, details: ErrorDetails, model: type[BaseModel]) -> str:
    info = _model_at(model, details["loc"][:-1]).model_fields[str(details["loc"][-1])]
    return f"`{field}` is missing: give {info.description or 'it'}."


def _literal(field: str, details: ErrorDetails, model: type[BaseModel]) -> str:
    annotation = _model_at(model, details["loc"][:-1]).model_fields[str(details["loc"][-1])]
    names = [str(name) for name in get_args(annotation.annotation)]
    value = details["input"]
    return f"`{field}` must be one of {names}, but is {shown(value)}.{did_you_mean(value, names)}"


def _custom(field: str, details: ErrorDetails, model: type[BaseModel]) -> str:
    """A validator of ours raised ValueError: its text goes on after the field's name."""
    return f"`{field}` {details['ctx']['error']}"


_SPECIAL: Mapping[str, Callable[[str, ErrorDetails, type[BaseModel]], str]] = (
    types.MappingProxyType(
        {
            "extra_forbidden": _extra,
            "invalid_key": _extra,
            "missing": _missing,
            "literal_error": _literal,
            "value_error": _custom,
        }
    )
)


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Return the model that a location's ``path`` leads to, by aliases."""
    for part in path:
        for name, info in model.model_fields.items():
            inner = _inner_model(info.annotation)
            if part in (name, info.alias) and inner is not None:
                model = inner
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in ``Model`` or ``Model | None``."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    for option in options or (annotation,):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None
