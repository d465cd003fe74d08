"""Python's annotations in plain words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_KINDS: Final[Mapping[str, str]] = {
    "Count": "whole number above 0",
    "Seed": "whole number",
    "Number": "number",
    "Share": "number in (0, 1)",
    "Limit": "number or text",
    "Text": "text",
    "Keywords": "mapping",
    "Width": "share or list of widths",
    "str": "text",
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "None": "null",
}


def kind_of(annotation: str) -> str:
    """Return an annotation in plain words.

    >>> kind_of("Count | None"), kind_of("Annotated[tuple[Share, ...], X]")
    ('whole number above 0 or null', 'list of number in (0, 1)')
    """
    text = annotation
    wrapped = re.fullmatch(
        r"Annotated\[(.*?), (?:AfterValidator|BeforeValidator|Field|Listed|X).*\]( \| None)?", text
    )
    if wrapped:
        text = wrapped.group(1) + (wrapped.group(2) or "")
    literal = re.fullmatch(r"Literal\[(.*)\]", text)
    if literal:
        return ", ".join(f"`{name}`" for name in re.findall(r"['\"]([^'\"]+)['\"]", text))
    parts = [part.strip() for part in _split(text)]
    return " or ".join(_KINDS.get(part, _compound(part)) for part in parts)


def _split(text: str) -> list[str]:
    """Split a union at its own bars, not at those within brackets."""
    parts, depth, last = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            parts.append(text[last:at])
            last = at + 1
    return [*parts, text[last:]]


def _compound(part: str) -> str:
    if part.startswith("dict"):
        return "mapping"
    held = re.fullmatch(r"tuple\[(.*), \.\.\.\]", part)
    return f"list of {kind_of(held.group(1))}" if held else part
