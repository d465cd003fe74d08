"""The page of the Python API, from the docstrings of what each package's ``__all__`` names."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

from griffe import Docstring, DocstringSectionKind

from tools.docs.markdown import GENERATED, first_sentence, plain, table

PACKAGES: Final = (
    "rayprune",
    "rayprune.rllib",
    "rayprune.search",
    "rayprune.deploy",
    "rayprune.serve",
    "rayprune.policies",
)
"""Those that people import from; one that isn't there is left out."""

INTRODUCTION = """\
What is public: the names that these packages export, and nothing beneath them. `import rayprune`
imports neither Ray nor gymnasium. Shapes, units and errors are in the docstrings, which `help()`
shows, too.
"""


def api_page() -> str:
    """Return docs/reference/python.md."""
    packages = [package for package in map(_package, PACKAGES) if package is not None]
    parts = [GENERATED, "", "# Python", "", INTRODUCTION]
    for package in packages:
        parts += [f"## {package.__name__}", "", first_sentence(package.__doc__), ""]
        rows = [
            [f"[`{name}`](#{anchor(package.__name__, name)})", first_sentence(_said(held))]
            for name, held in _names(package)
        ]
        parts += [table(["name", "what it is"], rows), ""]
        for name, held in _names(package):
            parts += _entry(f"{package.__name__}.{name}", held)
    return "\n".join(parts)


def anchor(package: str, name: str) -> str:
    """Return the anchor of a name's heading.

    >>> anchor("rayprune.deploy", "compact")
    'rayprunedeploycompact'
    """
    return f"{package}.{name}".replace(".", "").lower()


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def _names(package: Any) -> Iterator[tuple[str, Any]]:
    told: set[int] = set()
    for name in sorted(package.__all__, key=str.lower):
        held = getattr(package, name)
        if id(held) not in told and callable(held):
            told.add(id(held))
            yield name, held


def _said(held: Any) -> str:
    return inspect.getdoc(held) or ""


def _entry(name: str, held: Any) -> list[str]:
    lines = [f"### {name}", "", "```python", _signature(name.rpartition(".")[2], held), "```", ""]
    lines += _sections(_said(held))
    if inspect.isclass(held):
        lines += _members(held)
    return lines


def _members(kind: type) -> list[str]:
    """Return a table of the properties, and each method with its signature."""
    methods, properties = [], []
    for name, member in sorted(inspect.getmembers_static(kind)):
        if name.startswith("_") or not _ours(kind, name) or not _doc(kind, name):
            continue
        plain_member = (
            member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        )
        if inspect.isfunction(plain_member):
            methods.append((name, member, plain_member))
        elif isinstance(member, property) or hasattr(member, "func"):
            properties.append([f"`{name}`", first_sentence(_doc(kind, name))])
    lines = [table(["property", "what it is"], properties), ""] if properties else []
    for name, member, function in methods:
        bound = not isinstance(member, staticmethod)
        lines += [f"#### {kind.__name__}.{name}", "", "```python"]
        lines += [_signature(name, function, bound=bound), "```", "", *_sections(_doc(kind, name))]
    return lines


def _ours(kind: type, name: str) -> bool:
    owner = next((base for base in kind.__mro__ if name in vars(base)), object)
    return owner.__module__.startswith("rayprune")


def _doc(kind: type, name: str) -> str:
    return inspect.getdoc(getattr(kind, name)) or ""


def _signature(name: str, held: Any, *, bound: bool = False) -> str:
    """Return a call's signature without annotations; one argument a line where it is long.

    >>> _signature("f", lambda self, x, *, y=1: None, bound=True)
    'f(x, *, y=1)'
    """
    try:
        found = inspect.signature(held)
    except (TypeError, ValueError):
        return f"{name}(...)"
    parameters = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    if bound and parameters:
        parameters = parameters[1:]
    bare = found.replace(parameters=parameters, return_annotation=found.empty)
    text = re.sub(r" at 0x[0-9a-f]+", "", f"{name}{bare}")
    if len(text) <= 88:
        return text
    lines = re.sub(r"^\((.*)\)$", r"\1", str(bare))
    held_lines = "".join(f"    {part},\n" for part in _split(lines))
    return re.sub(r" at 0x[0-9a-f]+", "", f"{name}(\n{held_lines})")


def _split(arguments: str) -> list[str]:
    parts, depth, last = [], 0, 0
    for at, letter in enumerate(arguments):
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append(arguments[last:at].strip())
            last = at + 1
    return [*parts, arguments[last:].strip()]


_HEADS: Final = {
    DocstringSectionKind.parameters: ("argument", "what it is"),
    DocstringSectionKind.attributes: ("attribute", "what it is"),
    DocstringSectionKind.raises: ("error", "when"),
}


def _sections(doc: str) -> list[str]:
    """Return a Google docstring as Markdown: prose, tables, examples."""
    lines: list[str] = []
    parsed = Docstring(doc).parse("google", warn_missing_types=False, warnings=False)
    for section in parsed:
        if section.kind is DocstringSectionKind.text:
            lines += [*_prose(section.value), ""]
        elif section.kind in _HEADS:
            rows = [
                [f"`{getattr(item, 'name', None) or item.annotation}`", plain(item.description)]
                for item in section.value
            ]
            lines += [table(_HEADS[section.kind], rows), ""]
        elif section.kind in (DocstringSectionKind.returns, DocstringSectionKind.yields):
            said = " ".join(plain(item.description) for item in section.value)
            lines += [f"*{section.kind.value.capitalize()}*: {' '.join(said.split())}", ""]
        elif section.kind is DocstringSectionKind.examples:
            for _, text in section.value:
                lines += [*_prose(text), ""]
    return lines


def _prose(text: str) -> list[str]:
    """Return paragraphs; those that begin with a prompt, and reST's literal blocks, as code."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.lstrip().startswith(">>>"):
            lines += ["```pycon", inspect.cleandoc(paragraph), "```", ""]
        elif paragraph.startswith("    "):
            lines += ["```text", inspect.cleandoc(paragraph), "```", ""]
        else:
            lines += [plain(re.sub(r"::$", ":", paragraph)), ""]
    return lines[:-1]
