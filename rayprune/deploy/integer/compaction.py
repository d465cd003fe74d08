"""Dead units of a policy in whole numbers: removed exactly, constants and all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx import GraphModule

from rayprune.deploy.integer import arithmetic
from rayprune.deploy.integer.rewriting import held, is_call
from rayprune.deploy.policy.interface import Array


def compact(module: GraphModule) -> list[dict[str, Any]]:
    """Remove units that nobody reads, or that always give the same, in place.

    What a constant unit adds to the sums of those who read it goes into their biases: to the last
    bit the same, as whole numbers are.

    Returns:
        ``[{"layer": name, "units": removed, "of": before}]``.
    """
    joints = list(_joints(module))
    before = {joint.name: len(joint.weight) for joint in joints}
    changed = True
    while changed:
        changed = False
        for joint in joints:
            changed |= joint.fold()
            changed |= joint.remove()
    return [
        {
            "layer": joint.name,
            "units": before[joint.name] - len(joint.weight),
            "of": before[joint.name],
        }
        for joint in joints
        if len(joint.weight) < before[joint.name]
    ]


@dataclass(frozen=True, slots=True)
class _Joint:
    """Units between the layer that makes them and those that read them."""

    module: GraphModule
    made: fx.Node
    chain: list[fx.Node]
    """From sums to numbers, each unit for itself."""
    readers: list[fx.Node]

    @property
    def name(self) -> str:
        """The layer's."""
        return str(self._weight_of(self.made).target).removesuffix(".weight")

    @property
    def weight(self) -> Array:
        """``(units, in)``."""
        return self._array(self._weight_of(self.made))

    def fold(self) -> bool:
        """Give what constant units add to the biases of those who read them."""
        still = ~self.weight.any(axis=1)
        told = [reader for reader in self.readers if self._read(reader)[:, still].any()]
        constants = self._numbers(self._array(self._bias_of(self.made)))
        for reader in told:
            weight, bias = self._read(reader).copy(), self._array(self._bias_of(reader))
            added = weight[:, still].astype(np.int64) @ constants[still].astype(np.int64)
            weight[:, still] = 0
            self._put(self._bias_of(reader), (bias + added).astype(np.int32))
            self._put(self._weight_of(reader), weight)
        return bool(told)

    def remove(self) -> bool:
        """Remove the units that nobody reads; one stays."""
        read = np.logical_or.reduce([self._read(reader).any(axis=0) for reader in self.readers])
        if read.all() or len(read) == 1:
            return False
        read[0] |= not read.any()
        for node in [self._weight_of(self.made), self._bias_of(self.made), *self._multipliers()]:
            self._put(node, self._array(node)[read])
        for reader in self.readers:
            self._put(self._weight_of(reader), self._read(reader)[:, read])
        return True

    def _numbers(self, total: Array) -> Array:
        numbers = total[None]
        for node in self.chain:
            arguments: Any = node.args[1:]
            array = self._array(arguments[0])
            if is_call(node, "rescale"):
                numbers = arithmetic.rescaled(numbers, array, *arguments[1:])
            else:
                numbers = arithmetic.tanh(numbers, array)
        found: Array = numbers[0]
        return found

    def _multipliers(self) -> Iterator[fx.Node]:
        for node in self.chain:
            by: Any = node.args[1]
            if is_call(node, "rescale") and len(self._array(by)) > 1:
                yield by

    def _read(self, reader: fx.Node) -> Array:
        return self._array(self._weight_of(reader))

    def _array(self, node: fx.Node) -> Array:
        found: Array = held(self.module, node).detach().numpy()
        return found

    def _put(self, node: fx.Node, array: Array) -> None:
        owner, _, name = str(node.target).rpartition(".")
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        setattr(self.module.get_submodule(owner), name, tensor)

    @staticmethod
    def _weight_of(node: fx.Node) -> fx.Node:
        found: Any = node.args[1]
        return found  # type: ignore[no-any-return]

    @staticmethod
    def _bias_of(node: fx.Node) -> fx.Node:
        found: Any = node.args[2]
        return found  # type: ignore[no-any-return]


def _joints(module: GraphModule) -> Iterator[_Joint]:
    layers = [node for node in module.graph.nodes if is_call(node, "integer_linear")]
    calls = Counter(_weight_name(node) for node in layers)
    for node in layers:
        chain, last = [], node
        while len(last.users) == 1 and _goes_on(following := next(iter(last.users))):
            chain.append(following)
            last = following
        readers = list(last.users)
        if not chain or not all(is_call(user, "integer_linear") for user in readers):
            continue
        # What a layer is called with elsewhere may need all of its units.
        if all(calls[_weight_name(each)] == 1 for each in (node, *readers)):
            yield _Joint(module, node, chain, readers)


def _weight_name(layer: fx.Node) -> str:
    weight: Any = layer.args[1]
    return str(weight.target)


def _goes_on(node: fx.Node) -> bool:
    return is_call(node, "rescale") or is_call(node, "integer_tanh")
