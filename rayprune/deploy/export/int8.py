"""int8 on top of an exported ONNX file, where that makes it faster; refused where it doesn't.

Fully connected and recurrent layers are quantised dynamically: the weights are int8, activations
find their range at each call. Convolutions would get slower that way; they are quantised
statically, their activations' ranges taken from recorded observations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from rayprune.deploy.formats.onnx import OnnxArtifact, require
from rayprune.deploy.measure.latency import Timings, speed_up, time_arms
from rayprune.deploy.policy.capture import quiet
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.runs import in_parts
from rayprune.errors import InputError

BATCHES: Final = (1, 32)
"""What is timed; one of them has to gain."""
# Without `reduce_range`, sums of two products overflow on processors that lack VNNI: measured, a
# largest difference of 0.29 where it is 0.01 with it.
_FINE: Final[dict[str, Any]] = {"per_channel": True, "reduce_range": True}
_CALIBRATION: Final = 256
_AT_ONCE: Final = 32
_ROUNDS: Final = 9
_FLOAT, _INT64 = 1, 7
"""As ONNX numbers types."""

Kind = Literal["dynamic", "static"]


def quantise(path: Path, recorded: Sequence[Array], *, rounds: int = _ROUNDS) -> dict[str, Any]:
    """Replace an ONNX file by its int8 form, if that is faster here.

    Args:
        path: proven in float32; overwritten.
        recorded: the file's inputs as they were met: for ranges, for timing, and to compare on.
        rounds: of timing.

    Returns:
        What the certificate says: the kind, the ratios of speed, the differences.

    Raises:
        InputError: it is slower at every batch size timed; gives the figures.
    """
    require(("onnx", "onnxruntime"))
    small = path.with_name(f".int8{path.name}")
    try:
        kind = _write(path, small, recorded)
        _let_nan_through(small)
        before, after = OnnxArtifact(path), OnnxArtifact(small)
        gains = {str(batch): _gain(before, after, recorded, batch, rounds) for batch in BATCHES}
        if all(gain["ratio"] <= 1.0 for gain in gains.values()):
            ratios = ", ".join(f"{gain['ratio']:.2f}x at batch {b}" for b, gain in gains.items())
            raise InputError(
                f"`--int8` is refused: this policy gets slower by it ({ratios} as fast as float32, "
                f"{kind} quantisation). Export it without."
            )
        told: dict[str, Any] = {
            "kind": kind,
            "bytes_before": path.stat().st_size,
            "speed_up": gains,
            "closeness": closeness(
                before.interface, in_parts(before.run, recorded), in_parts(after.run, recorded)
            ),
        }
        small.replace(path)
    finally:
        small.unlink(missing_ok=True)
    return told


def closeness(
    interface: Interface, exact: Sequence[Array], rounded: Sequence[Array]
) -> dict[str, Any]:
    """Return how far int8 outputs are from float32's on the same inputs.

    Returns:
        ``agreement``, the share of equal actions (None for continuous ones); ``max_error`` and
        ``mean_error`` of actions (of discrete ones: of the distribution's inputs), in their units.
    """
    discrete = interface.action.dtype != "float32"
    same = np.equal(exact[0], rounded[0]).reshape(len(exact[0]), -1).all(axis=1)
    place = 1 if discrete else 0
    errors = np.abs(exact[place] - rounded[place])
    return {
        "observations": len(exact[0]),
        "agreement": float(same.mean()) if discrete else None,
        "max_error": float(errors.max()),
        "mean_error": float(errors.mean()),
    }


def _write(path: Path, small: Path, recorded: Sequence[Array]) -> Kind:
    """Write the int8 file; say how it was quantised."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    model = onnx.load(path)
    kinds = {node.op_type for node in model.graph.node}
    if "Conv" not in kinds:
        with quiet():
            quantize_dynamic(model, str(small), weight_type=QuantType.QInt8, **_FINE)
        return "dynamic"
    names = [given.name for given in model.graph.input]
    with quiet():
        quantize_static(
            model,
            str(small),
            _Calibration(names, recorded),
            quant_format=QuantFormat.QDQ,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            **_FINE,
        )
    return "static"


def _let_nan_through(path: Path) -> None:
    """Add zero times each row's inputs to its outputs: an int8 has no NaN, so that it would end."""
    import onnx
    from onnx import helper

    model = onnx.load(path)
    graph = model.graph
    graph.initializer.append(helper.make_tensor("odd.zero", _FLOAT, [], [0.0]))
    graph.initializer.append(helper.make_tensor("odd.axis", _INT64, [1], [1]))
    rows = []
    for given in (x for x in graph.input if x.type.tensor_type.elem_type == _FLOAT):
        flat, none, row = (f"odd.{given.name}.{part}" for part in ("flat", "none", "row"))
        graph.node.append(helper.make_node("Flatten", [given.name], [flat], axis=1))
        graph.node.append(helper.make_node("Mul", [flat, "odd.zero"], [none]))
        graph.node.append(helper.make_node("ReduceSum", [none, "odd.axis"], [row]))
        rows.append(row)
    if not rows:
        return
    graph.node.append(helper.make_node("Sum", rows, ["odd.rows"]))
    for made in (x for x in graph.output if x.type.tensor_type.elem_type == _FLOAT):
        _add_rows(graph, made)
    onnx.save(model, path)


def _add_rows(graph: Any, made: Any) -> None:
    """Add what `_let_nan_through` has computed, shape ``(batch, 1)``, to an output."""
    from onnx import helper

    name, ends = made.name, f"odd.{made.name}.before"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [ends if held == name else held for held in names]
    rows, more = "odd.rows", len(made.type.tensor_type.shape.dim) - 2
    if more:
        axes = helper.make_tensor(f"odd.{name}.axes", _INT64, [more], [*range(2, 2 + more)])
        graph.initializer.append(axes)
        graph.node.append(helper.make_node("Unsqueeze", [rows, axes.name], [f"odd.{name}.rows"]))
        rows = f"odd.{name}.rows"
    graph.node.append(helper.make_node("Add", [ends, rows], [name]))


class _Calibration:
    """Hands recorded inputs to ONNX Runtime's calibration, some at a time."""

    def __init__(self, names: Sequence[str], recorded: Sequence[Array]) -> None:
        count = min(len(recorded[0]), _CALIBRATION)
        self._parts = iter(
            [
                dict(zip(names, (x[i : i + _AT_ONCE] for x in recorded), strict=True))
                for i in range(0, count, _AT_ONCE)
            ]
        )

    def get_next(self) -> dict[str, Array] | None:
        """Return the next inputs, None after the last."""
        return next(self._parts, None)


def _gain(
    before: OnnxArtifact, after: OnnxArtifact, recorded: Sequence[Array], batch: int, rounds: int
) -> dict[str, Any]:
    rows = np.arange(batch) % len(recorded[0])
    inputs = [np.ascontiguousarray(x[rows]) for x in recorded]
    arms = {"float32": lambda: before.run(inputs), "int8": lambda: after.run(inputs)}
    timings: dict[str, Timings] = time_arms(arms, rounds=rounds, clock=time.process_time)
    return speed_up(timings["float32"], timings["int8"])
