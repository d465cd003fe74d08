"""The self-test of a generated C file: recorded observations, and what has to come of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from rayprune.deploy.formats.base import EXAMPLES, Examples
from rayprune.deploy.formats.c.elementwise import literal
from rayprune.deploy.formats.c.program import C_TYPES, c_name
from rayprune.deploy.policy.agreement import TOLERANCE, action_scale
from rayprune.deploy.policy.interface import Array, Interface, Port
from rayprune.deploy.policy.odd_inputs import Odd

_MOST_NUMBERS: Final = 2**16
"""Of all examples together: they stand in the file as text."""


_HELPERS: Final = """
#ifdef POLICY_SELFTEST
#include <stdio.h>
static double worst_;
/* Absolute up to a magnitude of 1 or what `scale` says, relative above; NaN is never near. */
static int near_(const float *want, const float *got, int n, const float *scale) {
  int i, right = 1;
  for (i = 0; i < n; i++) {
    const double size = want[i] < 0 ? -(double)want[i] : (double)want[i];
    const double least = scale ? (double)scale[i] : 1;
    double off = (double)got[i] - (double)want[i];
    off = (off < 0 ? -off : off) / (size > least ? size : least);
    if (off > worst_) worst_ = off;
    if (!(off <= TOLERANCE)) right = 0;
  }
  return right;
}
"""
_NOTHING_ELSE: Final = """
/* Whether all of n numbers are NaN. */
static int nothing_else_(const float *x, int n) {
  int i, all = 1;
  for (i = 0; i < n; i++) all &= x[i] != x[i];
  return all;
}
"""


def self_test(ports: Interface, name: str, examples: Examples) -> str:
    """Return a ``main`` that stands under ``#ifdef POLICY_SELFTEST``; 0 says that all is well.

    Args:
        ports: of the policy.
        name: what the functions' names begin with.
        examples: what is to come of what.
    """
    every = [
        *zip(ports.inputs, examples.inputs, strict=True),
        *zip(ports.outputs, examples.outputs, strict=True),
    ]
    each = sum(math.prod(port.shape) for port, _ in every)
    count = max(1, min(EXAMPLES, len(examples.inputs[0]), _MOST_NUMBERS // each))
    arrays = "".join(_array(port, values[:count]) for port, values in every)
    got = "".join(
        f"  static {C_TYPES[p.dtype]} got_{c_name(p.name)}[{max(1, math.prod(p.shape))}];\n"
        for p in ports.outputs
    )
    given = [_at(f"test_{c_name(port.name)}", port) for port in ports.inputs]
    made = [f"got_{c_name(port.name)}" for port in ports.outputs]
    scale = ""
    if ports.action.dtype == "float32":
        values = ",".join(map(literal, action_scale(examples.outputs[0]).reshape(-1)))
        scale = f"static const float scale_[] = {{{values}}};\n"
    checks = "".join(f"    {_check(port, port == ports.action)}\n" for port in ports.outputs)
    odd = _Odd(ports, name, examples.odd)
    return (
        f"{_HELPERS.replace('TOLERANCE', repr(TOLERANCE))}{odd.helpers}{arrays}{scale}{odd.arrays}"
        f"int main(void) {{\n{got}{odd.declared}"
        f"  int r, wrong = 0, hidden = 0;\n  for (r = 0; r < {count}; r++) {{\n    int right = 1;\n"
        f"    {name}_act({', '.join([*given, *made])});\n{checks}    wrong += !right;\n  }}\n"
        f"{odd.statements}"
        f'  printf("{count} observations, %d wrong, largest difference %g; {len(examples.odd)} '
        'with NaN or infinity, %d hidden\\n", wrong, worst_, hidden);\n'
        "  return wrong != 0 || hidden != 0;\n}\n#endif\n"
    )


class _Odd:
    """The part of a self-test that feeds NaN and infinities."""

    def __init__(self, ports: Interface, name: str, odd: Sequence[Odd]) -> None:
        self._ports, self._name, self._odd = ports, name, odd
        self._fed = [
            (place, port)
            for place, port in enumerate(ports.inputs)
            if any(one.place == place for one in odd)
        ]

    @property
    def helpers(self) -> str:
        return _NOTHING_ELSE if self._fed else ""

    @property
    def arrays(self) -> str:
        """Which element is to be replaced by which value, for each input."""
        text = ""
        for place, port in self._fed:
            some = [one for one in self._odd if one.place == place]
            elements = ",".join(str(one.element) for one in some)
            values = ",".join(
                "2" if np.isnan(one.value) else str(int(one.value < 0)) for one in some
            )
            name = c_name(port.name)
            text += f"static const uint32_t odd_at_{name}[] = {{{elements}}};\n"
            text += f"static const uint8_t odd_{name}[] = {{{values}}};\n"
            text += f"static float fed_{name}[{math.prod(port.shape)}];\n"
        return text

    @property
    def declared(self) -> str:
        # Computed, so that no compiler warns of it.
        values = "{1.0f / zero, -1.0f / zero, zero / zero}"
        text = f"  volatile const float zero = 0.0f;\n  const float odd[3] = {values};\n"
        return text if self._fed else ""

    @property
    def statements(self) -> str:
        made = [f"got_{c_name(port.name)}" for port in self._ports.outputs]
        floats = [port for port in self._ports.outputs if port.dtype == "float32"]
        nothing_else = " && ".join(
            f"nothing_else_(got_{c_name(port.name)}, {math.prod(port.shape)})" for port in floats
        )
        text = ""
        for place, fed in self._fed:
            name, size = c_name(fed.name), math.prod(fed.shape)
            count = sum(one.place == place for one in self._odd)
            given = [f"test_{c_name(port.name)}" for port in self._ports.inputs]
            given[place] = f"fed_{name}"
            text += (
                f"  for (r = 0; r < {count}; r++) {{\n    int k;\n"
                f"    for (k = 0; k < {size}; k++) fed_{name}[k] = test_{name}[k];\n"
                f"    fed_{name}[odd_at_{name}[r]] = odd[odd_{name}[r]];\n"
                f"    hidden += !({self._name}_act({', '.join([*given, *made])}) == 1\n"
                f"      && {nothing_else});\n  }}\n"
            )
        return text


def _array(port: Port, values: Array) -> str:
    flat = values.reshape(-1)
    floats = port.dtype == "float32"
    text = ",".join(
        literal(value) if floats else str(int(value))
        for value in (np.nan_to_num(flat) if floats else flat).tolist()
    )
    ctype, name = C_TYPES[port.dtype], c_name(port.name)
    return f"static const {ctype} test_{name}[] = {{{text}}};\n"


def _at(array: str, port: Port) -> str:
    return f"{array} + r * {math.prod(port.shape)}"


def _check(port: Port, is_action: bool) -> str:
    name, size = c_name(port.name), math.prod(port.shape)
    if port.dtype == "float32":
        scale = "scale_" if is_action else "0"
        return f"right &= near_({_at(f'test_{name}', port)}, got_{name}, {size}, {scale});"
    wanted = f"test_{name}[r * {size} + k]"
    return f"{{ int k; for (k = 0; k < {size}; k++) right &= {wanted} == got_{name}[k]; }}"
