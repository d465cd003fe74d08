"""The kinds of files that a policy is exported to, by the name that the command line says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from rayprune.deploy.formats.c.lowering import lower
from rayprune.deploy.formats.c.selftest import Examples
from rayprune.deploy.formats.c.writing import write_c
from rayprune.deploy.formats.onnx import write_onnx
from rayprune.deploy.formats.pt2 import write_torch
from rayprune.deploy.formats.rewriting.channels_last import read_as_it_lies
from rayprune.deploy.formats.rewriting.graphs import rewritten
from rayprune.deploy.formats.semi_structured import report
from rayprune.deploy.policy.capture import capture
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.policy import DeployablePolicy

LANES: Final = (4, 8, 16)
"""Floats in a vector register: 4 of SSE and NEON, 8 of AVX2, 16 of AVX-512."""
_LANES_IN_C: Final = 8


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be written."""

    policy: DeployablePolicy
    """A plain copy, its dead units gone."""
    metadata: Metadata
    name: str
    """What a C file's names begin with."""
    examples: Examples
    lanes: int | None
    """Floats in a vector register of the machine that the file is for; None for the default."""
    rounds: bool
    """Whether its weights will be int8."""


@dataclass(frozen=True, slots=True)
class Written:
    """What stands beside the file, and what the certificate says of it."""

    captured: ExportedProgram
    """The graph that was written."""
    certificate: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    """Texts by the end of their files' names."""
    testable: bool = True
    """Whether it can be run here."""


def _onnx(order: Order, path: Path) -> Written:
    captured = capture(order.policy)
    # Convolutions of int8 take longer in any other form.
    lanes = None if order.rounds else order.lanes or _lanes_here()
    write_onnx(captured, path, order.metadata, lanes)
    return Written(captured, {"lanes": lanes})


def _lanes_here() -> int:
    return {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)


def _torch(order: Order, path: Path) -> Written:
    captured = capture(order.policy)
    write_torch(captured, path, order.metadata)
    inputs = [torch.from_numpy(given) for given in order.examples.inputs]
    told = report(order.policy, inputs)
    return Written(captured, {"semi_structured": told} if told["packed"] else {})


def check_c(policy: DeployablePolicy) -> None:
    """Raise InputError unless a policy, a plain copy, can be written in C."""
    graph = rewritten(capture(policy, batch=1), read_as_it_lies)
    lower(graph, policy.interface, _LANES_IN_C)


def _c(order: Order, path: Path) -> Written:
    captured = capture(order.policy, batch=1)
    graph = rewritten(captured, read_as_it_lies)
    lanes = order.lanes or _LANES_IN_C
    source, told = write_c(graph, path, order.metadata, order.name, order.examples, lanes)
    tested = told["self_test"]["passed"] is not None
    return Written(captured, told, {".h": source.header}, testable=tested)


WRITERS: Final[Mapping[str, Callable[[Order, Path], Written]]] = {
    "onnx": _onnx,
    "torch": _torch,
    "c": _c,
}
"""Format -> what writes a file of it."""
