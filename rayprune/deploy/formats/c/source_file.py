"""A program as the text of a C file and its header."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from rayprune.deploy.formats.base import Examples
from rayprune.deploy.formats.c.elementwise import literal
from rayprune.deploy.formats.c.kernels import KERNELS, texts
from rayprune.deploy.formats.c.program import C_TYPES, Constant, Program, c_name
from rayprune.deploy.formats.c.registers import MACROS, head
from rayprune.deploy.formats.c.selftest import self_test
from rayprune.deploy.formats.c.workspace import Slot, slots_of, workspace_bytes
from rayprune.deploy.policy.file_hash import BLANK
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.metadata import Metadata

MARK: Final = "/* rayprune: "
"""What the comment with the metadata begins with."""
_DECLARED: Final = {"best": "int32_t", "sum": "float", "mean": "float"}
_TEXT: Final = "".join(text for _, text in KERNELS.values())
_FUNCTIONS: Final = sorted({*re.findall(r"^static \w+ (\w+)\(", _TEXT, re.MULTILINE)})
_OWN: Final = re.compile(rf"\b({'|'.join((*_FUNCTIONS, *MACROS))}|c\d+)\b")
"""What a file defines for itself: kernels, their macros and types, constants."""


@dataclass(frozen=True, slots=True)
class Source:
    """The two files."""

    code: str
    header: str


def write_source(program: Program, metadata: Metadata, name: str, examples: Examples) -> Source:
    """Write a lowered policy as C99.

    Args:
        program: from `lower`.
        metadata: goes into a comment.
        name: what the names of all that the file defines begin with.
        examples: for the self-test.
    """
    ports = metadata.interface
    # JSON too, and neither ends a comment nor begins another in it.
    told = metadata.to_json().replace("*", r"\u002a")
    header = _header(program, ports, name)
    body = _function(program, ports, name)
    own = [
        head(program.lanes),
        texts(program.kernels, program.kernels_when),
        "\n",
        *map(_constant, program.constants),
        body,
    ]
    parts = [
        f"{MARK}{told} */\n",
        f"/* {BLANK} */\n",
        "" if metadata.proven else _UNPROVEN,
        _COMPILE.format(name=name),
        *_includes(program, body),
        header,
        *(_OWN.sub(rf"{name}_\1", part) for part in own),
        _single(ports, name),
        _many(ports, name),
        self_test(ports, name, examples),
    ]
    return Source("".join(parts), header)


_UNPROVEN: Final = """/* UNPROVEN: there was no C compiler where this file was written, so that
 * it was never run and compared with the policy. Compile and run its self-test before it acts. */
"""
_COMPILE: Final = """/*
 * Made by `rayprune export`; the functions are described below. Any options will do, -O2 or -Os:
 *   cc -O2 -c {name}.c
 * Kernels take what the compiler says of the machine: -march=native on one like this.
 * To test it, on the observations that it holds for that:
 *   cc (the same options) -DPOLICY_SELFTEST {name}.c -o test && ./test
 * (-lm for activations that need it; -DPOLICY_PLAIN leaves GCC's vectors out.)
 */
