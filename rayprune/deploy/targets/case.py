"""What a policy's C is measured with: some inputs as it met them, and an empty stand-in for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from rayprune.deploy.formats.c.program import C_TYPES, c_name
from rayprune.deploy.formats.c.source_file import parameters
from rayprune.deploy.policy.interface import Array, Interface, Port
from rayprune.deploy.policy.metadata import Metadata

CASES: Final = 16
"""Inputs that the figures are taken over."""


def write_case(metadata: Metadata, folder: Path) -> tuple[Path, Path]:
    """Write the C that calls a policy with its inputs, and the C that stands in for the policy.

    Args:
        metadata: of an exported C file.
        folder: for ``case.c`` and ``stub.c``.

    Returns:
        Their paths.
    """
    ports, name = metadata.interface, metadata.about["c_name"]
    prototype = f"int {name}_act({parameters(ports)})"
    case, stub = folder / "case.c", folder / "stub.c"
    case.write_text(_case(ports, name, prototype, usual_inputs(metadata, CASES)), encoding="utf-8")
    stub.write_text(f"#include <stdint.h>\n{prototype} {{ return 0; }}\n", encoding="utf-8")
    return case, stub


def usual_inputs(metadata: Metadata, count: int) -> list[Array]:
    """Return inputs like those that a file says it was recorded with.

    Normal numbers of the recorded means and spreads, within the bounds that are known; states are
    zeros, as an episode begins.
    """
    draw, told = np.random.default_rng(0), metadata.about.get("inputs", {})
    made = []
    for port in metadata.interface.inputs:
        values = port.zeros(count)
        if port not in metadata.interface.states:
            values = _drawn(port, count, told.get(port.name, {}), draw)
        made.append(values)
    return made


def _drawn(port: Port, count: int, told: Mapping[str, Any], draw: np.random.Generator) -> Array:
    size = math.prod(port.shape)
    mean, std = _each(told, "mean", 0.0, size), _each(told, "std", 1.0, size)
    low, high = _each(told, "low", -np.inf, size), _each(told, "high", np.inf, size)
    values = np.clip(mean + std * draw.standard_normal((count, size)), low, high)
    if np.dtype(port.dtype).kind != "f":
        values = np.rint(values) if "mean" in told else np.zeros_like(values)
    return values.reshape(count, *port.shape).astype(port.dtype)


def _each(told: Mapping[str, Any], key: str, unknown: float, size: int) -> Array:
    """Return a fact of each element; one number stands for all, None for what isn't known."""
    held = told.get(key)
    many = held if isinstance(held, list) and len(held) == size else [held] * size
    if isinstance(held, list) and len(held) != size:
        many = [None] * size
    return np.array([unknown if value is None else value for value in many], float)


def _case(ports: Interface, name: str, prototype: str, inputs: list[Array]) -> str:
    tables = [_table(port, values) for port, values in zip(ports.inputs, inputs, strict=True)]
    room = [
        f"static {C_TYPES[port.dtype]} out_{c_name(port.name)}[{max(1, math.prod(port.shape))}];\n"
        for port in ports.outputs
    ]
    given = [f"in_{c_name(p.name)} + which * {math.prod(p.shape)}" for p in ports.inputs]
    made = [f"out_{c_name(port.name)}" for port in ports.outputs]
    return (
        f'#include <stdint.h>\n#include "case.h"\n{prototype};\n{"".join(tables)}{"".join(room)}'
        f"const int case_count = {CASES};\n"
        f"int case_act(int which) {{ return {name}_act({', '.join([*given, *made])}); }}\n"
    )


def _table(port: Port, values: Array) -> str:
    # Hexadecimal floats are exact.
    texts = (
        [f"{value.hex()}f" for value in values.reshape(-1).tolist()]
        if values.dtype.kind == "f"
        else [str(int(value)) for value in values.reshape(-1).tolist()]
    )
    lines = (",".join(texts[i : i + 8]) for i in range(0, len(texts), 8))
    head = f"static const {C_TYPES[port.dtype]} in_{c_name(port.name)}[]"
    return f"{head} = {{\n" + ",\n".join(lines) + "};\n"
