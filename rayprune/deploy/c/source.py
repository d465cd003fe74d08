"""A program as the text of a C file and its header."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rayprune.deploy.c.kernels import HEAD, texts
from rayprune.deploy.c.program import C_TYPES, Program, c_name
from rayprune.deploy.c.selftest import self_test
from rayprune.deploy.interface import Array, Interface, Port
from rayprune.deploy.metadata import Metadata

MARK: Final = "/* rayprune: "
"""What the comment with the metadata begins with."""
_DECLARED: Final = {"best": "int", "sum": "float", "mean": "float"}


@dataclass(frozen=True, slots=True)
class Source:
    """The two files."""

    code: str
    header: str


def write_source(
    program: Program, metadata: Metadata, name: str, examples: Sequence[Sequence[Array]]
) -> Source:
    """Write a lowered policy as C99.

    Args:
        program: from `lower`.
        metadata: goes into a comment.
        name: what the functions' names begin with.
        examples: the self-test's inputs and the outputs that are expected of them.
    """
    ports = metadata.interface
    # An escaped slash is JSON too, and ends no comment.
    told = metadata.to_json().replace("/", r"\/")
    body = _function(program, ports, name)
    parts = [
        f"{MARK}{told} */\n",
        _COMPILE.format(name=name),
        *_includes(program, body),
        HEAD.format(lanes=program.lanes, unroll=2 if program.lanes == 4 else 4),
        texts(program.kernels),
        "\n",
        *(_constant(*held) for held in program.constants),
        *(f"static {ctype} {b}[{size}];\n" for b, ctype, size in program.buffers),
        body,
        _many(ports, name),
        self_test(ports, name, *examples),
    ]
    return Source("".join(parts), _header(ports, name))


_COMPILE: Final = """/*
 * Made by `rayprune export`; see {name}.h. To compile it:
 *   cc -O3 -march=native -ffp-contract=fast -fno-trapping-math -c {name}.c
 * To test it, on the observations that it holds for that:
 *   cc (the same options) -DPOLICY_SELFTEST {name}.c -o test && ./test
 * (-lm for activations that need it; -DPOLICY_PLAIN leaves GCC's vectors out.)
 */
"""


def _includes(program: Program, body: str) -> Iterator[str]:
    special = any(not np.isfinite(a).all() for _, kind, a in program.constants if kind == "float")
    if program.headers or special or re.search("INFINITY|NAN", body):
        yield "#include <math.h>\n"
    yield "#include <stdint.h>\n"


def _constant(name: str, ctype: str, array: Array) -> str:
    flat = array.reshape(-1).tolist() or [0]
    if ctype == "float":
        text = [_number(value) for value in flat]
    else:
        text = [str(int(value)) for value in flat]
    lines = (",".join(text[i : i + 16]) for i in range(0, len(text), 16))
    return f"static const {ctype} {name}[{len(text)}] = {{\n" + ",\n".join(lines) + "};\n"


def _number(value: float) -> str:
    if math.isfinite(value):
        # Nine digits give every float32 back, even by way of a double.
        return f"{value:.9g}"
    return "NAN" if math.isnan(value) else "-INFINITY" if value < 0 else "INFINITY"


def parameters(ports: Interface) -> str:
    """Return the parameters of the functions, inputs first."""
    given = [f"const {C_TYPES[port.dtype]} *{c_name(port.name)}" for port in ports.inputs]
    made = [f"{C_TYPES[port.dtype]} *{c_name(port.name)}" for port in ports.outputs]
    return ", ".join([*given, *made])


def _function(program: Program, ports: Interface, name: str) -> str:
    body = "\n".join(f"  {line}" for line in program.statements)
    counters = sorted(set(re.findall(r"\bi\d*\b", body)))
    declared = [f"  int {', '.join(counters)};\n"] if counters else []
    declared += [
        f"  {kind} {v};\n" for v, kind in _DECLARED.items() if re.search(rf"\b{v}\b", body)
    ]
    prototype = f"void {name}_act({parameters(ports)})"
    return f"\n{prototype};\n{prototype} {{\n{''.join(declared)}{body}\n}}\n"


def _many(ports: Interface, name: str) -> str:
    """Return the function for a batch."""

    def moved(port: Port) -> str:
        size, pointer = math.prod(port.shape), c_name(port.name)
        return f"{pointer} + (long)r * {size}"

    given = [moved(port) for port in ports.inputs]
    made = [moved(ports.action)]
    made += [f"{c_name(port.name)} ? {moved(port)} : 0" for port in ports.outputs[1:]]
    prototype = f"void {name}_act_many(int n, {parameters(ports)})"
    call = f"{name}_act({', '.join([*given, *made])})"
    return f"\n{prototype};\n{prototype} {{\n  int r;\n  for (r = 0; r < n; r++)\n    {call};\n}}\n"


_HEADER: Final = """/* A policy exported by rayprune: C99, no allocation, no dependency. */
#ifndef {guard}_H
#define {guard}_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {{
#endif

{sizes}
/*
 * One step. Observations are raw, as the environment gives them. All outputs but the action may be
 * NULL. A next state may be the state itself; states are zeros when an episode begins.
 * Not to be called from two threads at once: what lies between the layers is static.
 *
{ports} */
void {name}_act({parameters});

/* n steps of n episodes, one behind the other; every array holds n items. */
void {name}_act_many(int n, {parameters});

#ifdef __cplusplus
}}
#endif
#endif
"""


def _header(ports: Interface, name: str) -> str:
    guard = name.upper()
    every = [*ports.inputs, *ports.outputs]
    sizes = "".join(
        f"#define {guard}_{c_name(port.name).upper()}_SIZE {math.prod(port.shape)}\n"
        for port in every
    )
    lines = "".join(f" *   {c_name(port.name)}: {_told(port, ports)}\n" for port in every)
    return _HEADER.format(
        guard=guard, name=name, sizes=sizes, ports=lines, parameters=parameters(ports)
    )


def _told(port: Port, ports: Interface) -> str:
    shape = "x".join(map(str, port.shape)) or "one number"
    noise = f", standard {ports.noise_kind}" if port == ports.noise else ""
    return f"{shape}{noise}"
