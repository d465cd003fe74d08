"""The self-test of a generated C file: recorded observations, and what has to come of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from rayprune.deploy.c.program import C_TYPES, c_name
from rayprune.deploy.checking import TOLERANCE, action_scale
from rayprune.deploy.interface import Array, Interface, Port

EXAMPLES: Final = 32
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
    const double least = scale ? scale[i] : 1;
    double off = (double)got[i] - (double)want[i];
    off = (off < 0 ? -off : off) / (size > least ? size : least);
    if (off > worst_) worst_ = off;
    if (!(off <= TOLERANCE)) right = 0;
  }
  return right;
}
"""


def self_test(
    ports: Interface, name: str, inputs: Sequence[Array], outputs: Sequence[Array]
) -> str:
    """Return a ``main`` that stands under ``#ifdef POLICY_SELFTEST``; 0 says that all is well.

    Args:
        ports: of the policy.
        name: what the functions' names begin with.
        inputs: recorded, in the interface's order.
        outputs: expected of them.
    """
    every = [*zip(ports.inputs, inputs, strict=True), *zip(ports.outputs, outputs, strict=True)]
    each = sum(math.prod(port.shape) for port, _ in every)
    count = max(1, min(EXAMPLES, len(inputs[0]), _MOST_NUMBERS // each))
    arrays = "".join(_array(port, values[:count]) for port, values in every)
    got = "".join(
        f"  static {C_TYPES[p.dtype]} got_{c_name(p.name)}[{max(1, math.prod(p.shape))}];\n"
        for p in ports.outputs
    )
    given = [_at(f"test_{c_name(port.name)}", port) for port in ports.inputs]
    made = [f"got_{c_name(port.name)}" for port in ports.outputs]
    scale = ""
    if ports.action.dtype == "float32":
        values = ",".join(f"{value:.9g}" for value in action_scale(outputs[0]).reshape(-1))
        scale = f"static const float scale_[] = {{{values}}};\n"
    checks = "".join(f"    {_check(port, port == ports.action)}\n" for port in ports.outputs)
    return (
        f"{_HELPERS.replace('TOLERANCE', repr(TOLERANCE))}{arrays}{scale}int main(void) {{\n{got}"
        f"  int r, wrong = 0;\n  for (r = 0; r < {count}; r++) {{\n    int right = 1;\n"
        f"    {name}_act({', '.join([*given, *made])});\n{checks}    wrong += !right;\n  }}\n"
        f'  printf("{count} observations, %d wrong, largest difference %g\\n", wrong, worst_);\n'
        "  return wrong != 0;\n}\n#endif\n"
    )


def _array(port: Port, values: Array) -> str:
    flat = values.reshape(-1)
    if port.dtype == "float32":
        text = ",".join(f"{value:.9g}" for value in np.nan_to_num(flat).tolist())
    else:
        text = ",".join(str(int(value)) for value in flat)
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
