"""Operators that reduce an axis, in C."""

from __future__ import annotations

from rayprune.deploy.formats.c.elementwise import literal
from rayprune.deploy.formats.c.program import Program, Value


def add_argmax(program: Program, x: Value) -> Value:
    """Add the place of the largest of each row, shape without the axis.

    Of equals it is the first; a NaN is larger than any number, as in torch.
    """
    size, rows = x.shape[-1], x.size // x.shape[-1]
    result, source = program.buffer(x.shape[:-1], "int32_t"), program.pointer(x)
    for row in range(rows):
        given = f"({source} + {row * size})"
        program.add(
            f"for (best = 0, i = 1; i < {size}; i++)",
            f"  if ({given}[best] == {given}[best] && !({given}[i] <= {given}[best])) best = i;",
            f"{result.pointer}[{row}] = best;",
        )
    return result


def add_mean(program: Program, x: Value, *, skip_nan: bool) -> Value:
    """Add the mean of each row, its axis kept; NaNs may be left out of it."""
    size, rows = x.shape[-1], x.size // x.shape[-1]
    result, source = program.buffer((*x.shape[:-1], 1)), program.pointer(x)
    for row in range(rows):
        value = f"{source}[{row * size} + i]"
        guard = f"if ({value} == {value}) " if skip_nan else ""
        program.add(
            "sum = 0.0f; best = 0;",
            f"for (i = 0; i < {size}; i++) {guard}{{ sum += {value}; best++; }}",
            f"{result.pointer}[{row}] = sum / (float)best;",
        )
    return result


def add_normalised(
    program: Program, x: Value, size: int, weight: Value | None, bias: Value | None, eps: float
) -> Value:
    """Add a layer norm over the last ``size`` elements of each row."""
    result, source = program.buffer(x.shape), program.pointer(x)
    program.headers.add("math")
    scale = "" if weight is None else f" * {program.pointer(weight)}[i]"
    shift = "" if bias is None else f" + {program.pointer(bias)}[i]"
    for row in range(x.size // size):
        value = f"{source}[{row * size} + i]"
        program.add(
            "mean = 0.0f; sum = 0.0f;",
            f"for (i = 0; i < {size}; i++) mean += {value};",
            f"mean /= {literal(size)};",
            f"for (i = 0; i < {size}; i++) sum += ({value} - mean) * ({value} - mean);",
            f"sum = 1.0f / sqrtf(sum / {literal(size)} + {literal(eps)});",
            f"for (i = 0; i < {size}; i++) "
            f"{result.pointer}[{row * size} + i] = ({value} - mean) * sum{scale}{shift};",
        )
    return result
