"""YAML 1.2 files and the ``--set KEY=VALUE`` overrides on top of them.

PyYAML follows YAML 1.1, which reads ``2:4`` as 124, ``off`` as False and ``3e-4`` as text;
ruamel.yaml follows 1.2 (docs/adr/0003).

>>> parse("[2:4, off, 3e-4]")
['2:4', 'off', 0.0003]
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rayprune.errors import ConfigError, shown

_SEGMENT = re.compile(r"""\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<plain>[^."'=]+))\s*""")


def parse(text: str, where: str = "YAML") -> Any:
    """Return what a YAML 1.2 text says; ConfigError names ``where`` and the line."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        raise ConfigError(_syntax_fault(error, where)) from error
    except YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def dump(value: object) -> str:
    """Return ``value`` as block-style YAML, keys in their own order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    # Two keys that hold one list are two lists in the file, not an anchor and an alias.
    yaml.representer.ignore_aliases = lambda _data: True
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds, or raise ConfigError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no file {str(path)!r}. `rayprune list configs` shows those at hand."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error.reason}.") from error
    except OSError as error:
        raise ConfigError(f"{str(path)!r} can't be read: {error.strerror}.") from error
    raw = parse(text, where=str(path))
    if not isinstance(raw, dict):
        is_now = "is empty" if raw is None else f"holds {shown(raw)}"
        raise ConfigError(f"{path} must be a mapping of keys to values, but it {is_now}.")
    return raw


def apply_overrides(raw: dict[str, Any], overrides: Iterable[str]) -> list[str]:
    """Write each ``a.b.c=VALUE`` into the nested mapping ``raw``; return the faults.

    >>> raw = {"pruning": {"sparsity": 0.9}}
    >>> apply_overrides(raw, ["pruning.sparsity=0", 'pruning.distribution."pi.0"=0.5'])
    []
    >>> raw
    {'pruning': {'sparsity': 0, 'distribution': {'pi.0': 0.5}}}
    """
    faults: list[str] = []
    for override in overrides:
        try:
            path, value = _split(override)
            write_at(raw, path, value, functools.partial(_no_mapping, override))
        except ConfigError as error:
            faults.extend(error.faults)
    return faults


def split_key(key: str) -> list[str] | None:
    """Return the segments of a dotted key, or None when it is malformed.

    >>> split_key('pruning.distribution."pi.0"')
    ['pruning', 'distribution', 'pi.0']
    >>> split_key("pruning..sparsity")
    """
    segments, rest = _segments(key)
    return None if rest else segments


def _split(override: str) -> tuple[list[str], Any]:
    """Return the segments and the value of ``a."b.c".d=VALUE``."""
    segments, rest = _segments(override)
    if segments is None or not rest.startswith("="):
        raise _malformed(override)
    return segments, parse(rest[1:], where=f"The value of `--set {override}`")


def _segments(text: str) -> tuple[list[str] | None, str]:
    """Return the segments that a text begins with (None: malformed), and what follows them."""
    segments: list[str] = []
    position, separator = 0, "."
    while separator == ".":
        match = _SEGMENT.match(text, position)
        if match is None:
            return None, ""
        segments.append(next(group for group in match.groups() if group is not None).strip())
        separator, position = text[match.end() : match.end() + 1], match.end() + 1
    return (segments if all(segments) else None), text[position - len(separator) :]


def _malformed(override: str) -> ConfigError:
    return ConfigError(
        f"`--set` needs KEY=VALUE, but has {override!r}. "
        "For example --set pruning.sparsity=0.8; quote a layer's dotted name: "
        "--set 'pruning.distribution.\"pi.0\"=0.5'."
    )


def _no_mapping(override: str, path: Sequence[str], held: object) -> ConfigError:
    return ConfigError(
        f"`--set {override}` can't be done: `{'.'.join(path)}` is {shown(held)}, not a mapping. "
        "Set it as a whole."
    )


def write_at(
    raw: dict[str, Any],
    path: Sequence[str],
    value: Any,
    refuse: Callable[[Sequence[str], object], ConfigError],
) -> None:
    """Write a value where a path leads in nested mappings, which are made on the way.

    Args:
        raw: changed.
        path: one key at least.
        value: what is written.
        refuse: from the path of what is no mapping, and its value, to the error raised.

    >>> raw = {"a": {"b": 1}}
    >>> write_at(raw, ["a", "c", "d"], 2, lambda path, held: ConfigError("no"))
    >>> raw
    {'a': {'b': 1, 'c': {'d': 2}}}
    """
    holder = raw
    for depth, segment in enumerate(path[:-1], start=1):
        inner = holder.get(segment)
        if inner is None:
            inner = holder[segment] = {}
        elif not isinstance(inner, dict):
            raise refuse(path[:depth], inner)
        holder = inner
    holder[path[-1]] = value


def _syntax_fault(error: MarkedYAMLError, where: str) -> str:
    problem = error.problem or error.context or "can't be read"
    mark = error.problem_mark or error.context_mark
    at = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{where}{at}: {problem}."


def plain(value: object) -> Any:
    """Return ``value`` with tuples as lists and mappings as dicts, as YAML and JSON hold them."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
