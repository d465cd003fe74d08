"""Recurrent layers with fewer hidden units, whose states come and go as wide as they were at first.

A network that shrinks while it learns meets states that it gave when it was wider: in episodes that
go on, in minibatches, in a replay buffer. So the width of a state stays what it was. A narrow layer
picks its units from it, and gives zeros in the places of those that are gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.masked import MaskedLayer
from rayprune.pruning.layers.subclasses import masked_class, plain_class

if TYPE_CHECKING:
    _Base = nn.RNNBase
else:
    _Base = object

PLACES: Final = "state_places"
"""Name of the buffer that a narrow layer has beside what torch's own has."""


class NarrowRecurrent(_Base):
    """The override that makes an LSTM, GRU or RNN narrow.

    Its buffer `state_places`, of shape ``(hidden_size,)``, says which of a wide state's places are
    its units'. A state as wide as its units are many, or none, it takes as torch's own does.
    """

    state_places: Tensor
    by_literals: bool = False
    """Whether places are written into the forward, for whoever traces it."""

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 - torch calls it so
        """Run over a sequence, as torch's own does; see there for shapes."""
        first = hx[0] if isinstance(hx, (tuple, list)) else hx
        if first is None or first.shape[-1] == self.hidden_size:
            return super().forward(input, hx)
        wide = first.shape[-1]
        output, states = super().forward(input, _each(hx, self._picked))
        return output, _each(states, lambda state: self._spread(state, wide))

    def extra_repr(self) -> str:
        """Add to what torch shows that states may be wider."""
        return f"{super().extra_repr()}, narrow"

    def _picked(self, state: Tensor) -> Tensor:
        if self.by_literals:
            return state[..., self.state_places.tolist()]
        return state.index_select(-1, self.state_places)

    def _spread(self, state: Tensor, wide: int) -> Tensor:
        if not self.by_literals:
            whole = state.new_zeros(*state.shape[:-1], wide)
            return whole.index_copy(-1, self.state_places, state)
        # What reads graphs follows what is moved.
        here = dict(zip(self.state_places.tolist(), range(self.hidden_size), strict=True))
        padded = torch.cat([state, state.new_zeros(*state.shape[:-1], 1)], -1)
        return padded[..., [here.get(place, self.hidden_size) for place in range(wide)]]


class NarrowLSTM(NarrowRecurrent, nn.LSTM):
    """An LSTM that has lost hidden units.

    >>> layer = narrow(nn.LSTM(2, 2), torch.tensor([0, 3]))
    >>> state = torch.ones(1, 1, 4)
    >>> [int(x) for x in (layer(torch.ones(1, 1, 2), (state, state))[1][0] != 0).flatten()]
    [1, 0, 0, 1]
    """


class NarrowGRU(NarrowRecurrent, nn.GRU):
    """A GRU that has lost hidden units."""


class NarrowRNN(NarrowRecurrent, nn.RNN):
    """An RNN that has lost hidden units."""


NARROW: Final[Mapping[type[nn.Module], type[nn.Module]]] = {
    nn.LSTM: NarrowLSTM,
    nn.GRU: NarrowGRU,
    nn.RNN: NarrowRNN,
}
"""torch's class -> the narrow one."""
_OWN: Final = {narrowed: own for own, narrowed in NARROW.items()}


def can_be_narrow(layer: nn.Module) -> TypeGuard[nn.RNNBase]:
    """Whether a recurrent layer is torch's own, or narrow, with masks or without.

    Not so of a subclass of a user's, whose forward may be another, nor of one with a projection,
    whose states are of two widths.
    """
    return _plain(layer) in (*NARROW, *_OWN) and not layer.proj_size


def is_narrow(layer: nn.Module) -> TypeGuard[NarrowRecurrent]:
    """Whether a layer is narrow."""
    return isinstance(layer, NarrowRecurrent)


def narrow(layer: nn.Module, places: Tensor) -> nn.Module:
    """Make a layer narrow, or one that is already so narrower, in place.

    Args:
        layer: as `can_be_narrow` wants it; its weights are shortened elsewhere.
        places: of its units among those that it has now.

    Returns:
        The same layer.
    """
    held = layer.state_places if is_narrow(layer) else None
    told = places if held is None else held[places.to(held.device)]
    kind = _plain(layer)
    _become(layer, NARROW.get(kind, kind))
    layer.register_buffer(PLACES, told.clone())
    return layer


def widen(layer: nn.Module) -> None:
    """Make a narrow layer torch's own again, whose states are as wide as its units are many."""
    _become(layer, _OWN[_plain(layer)])
    del layer._buffers[PLACES]


@contextmanager
def states_by_literals(module: nn.Module) -> Iterator[None]:
    """Let narrow layers of a module say by literals where their units are, for a trace in here."""
    layers = [layer for layer in module.modules() if is_narrow(layer)]
    for layer in layers:
        layer.by_literals = True
    try:
        yield
    finally:
        for layer in layers:
            del layer.by_literals


def fit_recurrent(module: nn.Module, state: Mapping[str, Any]) -> bool:
    """Make recurrent layers narrow where a state dict's are, and torch's own where they are not.

    Returns:
        Whether any changed its class.
    """
    changed = False
    for name, layer in module.named_modules():
        stem = f"{name}." if name else ""
        if f"{stem}{PLACES}" in state and can_be_narrow(layer):
            changed |= not is_narrow(layer)
            like = next(layer.parameters())
            places = torch.zeros(len(state[f"{stem}{PLACES}"]), dtype=torch.long)
            layer._buffers.pop(PLACES, None)
            kind = _plain(layer)
            _become(layer, NARROW.get(kind, kind))
            layer.register_buffer(PLACES, places.to(like.device))
        elif is_narrow(layer) and f"{stem}weight_hh_l0" in state:
            changed = True
            widen(layer)
    return changed


def _plain(layer: nn.Module) -> type[nn.Module]:
    """Return a layer's class without masks."""
    found = plain_class(layer) if isinstance(layer, MaskedLayer) else None
    return type(layer) if found is None else found


def _become(layer: nn.Module, kind: type[nn.Module]) -> None:
    masked = masked_class(kind) if isinstance(layer, MaskedLayer) else None
    layer.__class__ = kind if masked is None else masked


def _each(states: Any, change: Any) -> Any:
    if isinstance(states, (tuple, list)):
        return tuple(change(state) for state in states)
    return change(states)
