"""What each operator of torch does to the units that its arguments carry.

Elementwise ones and those that move numbers keep them, a product of matrices leaves those that are
the same along what is summed over. An operator that isn't known here counts as keeping units apart:
that errs towards leaving units alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from rayprune.pruning.tracing.unit_numbers import NONE, joined, or_none, same, spread

# fmt: off
_MOVES: Final = frozenset({
    "cat", "stack", "index", "index_select", "gather", "repeat", "roll", "flip", "take_along_dim",
    "repeat_interleave", "constant_pad_nd", "tril", "triu", "masked_select",
})
"""Operators that are run on the tags of their first argument (views need nothing at all)."""
_SUMS: Final = frozenset({
    "sum", "nansum", "mean", "prod", "var", "std", "var_mean", "std_mean", "norm",
    "linalg_vector_norm", "logsumexp",
})
_PRODUCTS: Final[Mapping[str, tuple[int, int]]] = {
    "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "vdot": (0, 1),
    "addmm": (1, 2), "baddbmm": (1, 2), "addmv": (1, 2), "_addmm_activation": (1, 2),
}
"""Where the two factors stand; before them, what is added."""
_SOURCES: Final = ("src", "source", "values")
"""What operators that put numbers in the place of others call those."""
_LAYERS: Final = frozenset({
    "_embedding_bag", "mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn",
    "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
})
"""Whole layers in one operator: nothing passes but the units of their own weights."""
_CLEARS: Final = frozenset({
    "zero_", "fill_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_",
})
# fmt: on


class Tags(Protocol):
    """What is known of the tensors that operators are called with."""

    def units(self, tensor: Tensor, layer: str) -> Tensor | None:
        """Return which unit of a layer each number carries; None where no number carries any."""

    def same(self, tensor: Tensor, layer: str, dims: Sequence[int]) -> Tensor | None:
        """Return the one unit that numbers carry along some dimensions, kept with length 1."""

    def readable(self, tensors: Sequence[Tensor], layer: str) -> list[Tensor]:
        """Return those that still carry a layer's units where a weight multiplies them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator."""

    func: Any
    args: Any
    kwargs: Any
    made: list[Tensor]

    @property
    def name(self) -> str:
        """The operator's, without the underscore of its form in place."""
        return str(self.func._overloadpacket.__name__).rstrip("_")

    @property
    def creates(self) -> bool:
        """Whether it reads nothing of its tensors but their shapes."""
        name = str(self.func._overloadpacket.__name__)
        return name.endswith("_like") or name.startswith(("new_", "empty"))

    @property
    def clears(self) -> bool:
        """Whether it writes numbers that come of none."""
        return self.func._overloadpacket.__name__ in _CLEARS

    @property
    def source(self) -> Tensor | None:
        """What is put in the place of other numbers, for an operator that does so."""
        named = [self.argument(name) for name in _SOURCES]
        return next((t for t in named if isinstance(t, Tensor)), None)

    @property
    def given(self) -> list[Tensor]:
        """All tensors among its arguments."""
        return tensors_in((self.args, self.kwargs))

    def argument(self, name: str) -> Any:
        """Return an argument by its name in torch's schema."""
        for place, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                given = self.args[place] if place < len(self.args) else None
                return self.kwargs.get(name, given)
        return None


Rule = Callable[[Tags, Call, str], "list[Tensor | None]"]
"""Tags, a call, a layer -> the layer's units in each tensor that the call made."""


def rule_for(call: Call) -> Rule:
    """Return what tells the units of what a call makes."""
    if call.name in _PRODUCTS:
        return _multiplied
    if call.name in ("convolution", "_convolution"):
        return _convolved
    if call.name == "embedding":
        return _looked_up
    if call.name == "_trilinear":
        return _of_two_inputs
    if call.name in _SUMS:
        return _summed
    if call.name in _MOVES:
        return _moved
    if call.clears:
        return _cleared
    if call.name == "copy":
        return _copied
    if call.source is not None:
        return _written
    return _alternatives if call.name == "_softmax" else _apart


