"""Maskable classes of users' own layers, made on demand of subclasses of torch's."""

from __future__ import annotations

from typing import Any, Final, cast

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from rayprune.pruning.layers.masked import MASKABLE, MaskedLayer
from rayprune.pruning.layers.parametrised import parametrised_base, parametrised_class

_NEVER: Final = (MaskedLayer, LazyModuleMixin, NonDynamicallyQuantizableLinear)
"""What has masks, what has no weights yet, and the part of an attention layer that never runs."""

ROUNDS: Final = "rounds"
"""Attribute of classes that compute what torch's do, of rounded weights and inputs."""

_MADE: dict[type[nn.Module], type[MaskedLayer]] = {}


def masked_class(kind: type[nn.Module]) -> type[MaskedLayer] | None:
    """Return the maskable class of a class of layers; None where there is none.

    Of a subclass of torch's class it is made on demand. The subclass may have a forward of its own:
    masks say which weights are zero, whatever is done with them.

    >>> class Wide(nn.Linear):
    ...     pass
    >>> masked_class(Wide).__name__, masked_class(nn.LayerNorm)
    ('MaskedWide', None)
    """
    if kind in MASKABLE:
        return MASKABLE[kind]
    if issubclass(kind, _NEVER):
        return None
    base = next((base for base in kind.__mro__ if base in MASKABLE), None)
    if base is None or base is nn.MultiheadAttention:
        return None  # compaction gives attention another forward
    if kind not in _MADE:
        body = {"__doc__": f"A {kind.__name__} that knows its masks.", "__reduce_ex__": _reduced}
        _MADE[kind] = type(f"Masked{kind.__name__}", (MASKABLE[base], kind), body)
    return _MADE[kind]


def masked_class_of(layer: nn.Module) -> type[MaskedLayer] | None:
    """Return the maskable class of a layer, parametrised or not; see `masked_class`."""
    base = parametrised_base(layer)
    if base is None:
        return masked_class(type(layer))
    masked, plain = masked_class(base), type(layer)
    if masked is None:
        return None
    return cast("type[MaskedLayer]", parametrised_class(plain, masked, plain=plain))


def plain_class(layer: MaskedLayer) -> type[nn.Module] | None:
    """Return the class that a layer had before it was maskable; None if it always was."""
    kind = type(layer)
    if "plain" in vars(kind):
        plain: type[nn.Module] = vars(kind)["plain"]
        return plain
    made = {**MASKABLE, **_MADE}
    return next((plain for plain, masked in made.items() if masked is kind), None)


def has_own_forward(layer: nn.Module) -> bool:
    """Whether a subclass of torch's class computes what torch's doesn't, as far as one can see.

    >>> class Scaled(nn.Linear):
    ...     def forward(self, x):
    ...         return 2 * super().forward(x)
    >>> has_own_forward(Scaled(1, 1)), has_own_forward(nn.Linear(1, 1))
    (True, False)
    """
    kind = type(layer)
    if getattr(kind, ROUNDS, False):
        return False
    base = next((base for base in kind.__mro__ if base in MASKABLE), kind)
    return any(
        getattr(kind, name, None) is not getattr(base, name, None)
        for name in ("forward", "_conv_forward")
    )


def _reduced(layer: MaskedLayer, protocol: Any) -> tuple[Any, ...]:
    """Pickle by the plain class, which has an address."""
    made: Any = object.__reduce_ex__(layer, protocol)
    return _rebuilt, (plain_class(layer),), *made[2:]


def _rebuilt(kind: type[nn.Module]) -> MaskedLayer:
    masked = masked_class(kind)
    assert masked is not None
    return masked.__new__(masked)
