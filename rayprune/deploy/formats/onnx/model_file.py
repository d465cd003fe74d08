"""Format ``onnx``, from a captured policy to its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from rayprune.deploy.formats.onnx.packages import SESSION, require
from rayprune.deploy.formats.rewriting.batch_norms import fold_batch_norms
from rayprune.deploy.formats.rewriting.channels_last import read_as_it_lies
from rayprune.deploy.formats.rewriting.direct_actions import compute_action_directly
from rayprune.deploy.formats.rewriting.graphs import rewritten
from rayprune.deploy.formats.rewriting.narrow_filters import fill_registers
from rayprune.deploy.formats.rewriting.single_step import sees_single_steps, written_out
from rayprune.deploy.policy.capture import quiet, recapture
from rayprune.deploy.policy.file_hash import BLANK
from rayprune.deploy.policy.file_hash import KEY as SEAL
from rayprune.deploy.policy.metadata import KEY, Metadata
from rayprune.errors import InputError, first_line

_SESSION_KEY: Final = "ort_config"
"""Where ONNX Runtime looks for a session's options, if ORT_LOAD_CONFIG_FROM_MODEL=1 asks it to."""


def write_onnx(
    captured: ExportedProgram, path: Path, metadata: Metadata, lanes: int | None
) -> None:
    """Write a captured policy as one ``.onnx`` file.

    Args:
        captured: for any batch size.
        path: the file.
        metadata: goes into it.
        lanes: floats in a vector register of the machine that it is for; None leaves convolutions
            as they are.

    Raises:
        InputError: an extra package is missing, or an operator has no counterpart in ONNX.
    """
    require(("onnx", "onnxscript"))
    ports = metadata.interface
    try:
        with quiet():
            program: Any = torch.onnx.export(
                _for_onnx_runtime(captured, lanes),
                dynamo=True,
                verbose=False,
                input_names=[port.name for port in ports.inputs],
                output_names=[port.name for port in ports.outputs],
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(
            f"The policy can't be exported to ONNX: {_operator(error)} Take `--format torch`, or "
            "build the module of operators that torch.onnx knows."
        ) from error
    path.write_bytes(_plain(program.model, metadata).SerializeToString())


def _plain(model: Any, metadata: Metadata) -> Any:
    """Return a model's protobuf without what torch remarks on each node and value.

    That is half of a small file: stack traces with this machine's paths, names of modules, shapes.
    """
    from onnx_ir import serde
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.metadata_props[KEY] = metadata.to_json()
    model.metadata_props[SEAL] = BLANK
    model.metadata_props[_SESSION_KEY] = json.dumps({"session_options": SESSION})
    # One file: weights beside it would be left behind when it is copied.
    proto = serde.serialize_model(model)
    del proto.graph.value_info[:]
    told = {**metadata.about.get("inputs", {}), **metadata.about.get("outputs", {})}
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
        for key, held in told.get(value.name, {}).items():
            value.metadata_props.add(key=f"rayprune.{key}", value=json.dumps(held))
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:  # the only one whose length isn't known
                axis.dim_param = "batch"
    return proto


def _for_onnx_runtime(captured: ExportedProgram, lanes: int | None) -> ExportedProgram:
    captured = rewritten(captured, fold_batch_norms)
    if sees_single_steps(captured):
        captured = recapture(written_out(captured), captured)
    if lanes is not None:
        captured = rewritten(captured, read_as_it_lies, fill_registers(lanes))
    return rewritten(captured, compute_action_directly)


def _operator(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{first_line(cause)}."
