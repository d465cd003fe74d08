"""``einsum`` of two tensors: a product with a parameter of no layer, or one of activations."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from rayprune.deploy.compaction.abstract_values import AbstractValue
from rayprune.deploy.compaction.operators.attention_products import multiply
from rayprune.deploy.compaction.operators.call import Call
from rayprune.deploy.compaction.operators.products import read_product


@dataclass(frozen=True, slots=True)
class _Letters:
    """An equation of two tensors: what each axis of them is to the product.

    >>> _Letters.of("bqhd, bkhd -> bhqk").summed
    'd'
    """

    first: str
    second: str
    output: str

    @classmethod
    def of(cls, equation: str) -> _Letters | None:
        """Return None for one of another number of tensors, or that says less than all."""
        told = equation.replace(" ", "")
        if told.count(",") != 1 or "->" not in told or "." in told:
            return None
        inputs, output = told.split("->")
        first, second = inputs.split(",")
        found = cls(first, second, output)
        whole = all(len(set(side)) == len(side) for side in (found.first, found.second, output))
        # A letter that only one of them has, and that is gone, is summed over before.
        return found if whole and set(output) == set(found.kept) else None

    @property
    def both(self) -> str:
        """What both have and the result too: one product for each."""
        return "".join(x for x in self.first if x in self.second and x in self.output)

    @property
    def summed(self) -> str:
        """What both have and the result has not."""
        return "".join(x for x in self.first if x in self.second and x not in self.output)

    @property
    def kept(self) -> str:
        """All letters but what is summed over: batches, the first's own, the second's own."""
        return self.both + self.own(self.first) + self.own(self.second)

    def own(self, side: str) -> str:
        """Return what the other one has not."""
        other = self.second if side == self.first else self.first
        return "".join(x for x in side if x not in other)


def summed(call: Call) -> list[AbstractValue] | None:
    """``einsum``: a matrix that is a parameter is read as a layer's weight, others as attention."""
    letters, given = _Letters.of(call.given["equation"]), list(call.given["tensors"])
    if letters is None or len(given) != 2:
        return None
    first, second = given
    if first.parameter and second.parameter:
        return None
    if second.parameter:
        return _read(call, first, second, letters.first, letters.second, letters.output)
    if first.parameter:
        return _read(call, second, first, letters.second, letters.first, letters.output)
    return _multiplied(call, first, second, letters)


def _read(
    call: Call, value: AbstractValue, weight: AbstractValue, ours: str, theirs: str, output: str
) -> list[AbstractValue] | None:
    """Read a product with a matrix over one axis, which only adds the matrix's other one."""
    rows = [x for x in theirs if x not in ours]
    over = [x for x in theirs if x in ours]
    if len(theirs) != 2 or len(rows) != 1 or set(output) != {*ours, *rows} - {*over}:
        return None
    (row,), (column,) = rows, over
    return read_product(
        call,
        value,
        weight,
        rows=theirs.index(row),
        axis=ours.index(column),
        result=output.index(row),
    )


def _multiplied(
    call: Call, first: AbstractValue, second: AbstractValue, letters: _Letters
) -> list[AbstractValue] | None:
    """Read a product of activations, as batches of matrices; without a sum it is elementwise."""
    sizes = [
        dict(zip(side, value.channels.shape, strict=True))
        for side, value in ((letters.first, first), (letters.second, second))
    ]
    shared = letters.both + letters.summed
    if not letters.summed or any(sizes[0][x] != sizes[1][x] for x in shared):
        return None
    size = sizes[0] | sizes[1]
    own, others = letters.own(letters.first), letters.own(letters.second)

    def matrices(value: AbstractValue, side: str, wanted: tuple[str, ...]) -> AbstractValue:
        order = [side.index(x) for part in wanted for x in part]
        shape = [_count(size, part) for part in wanted]
        parts = (x.permute(order).reshape(shape) for x in (value.channels, value.known))
        channels, known = parts
        return replace(value, channels=channels, known=known)

    product = multiply(
        call.findings,
        matrices(first, letters.first, (letters.both, own, letters.summed)),
        matrices(second, letters.second, (letters.both, letters.summed, others)),
    )
    if product is None:
        return None
    place = [letters.kept.index(x) for x in letters.output]

    def laid_out(part: Tensor) -> Tensor:
        return part.reshape([size[x] for x in letters.kept]).permute(place).contiguous()

    return [AbstractValue(laid_out(product.channels), laid_out(product.known))]


def _count(size: dict[str, int], letters: str) -> int:
    count = 1
    for letter in letters:
        count *= size[letter]
    return count
