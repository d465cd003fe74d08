"""Operators that reduce an axis, in C."""

from __future__ import annotations

from rayprune.deploy.formats.c.elementwise import literal, place
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


def add_mean(program: Program, x: Value, size: int, *, skip_nan: bool, divide: bool) -> Value:
    """Add the mean of each row of ``size`` elements, or its sum; NaNs may be left out of it."""
    rows = x.size // size
    result, source = program.buffer((rows,)), program.pointer(x)
    for row in range(rows):
        value = f"{source}[{row * size} + i]"
        guard = f"if ({value} == {value}) " if skip_nan else ""
        program.add(
            "sum = 0.0f; best = 0;",
            f"for (i = 0; i < {size}; i++) {guard}{{ sum += {value}; best++; }}",
            f"{result.pointer}[{row}] = sum{' / (float)best' if divide else ''};",
        )
    return result


def add_normalised(
    program: Program,
    x: Value,
    size: int,
    eps: float,
    *,
    centre: bool,
    weight: Value | None = None,
    bias: Value | None = None,
) -> Value:
    """Add a norm over each row of ``size`` elements, from which the mean may be taken before.

    Weights and biases are of ``size`` elements.
    """
    result, source = program.buffer(x.shape), program.pointer(x)
    program.headers.add("math")
    scale = "" if weight is None else f" * {program.pointer(weight)}[i]"
    shift = "" if bias is None else f" + {program.pointer(bias)}[i]"
    for row in range(x.size // size):
        value = f"{source}[{row * size} + i]"
        if centre:
            program.add(
                "mean = 0.0f; sum = 0.0f;",
                f"for (i = 0; i < {size}; i++) mean += {value};",
                f"mean /= {literal(size)};",
            )
            value = f"({value} - mean)"
        else:
            program.add("sum = 0.0f;")
        program.add(
            f"for (i = 0; i < {size}; i++) sum += {value} * {value};",
            f"sum = 1.0f / sqrtf(sum / {literal(size)} + {literal(eps)});",
            f"for (i = 0; i < {size}; i++) "
            f"{result.pointer}[{row * size} + i] = {value} * sum{scale}{shift};",
        )
    return result


def add_affine(program: Program, x: Value, weight: Value | None, bias: Value | None) -> Value:
    """Add a product and a sum, in place: behind a norm nothing else reads its result.

    Args:
        program: what is added to.
        x: a norm's result.
        weight: of the shape of some of its axes, and 1 for those behind.
        bias: likewise.
    """
    parts = [x.pointer + "[i]"]
    for sign, other in (("*", weight), ("+", bias)):
        if other is not None:
            parts.append(f"{sign} {program.pointer(other)}{place(other, x.shape)}")
    if len(parts) > 1:
        program.loop(x.size, f"{x.pointer}[i] = {' '.join(parts)};")
    return x