def _apart(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    """Elementwise, normalising and unknown operators: all numbers keep their units."""
    left = tags.readable(call.given, layer) if call.name in _LAYERS else call.given
    given = [tags.units(t, layer) for t in left]
    return [joined([spread(units, tensor.shape) for units in given]) for tensor in call.made]


def _alternatives(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    """A softmax: its numbers are shares of one choice, of which a sum makes an expectation."""
    return [None if u is None else u.clamp(max=0) for u in _apart(tags, call, layer)]


def _cleared(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    return [None] * len(call.made)


def _copied(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    return [spread(tags.units(call.given[1], layer), t.shape) for t in call.made]


def _moved(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    """Run the operator on the tags themselves; what tells the places makes a choice."""
    first = tree_map(
        lambda t: or_none(tags.units(t, layer), t) if isinstance(t, Tensor) else t, call.args[0]
    )
    args, kwargs = tree_map(
        lambda t: t.cpu() if isinstance(t, Tensor) else t, (call.args[1:], call.kwargs)
    )
    if call.name == "constant_pad_nd":
        args = [args[0], NONE]
    (moved,) = tensors_in(call.func(first, *args, **kwargs))
    chosen = [tags.units(t, layer) for t in tensors_in((call.args[1:], call.kwargs))]
    others = [spread(units, moved.shape) for units in chosen]
    return [joined([moved, *others])]


def _written(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    """Numbers put in the place of others: so are their tags."""
    target, source = call.argument("self"), call.source

    def stand_in(value: Any) -> Any:
        if isinstance(value, Tensor) and (value is target or value is source):
            return or_none(tags.units(value, layer), value).clone()
        return value.cpu() if isinstance(value, Tensor) else value

    args, kwargs = tree_map(stand_in, (call.args, call.kwargs))
    return list(tensors_in(call.func(*args, **kwargs)))


def _summed(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    """Sums and means: they keep the one unit that all their terms carry."""
    given, dims = call.given[0], call.argument("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(given.dim()))
    kept = tags.same(given, layer, dims)
    if kept is None:
        return [None] * len(call.made)
    return [kept.reshape(t.shape) if t.numel() == kept.numel() else None for t in call.made]


def _multiplied(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    """Products of matrices and vectors, perhaps added to something."""
    places = _PRODUCTS[call.name]
    one, other = (call.args[place] for place in places)
    left = tags.readable([one, other], layer)
    (tensor,) = call.made
    found = []
    if any(t is one for t in left):
        rows = tags.same(one, layer, [-1])
        found.append(rows if rows is None or other.dim() > 1 else rows.squeeze(-1))
    if any(t is other for t in left):
        found.append(tags.same(other, layer, [-2 if other.dim() > 1 else -1]))
    found += [tags.units(t, layer) for t in call.args[: places[0]]]
    return [joined([spread(units, tensor.shape) for units in found])]


def _convolved(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    weight = call.args[1]
    tags.readable([call.args[0], weight], layer)
    kernel = list(range(2, weight.dim()))
    if call.argument("transposed"):
        filters = tags.same(weight, layer, kernel)
        if filters is not None:
            # Inputs come first, those of each group together.
            grouped = filters.unflatten(0, (call.argument("groups"), -1))
            filters = same(grouped, [1]).flatten(0, 2)
    else:
        filters = tags.same(weight, layer, [1, *kernel])
    if filters is None:
        return [None]
    return [filters.reshape(-1, *[1] * len(kernel)).expand(call.made[0].shape)]


def _looked_up(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    """Rows of a table: each of their numbers is of the dimension that its column is."""
    columns = tags.same(call.args[0], layer, [0])
    return [None if columns is None else columns.squeeze(0).expand(call.made[0].shape)]


def _of_two_inputs(tags: Tags, call: Call, layer: str) -> list[Tensor | None]:
    """A Bilinear: each of its units has a matrix of weights."""
    weight = call.args[1]
    tags.readable([call.args[0], weight, call.args[2]], layer)
    units = tags.same(weight, layer, list(range(1, weight.dim())))
    flat = None if units is None else units.reshape(-1)
    fits = flat is not None and flat.numel() == call.made[0].shape[-1]
    return [flat.expand(call.made[0].shape) if fits and flat is not None else None]


def tensors_in(tree: Any) -> list[Tensor]:
    """Return all tensors of a nesting, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
