"""Quantising a trained policy without training it: ranges from what its layers read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.deploy.policy.interface import Array
from rayprune.errors import InputError
from rayprune.pruning.layers.attach import is_maskable
from rayprune.pruning.layers.hooks import hooked
from rayprune.pruning.quantisation.config import QuantisationConfig
from rayprune.pruning.quantisation.layers import FROZEN, QuantisedLayer
from rayprune.pruning.quantisation.quantiser import Quantiser, quantised_layers

_AT_ONCE = 1024
_ANY = torch.tensor([0.0, 1.0])
"""A range of what never was anything but zero: of a layer behind one that is pruned altogether."""
CALIBRATED = QuantisationConfig(start=0, freeze=0)
"""Eight bits, sixteen of observations."""


@torch.no_grad()
def calibrate(
    policy: nn.Module, recorded: Sequence[Array], config: QuantisationConfig = CALIBRATED
) -> list[str]:
    """Quantise the layers that a policy acts with, if none of them rounds yet, in place.

    Args:
        policy: takes the recorded arrays as tensors.
        recorded: its inputs as they were met; a layer's range is what it reads of them.
        config: bits; its times and its `skip` mean nothing here.

    Returns:
        The names of the layers that were quantised here; empty where training has done it.

    Raises:
        InputError: a layer that acts can't be quantised, or was left out while others were not;
            or what it reads has no range.
    """
    ranges = _ranges(policy, recorded)
    trained = quantised_layers(policy)
    rounding = trained.keys() & ranges.keys()
    if rounding:
        left = sorted(ranges.keys() - rounding)
        if left:
            raise InputError(
                f"{left[0]!r} was left in floating point while the policy was trained, and a file "
                "of whole numbers can't hold it. Train without it in `quantise.skip`."
            )
        for name in rounding:
            if trained[name].grid is None and not ranges[name].any():
                trained[name].activation_range.copy_(_ANY)
        return []
    _refuse_others(policy, ranges)
    _refuse_endless(ranges)
    held = dataclasses.replace(config, start=0, freeze=0, skip=())
    quantiser = Quantiser(policy, held, layers=ranges.__contains__)
    for name, layer in quantiser.layers.items():
        layer.activation_range.copy_(ranges[name] if ranges[name].any() else _ANY)
    quantiser.update(0)
    assert all(layer.precision.phase == FROZEN for layer in quantiser.layers.values())
    return list(quantiser.layers)


def _ranges(policy: nn.Module, recorded: Sequence[Array]) -> dict[str, Tensor]:
    """Return the range of what each layer reads, of those that are called."""
    layers = {x: name for name, x in policy.named_modules() if is_maskable(x)}
    found: dict[str, Tensor] = {}

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        least, most = (bound.float() for bound in torch.aminmax(inputs[0]))
        before = found.get(layers[layer])
        if before is not None:
            least, most = torch.minimum(least, before[0]), torch.maximum(most, before[1])
        found[layers[layer]] = torch.stack([least.clamp(max=0), most.clamp(min=0)])

    with hooked(layers, note):
        for at in range(0, len(recorded[0]), _AT_ONCE):
            policy(*(torch.from_numpy(x[at : at + _AT_ONCE]) for x in recorded))
    return found


def _refuse_others(policy: nn.Module, called: dict[str, Tensor]) -> None:
    kinds = {name: policy.get_submodule(name) for name in called}
    others = sorted(
        name
        for name, layer in kinds.items()
        if type(layer) is not nn.Linear and not isinstance(layer, QuantisedLayer)
    )
    if others:
        kind = type(kinds[others[0]]).__name__
        raise InputError(
            f"A file of whole numbers can't hold {others[0]!r}, a {kind}: only Linear layers, with "
            "ReLU or tanh between them. Take `--format c` without `--int8`, or `--format onnx`."
        )


def _refuse_endless(ranges: dict[str, Tensor]) -> None:
    for name, bounds in ranges.items():
        if not bounds.isfinite().all():
            raise InputError(
                f"{name!r} reads NaN or infinity on the recorded observations, of which no range "
                "of whole numbers can be made. Mend what the environment gives, or take "
                "`--format c` without `--int8`."
            )
