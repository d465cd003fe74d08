"""`integer_policy`: a policy that computes with whole numbers, made of any other."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import GraphModule

from rayprune.deploy.integer.calibration import calibrate
from rayprune.deploy.integer.compaction import compact
from rayprune.deploy.integer.layers import IntegerLinear
from rayprune.deploy.integer.rewriting import held, join
from rayprune.deploy.policy.capture import capture, quiet
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import InputError
from rayprune.pruning.layers.attach import unmask
from rayprune.pruning.quantisation.layers import QuantisedLayer, QuantisedLinear
from rayprune.pruning.quantisation.quantiser import fix


class IntegerPolicy(DeployablePolicy):
    """A policy whose layers add and multiply whole numbers; floats come in and go out.

    Args:
        graph: maps the interface's inputs to its outputs.
        interface: the ports.
    """

    def __init__(self, graph: nn.Module, interface: Interface) -> None:
        nn.Module.__init__(self)
        self.network, self.interface = (
            graph,
            interface,
        )  # `graph` is what torch.export calls its own

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map the interface's inputs to its outputs."""
        return tuple(self.network(*inputs))


@dataclass(frozen=True, slots=True)
class Quantised:
    """A policy in whole numbers, and where it comes from."""

    policy: IntegerPolicy
    rounded: DeployablePolicy
    """The same in floats: weights and what layers read lie on grids."""
    layers: list[dict[str, Any]]
    """Of each layer its name, and the bits of its weights and of what it reads."""
    calibrated: bool
    """Whether ranges come of recorded inputs, and not of training."""
    removed: list[dict[str, Any]] = field(default_factory=list)
    """As `rayprune.deploy.integer.compaction.compact` tells it."""


def integer_policy(
    policy: DeployablePolicy, recorded: Sequence[Array], *, compacted: bool = True
) -> Quantised:
    """Make a policy in whole numbers.

    One that was trained quantised keeps its bits and ranges; of any other, the ranges are those of
    what its layers read of recorded inputs, and it has 8 bits.

    Args:
        policy: left as it is; not a `plain_copy`, which rounds nothing that is read.
        recorded: its inputs as they were met.
        compacted: remove dead units.

    Raises:
        InputError: a layer or an operator can't be had in whole numbers; names it.
    """
    rounded = copy.deepcopy(policy).cpu().eval().requires_grad_(False)
    unmask(rounded)
    if rounded.interface.states:
        raise InputError(
            "A file of whole numbers can't hold a recurrent policy: only Linear layers, with ReLU "
            "or tanh between them. Take `--format c` without `--int8`, or `--format onnx`."
        )
    calibrated = bool(calibrate(rounded, recorded))
    fix(rounded)
    graph, layers = _captured(rounded)
    join(graph)
    removed = compact(graph) if compacted else []
    made = IntegerPolicy(_flat(graph), rounded.interface).requires_grad_(False)
    return Quantised(made.eval(), rounded, layers, calibrated, removed)


def _captured(rounded: DeployablePolicy) -> tuple[GraphModule, list[dict[str, Any]]]:
    whole, layers = copy.deepcopy(rounded), []
    for name, layer in list(whole.named_modules()):
        if isinstance(layer, QuantisedLinear):
            made = IntegerLinear(layer, name)
            whole.set_submodule(name, made)
            reads = (made.high - made.low).bit_length()
            layers.append({"name": name, "weights": made.bits, "reads": reads})
        elif isinstance(layer, QuantisedLayer):
            raise InputError(
                f"A file of whole numbers can't hold {name!r}, a {type(layer).__name__}: only "
                "Linear layers, with ReLU or tanh between them. Take `--format c` without `--int8`."
            )
    with quiet(), torch.no_grad():
        graph: Any = capture(whole).module(check_guards=False)
    return graph, layers


def _flat(graph: GraphModule) -> GraphModule:
    """Return a graph whose tensors are its own, and that can be copied, evaluated and captured."""
    root, names = nn.Module(), dict[str, str]()
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            place = str(node.target)
            if place not in names:
                name = place.replace(".", "_")
                while name in names.values():  # `pi.0` and `pi_0` are two layers
                    name += "_"
                names[place] = name
                root.register_buffer(name, held(graph, node))
            node.target = names[place]
    # Without what torch.export knows of nested arguments, which warns when it is copied.
    graph.graph.set_codegen(fx.graph.CodeGen())
    return GraphModule(root, graph.graph)
