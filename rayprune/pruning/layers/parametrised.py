"""Layers under `torch.nn.utils.parametrize`: which of their tensors a mask is written into.

The mask is of the weight that the layer computes with. It holds exactly where a parametrisation
maps zeros to zeros one by one: weight and spectral normalisation do, orthogonality does not. Weight
normalisation divides each row by its own length; of a row that goes as a whole the direction stays
as it is, since its length may not be zero, and the magnitude ``g`` is zero instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

KEEPS_ZEROS: Final = "keeps_zeros"
"""Attribute by which a parametrisation says that it maps zeros to zeros, and nothing else to zero.
"""
_PLACE: Final = "parametrizations."


def tensor_name(parameter: str) -> str:
    """Return which tensor of a layer a parameter stands for.

    Args:
        parameter: its name in the layer, or its full one.

    >>> tensor_name("pi.parametrizations.weight.original1"), tensor_name("weight_hh_l0")
    ('pi.weight', 'weight_hh_l0')
    """
    before, _, last = parameter.rpartition(".")
    inside, _, name = before.rpartition(".")
    if not (last.startswith("original") and f".{inside}".endswith(f".{_PLACE[:-1]}")):
        return parameter
    return inside.removesuffix(_PLACE[:-1]) + name


def lists_of(layer: nn.Module) -> dict[str, ParametrizationList]:
    """Return a layer's parametrisations by the tensor that they make; mostly there are none."""
    held = layer._modules.get("parametrizations")
    return dict(cast("nn.ModuleDict", held).items()) if held is not None else {}  # type: ignore[arg-type]


def originals(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of computed tensors that masks can be written into, by name."""
    if isinstance(layer, nn.MultiheadAttention):
        return  # its heads lie in weights of their own names
    for tensor, held in lists_of(layer).items():
        name = _original(held)
        if name is not None and isinstance(parameter := getattr(held, name), nn.Parameter):
            yield f"{_PLACE}{tensor}.{name}", parameter


def computed_parameters(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield all parameters that a layer's computed tensors are made of, by name."""
    for tensor, held in lists_of(layer).items():
        for name, parameter in held.named_parameters(recurse=False):
            yield f"{_PLACE}{tensor}.{name}", parameter


@torch.no_grad()
def effective(layer: nn.Module, parameter: str) -> Tensor:
    """Return the tensor that a layer computes with, as it is in evaluation.

    Args:
        layer: any.
        parameter: the name in it of what the tensor is made of.

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 1))
    >>> torch.equal(effective(layer, "parametrizations.weight.original1"), layer.weight)
    True
    """
    held = lists_of(layer).get(tensor_name(parameter))
    if held is None:
        return layer.get_parameter(parameter)
    # Spectral normalisation goes on with its power iteration at each look in training mode.
    modes = [(part, part.training) for part in held.modules()]
    try:
        made: Tensor = held.eval()()
        return made
    finally:
        for part, training in modes:
            part.training = training


def length_of(layer: nn.Module, parameter: str) -> tuple[str, nn.Parameter, int] | None:
    """Return the magnitudes that go with directions: their name, and the axis of their own.

    Args:
        layer: any.
        parameter: the name in it of directions, if it is weight-normalised.
    """
    held = lists_of(layer).get(tensor_name(parameter))
    if held is None or not isinstance(held[0], _WeightNorm):
        return None
    name = f"{_PLACE}{tensor_name(parameter)}.original0"
    return name, layer.get_parameter(name), held[0].dim


def kept_lengths(mask: Tensor, dim: int) -> Tensor:
    """Return which magnitudes still have a direction, shaped like them.

    >>> kept_lengths(torch.tensor([[True, False], [False, False]]), dim=0).tolist()
    [[True], [False]]
    """
    return torch.norm_except_dim(mask.float(), 2, dim) > 0


def divides_by_all(layer: nn.Module, parameter: str) -> bool:
    """Whether nothing could be computed without any weight: the spectral norm would be zero."""
    held = lists_of(layer).get(tensor_name(parameter))
    return held is not None and any(isinstance(one, _SpectralNorm) for one in held)


def parametrised_class(
    kind: type[nn.Module], base: type[nn.Module], **attributes: object
) -> type[nn.Module]:
    """Return torch's class of one parametrised layer, over another class."""
    own = {
        key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")
    }
    return type(f"Parametrized{base.__name__}", (base,), {**own, **attributes})


def parametrised_base(layer: nn.Module) -> type[nn.Module] | None:
    """Return the class that a layer had before it was parametrised; None if it isn't."""
    return type(layer).__bases__[0] if is_parametrized(layer) else None


def _original(held: ParametrizationList) -> str | None:
    if len(held) == 1 and isinstance(held[0], _WeightNorm):
        return "original1"
    keeps = (isinstance(p, _SpectralNorm) or getattr(p, KEEPS_ZEROS, False) for p in held)
    return "original" if held.is_tensor and all(keeps) else None
