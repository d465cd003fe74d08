"""Maskable layers: torch's own, with a dict of masks beside their parameters.

Their forward is torch's plain dense code over weights that are already exactly zero. The masks are
no buffers: ``state_dict``, polyak averaging and DDP's broadcasts must not see them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, ClassVar

from torch import Tensor, nn

from rayprune.pruning.layers.attention import OUT, PACKED, SEPARATE, NarrowAttention
from rayprune.pruning.layers.parametrised import originals, tensor_name


class MaskedLayer(nn.Module):
    """What all maskable layers share: their masks, which follow the parameters' device."""

    masks: dict[str, Tensor]
    """Parameter name -> bool tensor shaped like it, True = keep; a name is absent until pruned."""

    bypassed: bool = False
    """Whether granularity ``layer`` has made it the identity."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.masks = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MaskedLayer:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, mask in self.masks.items():
            self.masks[name] = mask.to(attrgetter(name)(self).device)
        return self

    def extra_repr(self) -> str:
        """Add to what torch shows the layer's sparsity, once it is pruned, and that it is gone."""
        shown = [super().extra_repr(), "removed: the identity" if self.bypassed else ""]
        if not self.masks:
            return ", ".join(filter(None, shown))
        total = sum(weight.numel() for weight in prunable_parameters(self).values())
        pruned = sum(int((~mask).sum()) for mask in self.masks.values())
        return ", ".join(filter(None, [*shown, f"sparsity={pruned / total:.3f}"]))


class MaskedLinear(MaskedLayer, nn.Linear):
    """A Linear that knows its masks.

    >>> import torch
    >>> layer = MaskedLinear(2, 1)
    >>> layer.masks["weight"] = torch.tensor([[True, False]])
    >>> layer
    MaskedLinear(in_features=2, out_features=1, bias=True, sparsity=0.500)
    """


class MaskedConv1d(MaskedLayer, nn.Conv1d):
    """A Conv1d that knows its masks."""


class MaskedConv2d(MaskedLayer, nn.Conv2d):
    """A Conv2d that knows its masks."""


class MaskedConv3d(MaskedLayer, nn.Conv3d):
    """A Conv3d that knows its masks."""


class MaskedConvTranspose1d(MaskedLayer, nn.ConvTranspose1d):
    """A ConvTranspose1d that knows its masks."""


class MaskedConvTranspose2d(MaskedLayer, nn.ConvTranspose2d):
    """A ConvTranspose2d that knows its masks."""


class MaskedConvTranspose3d(MaskedLayer, nn.ConvTranspose3d):
    """A ConvTranspose3d that knows its masks."""


class MaskedEmbedding(MaskedLayer, nn.Embedding):
    """An Embedding that knows its masks: a unit of it is one dimension of all vectors."""


class MaskedBilinear(MaskedLayer, nn.Bilinear):
    """A Bilinear that knows its masks."""


class MaskedLSTM(MaskedLayer, nn.LSTM):
    """An LSTM that knows its masks; a projection (``proj_size``) is never pruned."""


class MaskedGRU(MaskedLayer, nn.GRU):
    """A GRU that knows its masks."""


class MaskedNarrowAttention(MaskedLayer, NarrowAttention):
    """Attention that compaction has made narrower, and that knows its masks."""

    narrowed: ClassVar[type[NarrowAttention]]


class MaskedMultiheadAttention(MaskedLayer, nn.MultiheadAttention):
    """A MultiheadAttention that knows its masks: of its input projections, and of its output's."""

    narrowed: ClassVar[type[NarrowAttention]] = MaskedNarrowAttention


MaskedNarrowAttention.narrowed = MaskedNarrowAttention


class MaskedRNN(MaskedLayer, nn.RNN):
    """An RNN, of tanh or ReLU, that knows its masks."""


class MaskedLSTMCell(MaskedLayer, nn.LSTMCell):
    """An LSTMCell that knows its masks."""


class MaskedGRUCell(MaskedLayer, nn.GRUCell):
    """A GRUCell that knows its masks."""


class MaskedRNNCell(MaskedLayer, nn.RNNCell):
    """An RNNCell that knows its masks."""


MASKABLE: Mapping[type[nn.Module], type[MaskedLayer]] = {
    nn.Linear: MaskedLinear,
    nn.Conv1d: MaskedConv1d,
    nn.Conv2d: MaskedConv2d,
    nn.Conv3d: MaskedConv3d,
    nn.ConvTranspose1d: MaskedConvTranspose1d,
    nn.ConvTranspose2d: MaskedConvTranspose2d,
    nn.ConvTranspose3d: MaskedConvTranspose3d,
    nn.LSTM: MaskedLSTM,
    nn.GRU: MaskedGRU,
    nn.MultiheadAttention: MaskedMultiheadAttention,
    NarrowAttention: MaskedNarrowAttention,
    nn.RNN: MaskedRNN,
    nn.LSTMCell: MaskedLSTMCell,
    nn.GRUCell: MaskedGRUCell,
    nn.RNNCell: MaskedRNNCell,
    nn.Embedding: MaskedEmbedding,
    nn.Bilinear: MaskedBilinear,
}
"""torch's class -> the maskable one; `rayprune.pruning.layers.subclasses` makes others."""

_NAMES = frozenset({"weight", "weight_ih", "weight_hh", PACKED, *SEPARATE, OUT})


def prunable_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a maskable layer that can be pruned, by their name in the layer.

    The weight of a Linear, Conv, Embedding or Bilinear, the input and hidden weights of a recurrent
    layer or cell, all projections of a MultiheadAttention; never a bias, and nothing of a layer
    without inputs or outputs. Of a weight that torch computes, what a mask can be written into; see
    `rayprune.pruning.layers.parametrised`. An Embedding with sparse gradients has none: those tell
    of some rows only.

    >>> list(prunable_parameters(MaskedGRU(2, 3, bidirectional=True)))[:3]
    ['weight_ih_l0', 'weight_hh_l0', 'weight_ih_l0_reverse']
    """
    if isinstance(layer, nn.Embedding) and layer.sparse:
        return {}
    own = {name: weight for name, weight in own_parameters(layer).items() if _is_weight(name)}
    found = {**own, **dict(originals(layer))}
    return {
        name: weight for name, weight in found.items() if prunable_name(name) and weight.numel()
    }


def own_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Return a maskable layer's parameters; an attention layer's output projection is its own.

    >>> list(own_parameters(nn.MultiheadAttention(2, 1, bias=False)))
    ['in_proj_weight', 'out_proj.weight']
    """
    return dict(layer.named_parameters(recurse=isinstance(layer, nn.MultiheadAttention)))


def prunable_name(name: str) -> bool:
    """Whether a maskable layer's parameter of this name can be pruned: its weights, no biases.

    >>> [prunable_name(name) for name in ("weight", "weight_hh_l0_reverse", "bias", "weight_hr_l0")]
    [True, True, False, False]
    """
    return _is_weight(tensor_name(name))


def _is_weight(tensor: str) -> bool:
    return tensor in _NAMES or tensor.startswith(("weight_ih_l", "weight_hh_l"))