"""


def _includes(program: Program, body: str) -> Iterator[str]:
    floats = [held.values for held in program.constants if held.ctype == "float"]
    special = any(not np.isfinite(values).all() for values in floats)
    if program.headers or special or re.search("INFINITY|NAN", body):
        yield "#include <math.h>\n"


def _constant(held: Constant) -> str:
    flat = held.values.tolist()
    # Compilers that see a tile of four rows and fewer numbers warn, though it isn't taken.
    flat += [0] * ((4 if held.read_beyond else 1) - len(flat))
    text = [literal(value) if held.ctype == "float" else str(int(value)) for value in flat]
    lines = (",".join(text[i : i + 16]) for i in range(0, len(text), 16))
    size = f"{len(text)} + BEYOND] TABLE" if held.read_beyond else f"{len(text)}]"
    table = f"static const {held.ctype} {held.name}[{size} = {{\n" + ",\n".join(lines) + "};\n"
    return f"#if {held.when}\n{table}#endif\n" if held.when else table


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
    slots, places = slots_of(program)
    kinds = {buffer.name: buffer.ctype for buffer in program.buffers}
    declared += [f"  {kinds[b]} *const {b} = workspace->{slot};\n" for b, slot in places.items()]
    unused = "" if slots else "  (void)workspace;\n"
    return (
        f"\nint {name}_act_in({name}_workspace *workspace, {parameters(ports)}) {{\n"
        f"{''.join(declared)}{unused}{body}\n}}\n"
    )


def _single(ports: Interface, name: str) -> str:
    """Return the function that works on the stack."""
    given = ", ".join(c_name(port.name) for port in (*ports.inputs, *ports.outputs))
    return (
        f"\nint {name}_act({parameters(ports)}) {{\n"
        f"  {name}_workspace workspace {name}_TABLE;\n"
        f"  return {name}_act_in(&workspace, {given});\n}}\n"
    )


def _many(ports: Interface, name: str) -> str:
    """Return the function for a batch."""

    def moved(port: Port) -> str:
        size, pointer = math.prod(port.shape), c_name(port.name)
        return f"{pointer} + (long)r * {size}"

    given = [moved(port) for port in ports.inputs]
    made = [moved(ports.action)]
    made += [f"{c_name(port.name)} ? {moved(port)} : 0" for port in ports.outputs[1:]]
    call = f"{name}_act_in(&workspace, {', '.join([*given, *made])})"
    return (
        f"\nint {name}_act_many(int n, {parameters(ports)}) {{\n"
        f"  {name}_workspace workspace {name}_TABLE;\n"
        f"  int r, found = 0;\n  for (r = 0; r < n; r++)\n    found += {call};\n"
        "  return found;\n}\n"
    )


_HEADER: Final = """/* A policy exported by rayprune: C99, no allocation, no dependency. */
#ifndef {guard}_H
#define {guard}_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {{
#endif

{sizes}
/* What lies between the layers. Nothing in it has to be set, and nothing is kept from step to step:
   one will do for several policies of this type. Nothing else is written to, so that each thread or
   interrupt with a workspace of its own may call these functions. */
typedef struct {{
{buffers}}} {name}_workspace;

/*
 * One step. Observations are raw, as the environment gives them. All outputs but the action may be
 * NULL. A next state may be the state itself; states are zeros when an episode begins.
 *
 * Returns 0, or 1 if an output is NaN: a sensor was, or an infinity met a zero. Actions that are
 * numbers are NaN then too; a choice always is one of the choices, so look at what is returned.
 *
{ports} */
int {name}_act_in({name}_workspace *workspace, {parameters});

/* The same with its workspace on the stack: {bytes} bytes. */
int {name}_act({parameters});

/* n steps of n episodes, one behind the other; every array holds n items. Returns how many of the
   steps gave a NaN. On the stack, too. */
int {name}_act_many(int n, {parameters});

#ifdef __cplusplus
}}
#endif
#endif
"""


def _header(program: Program, ports: Interface, name: str) -> str:
    guard = name.upper()
    every = [*ports.inputs, *ports.outputs]
    sizes = "".join(
        f"#define {guard}_{c_name(port.name).upper()}_SIZE {math.prod(port.shape)}\n"
        for port in every
    )
    lines = "".join(f" *   {c_name(port.name)}: {_told(port, ports)}\n" for port in every)
    # An empty struct is none in C.
    slots = slots_of(program)[0] or [Slot("none", "char", 1, 0)]
    return _HEADER.format(
        guard=guard,
        name=name,
        sizes=sizes,
        buffers="".join(f"  {slot.ctype} {slot.name}[{slot.size}];\n" for slot in slots),
        ports=lines,
        parameters=parameters(ports),
        bytes=workspace_bytes(program),
    )


def _told(port: Port, ports: Interface) -> str:
    shape = "x".join(map(str, port.shape)) or "one number"
    noise = f", standard {ports.noise_kind}" if port == ports.noise else ""
    return f"{shape}{noise}"
