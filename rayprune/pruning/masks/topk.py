"""Importance scores to masks, exact top-k: the only place that rounds a sparsity and breaks ties.

The cut is found in a stream over the scores that copies few of them, where ``torch.kthvalue``
works on a whole copy with its indices. Of many scores, a sample first tells between which two
values the cut must lie; one pass counts what is above and gathers what is between. What is left
goes through a radix select: a histogram of the upper 16 bits of the scores' order, then one of the
next 16 among those that share the upper ones, and so on. Both are exact: a sample that misleads
costs only time.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rayprune.errors import NonFiniteError
from rayprune.pruning.precision import scored

# Small enough for a core's own cache, large enough to hide the cost of a call.
CPU_CHUNK = 1 << 19
GPU_CHUNK = 1 << 25
DIGIT = 16
BINS = 1 << DIGIT

# Below, a sample doesn't pay.
NARROW_FROM = 1 << 21
SAMPLE = 1 << 18

# On a CPU NumPy compares, counts and selects five to ten times faster than torch does.
NUMPY_TYPES = (torch.float32, torch.float64, torch.int32, torch.int64)

Lives = Sequence["Tensor | None"]
Pairs = Sequence[tuple[Tensor, "Tensor | None"]]
Transform = Callable[[Tensor], Tensor]


def kept_count(total: int, sparsity: float) -> int:
    """Return how many of ``total`` weights a sparsity keeps: ``total - round(sparsity * total)``.

    Args:
        total: weights in the scope.
        sparsity: fraction pruned, in [0, 1].

    >>> [kept_count(10, sparsity) for sparsity in (0.0, 0.5, 0.94, 0.96)]
    [10, 5, 1, 0]
    """
    return total - round(sparsity * total)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a ranking is cut: keep what scores above ``value`` and the first ``ties`` equal to it.

    >>> find_cut([torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0])], keep=3)
    Cut(value=2.0, ties=2, equal=3)
    """

    value: float
    """The lowest score that is kept (of a scope that keeps nothing, infinity)."""
    ties: int
    """How many of the scores equal to ``value`` are kept, those of the lowest index."""
    equal: int
    """How many scores equal ``value``."""


def keep_top(
    scores: Sequence[Tensor], keep: int, *, live: Lives = (), names: Sequence[str] = ()
) -> list[Tensor]:
    """Make the masks that keep the ``keep`` highest scores over all tensors together.

    Exact for every float type; ties go to the lower index, in the order of the list and then of
    the flattened tensor.

    Args:
        scores: tensors of any shapes and devices; infinities are allowed.
        keep: how many to keep, clipped to 0 and the number of scores.
        live: bool tensors shaped like ``scores``, or None for a tensor that is wholly live; what
            is not live is never kept. Left out, everything is live.
        names: what to call the tensors in an error.

    Returns:
        Bool tensors shaped like ``scores``, True = keep.

    Raises:
        NonFiniteError: a score is NaN.

    >>> keep_top([torch.tensor([0.1, 0.9, 0.2, 0.5])], keep=2)
    [tensor([False,  True, False,  True])]
    """
    cut = find_cut(scores, keep, live=live, names=names)
    masks = []
    ties = cut.ties
    for score, alive in _pairs(scores, live):
        mask, ties = keep_above(score, cut, ties, alive)
        masks.append(mask)
    return masks


def find_cut(
    scores: Sequence[Tensor],
    keep: int,
    *,
    live: Lives = (),
    names: Sequence[str] = (),
    transform: Transform | None = None,
) -> Cut:
    """Find where to cut so that exactly ``keep`` live scores stay; see `keep_top`.

    Args:
        scores: as for `keep_top`.
        keep: as for `keep_top`.
        live: as for `keep_top`.
        names: as for `keep_top`.
        transform: turns a piece of ``scores`` into the scores that count, element by element; a
            way to rank weights without a copy of them all.

    Raises:
        NonFiniteError: a score is NaN.
    """
    total = sum(_live_count(score, alive) for score, alive in _pairs(scores, live))
    _check_for_nan(scores, names)
    keep = min(keep, total)
    if keep <= 0:
        return Cut(math.inf, 0, 0)
    pairs = _pairs(scores, live)
    if total >= NARROW_FROM:
        narrowed = _narrow(pairs, transform, keep / total)
        if narrowed is not None and 0 < keep - narrowed.above <= narrowed.between.numel():
            return _radix_cut([(narrowed.between, None)], None, keep - narrowed.above)
    return _radix_cut(pairs, transform, keep)


def _radix_cut(pairs: Pairs, transform: Transform | None, keep: int) -> Cut:
    """Find the cut by one digit of the order after the other."""
    wide = any(score.dtype == torch.float64 for score, _ in pairs)
    dtype, bits = (torch.float64, 64) if wide else (torch.float32, 32)
    prefix, equal = 0, 0
    for shift in range(bits - DIGIT, -1, -DIGIT):
        counts = _histogram(pairs, transform, dtype, shift, prefix)
        from_top = counts.flip(0).cumsum(0)
        rank = int(torch.searchsorted(from_top, keep))
        digit = BINS - 1 - rank
        equal = int(counts[digit])
        keep -= int(from_top[rank]) - equal
        # The first digit carries the sign: half of its range lies below zero.
        prefix = digit - BINS // 2 if shift == bits - DIGIT else prefix * BINS + digit
    return Cut(_value_of(prefix, dtype), keep, equal)


@dataclass(frozen=True, slots=True)
class _Narrowed:
    above: int
    """How many live scores are higher than those gathered."""
    between: Tensor
    """The scores among which the cut is expected; all that equal one of them are there."""


def _narrow(pairs: Pairs, transform: Transform | None, share: float) -> _Narrowed | None:
    """Gather the scores around the one that a share of all exceeds; None if they are too many."""
    low, high = _bracket(pairs, transform, share)
    dtype = functools.reduce(
        torch.promote_types, (score.dtype for score, _ in pairs), torch.float32
    )
    # One buffer, whose untouched pages cost nothing: many small ones would split up the heap.
    room = sum(score.numel() for score, _ in pairs) // 8
    between = torch.empty(room, dtype=dtype, device=pairs[0][0].device)
    above = filled = 0
    for score, live in pairs:
        for chunk, alive in _chunks(score, live, transform):
            over = _compare(operator.gt, chunk, high)
            inside = _compare(operator.ge, chunk, low).logical_xor_(over)
            if alive is not None:
                over.logical_and_(alive)
                inside.logical_and_(alive)
            above += int(_count(over))
            found = _select(chunk, inside)
            if filled + found.numel() > room:
                return None
            between[filled : filled + found.numel()] = found
            filled += found.numel()
    return _Narrowed(above, between[:filled])


def _bracket(pairs: Pairs, transform: Transform | None, share: float) -> tuple[float, float]:
    """Return two scores of a sample that the one at ``share`` from the top very likely parts."""
    stride = max(1, sum(score.numel() for score, _ in pairs) // SAMPLE)
    sample = []
    for score, live in pairs:
        values = score.detach().reshape(-1)[::stride]
        values = scored(values if live is None else values[live.reshape(-1)[::stride]])
        sample.append((values if transform is None else transform(values)).double().cpu())
    ranked = torch.cat(sample).sort(descending=True).values
    size = ranked.numel()
    # Five standard deviations of a binomial count, and a few for small ones.
    margin = 5 * math.sqrt(size * share * (1 - share)) + 5
    first, last = math.floor(size * share - margin), math.ceil(size * share + margin)
    high = float(ranked[first]) if first >= 0 else math.inf
    low = float(ranked[last]) if last < size else -math.inf
    return low, high


def keep_above(
    score: Tensor,
    cut: Cut,
    ties: int,
    live: Tensor | None = None,
    transform: Transform | None = None,
) -> tuple[Tensor, int]:
    """Apply a cut to one tensor of the scope that it was found in.

    Args:
        score: scores of any shape.
        cut: where to cut.
        ties: how many scores equal to the cut may still be kept.
        live: bool, what may be kept; None for everything.
        transform: as for `find_cut`.

    Returns:
        The mask, shaped like ``score``, and the ties that remain for the next tensor.
    """
    every_tie = cut.ties == cut.equal and ties > 0
    relation = operator.ge if every_tie else operator.gt
    mask = torch.empty(score.shape, dtype=torch.bool, device=score.device)
    flat, start = mask.view(-1), 0
    for chunk, alive in _chunks(score, live, transform):
        kept = _compare(relation, chunk, cut.value)
        if ties and not every_tie:
            tied = _compare(operator.eq, chunk, cut.value)
            first = _nonzero(tied if alive is None else tied.logical_and_(alive))[:ties]
            kept[first] = True
            ties -= first.numel()
        if alive is not None:
            kept.logical_and_(alive)
        flat[start : start + chunk.numel()] = kept
        start += chunk.numel()
    return mask, ties


def keep_only(weight: Tensor, keep: Tensor) -> None:
    """Zero a tensor in place where ``keep``, a bool tensor shaped like it, is False.

    The zeros are all +0.0, and stay so in every later step: checkpoints needn't hold their signs.
    """
    if weight.device.type == "cpu" and weight.dtype in NUMPY_TYPES:
        # Without a copy of the mask in floats, and faster than any torch call on bools.
        values = weight.detach().numpy()
        np.multiply(values, keep.numpy(), out=values)
        np.add(values, values.dtype.type(0), out=values)
    else:
        weight.mul_(keep).add_(0)


def _compare(relation: Callable[[Any, float], Any], score: Tensor, value: float) -> Tensor:
    """Return a relation's truth, bool and shaped like ``score``."""
    if score.device.type == "cpu" and score.dtype in NUMPY_TYPES:
        return torch.from_numpy(relation(score.numpy(), value))
    return torch.as_tensor(relation(score, value))


def _select(values: Tensor, flags: Tensor) -> Tensor:
    if values.device.type == "cpu" and values.dtype in NUMPY_TYPES:
        return torch.from_numpy(values.numpy()[flags.numpy()])
    return values[flags]


def _count(flags: Tensor) -> int:
    if flags.device.type == "cpu":
        return int(np.count_nonzero(flags.numpy()))
    return int(torch.count_nonzero(flags))


def _nonzero(flags: Tensor) -> Tensor:
    if flags.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.nonzero().view(-1)


def _pairs(scores: Sequence[Tensor], live: Lives) -> Pairs:
    return list(zip(scores, live or [None] * len(scores), strict=True))


def _live_count(score: Tensor, live: Tensor | None) -> int:
    return score.numel() if live is None else _count(live)


def _chunks(
    score: Tensor, live: Tensor | None, transform: Transform | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    size = _chunk_size(score)
    flat = score.detach().reshape(-1)
    alive = None if live is None else live.reshape(-1)
    for start in range(0, flat.numel(), size):
        piece = slice(start, start + size)
        chunk = scored(flat[piece])
        chunk = chunk if transform is None else transform(chunk)
        yield chunk, None if alive is None else alive[piece]


def _chunk_size(score: Tensor) -> int:
    return CPU_CHUNK if score.device.type == "cpu" else GPU_CHUNK


def _histogram(
    pairs: Pairs,
    transform: Transform | None,
    dtype: torch.dtype,
    shift: int,
    prefix: int,
) -> Tensor:
    """Count the digits at ``shift`` of the live keys; after the first digit, of those that match.

    Args:
        pairs: scores, and what is live of them.
        transform: as for `find_cut`.
        dtype: the float type that all are ranked as.
        shift: the lowest bit of the digit.
        prefix: the higher bits of the keys that count, unless it is the first digit.
    """
    counts = torch.zeros(BINS + 1, dtype=torch.int64)
    for score, live in pairs:
        scratch = _Scratch.like(score, dtype)
        for chunk, alive in _chunks(score, live, transform):
            keys = scratch.order_keys(chunk)
            if shift == 8 * keys.element_size() - DIGIT:
                digits = scratch.first_digits(keys, shift, alive)
            else:
                digits = scratch.matching(keys, shift + DIGIT, prefix, alive)
                digits = (digits >> shift).bitwise_and_(BINS - 1).add_(1)
            counts += torch.bincount(digits, minlength=BINS + 1).cpu()
    return counts[1:]


@dataclass(frozen=True, slots=True)
class _Scratch:
    """Memory for one chunk, used over and over: asking for new pages costs more than the work."""

    floats: Tensor
    integers: Tensor

    @classmethod
    def like(cls, score: Tensor, dtype: torch.dtype) -> _Scratch:
        size = min(_chunk_size(score), score.numel())
        integer = torch.int64 if dtype == torch.float64 else torch.int32
        return cls(
            torch.empty(size, dtype=dtype, device=score.device),
            torch.empty(size, dtype=integer, device=score.device),
        )

    def order_keys(self, chunk: Tensor) -> Tensor:
        """Map floats to integers of the same order; both zeros become one."""
        floats, signs = self.floats[: chunk.numel()], self.integers[: chunk.numel()]
        # Adding 0.0 turns -0.0, which ties with 0.0, into it.
        torch.add(chunk, 0.0, out=floats)
        bits = floats.view(self.integers.dtype)
        if bool(floats.amin() >= 0):
            return bits
        torch.bitwise_right_shift(bits, 8 * bits.element_size() - 1, out=signs)
        return bits.bitwise_xor_(signs.bitwise_and_(torch.iinfo(bits.dtype).max))

    def first_digits(self, keys: Tensor, shift: int, live: Tensor | None) -> Tensor:
        """Return the signed digit of each key in 1 to `BINS`, or 0 where it is not live."""
        digits = keys.bitwise_right_shift_(shift).add_(BINS // 2 + 1)
        if live is None:
            return digits
        # Twice as fast as a product with bools or bytes.
        return digits.mul_(self.integers[: live.numel()].copy_(live.view(torch.uint8)))

    def matching(self, keys: Tensor, shift: int, prefix: int, live: Tensor | None) -> Tensor:
        """Return the live keys whose bits from ``shift`` up are ``prefix``."""
        tops = self.integers[: keys.numel()]
        torch.bitwise_right_shift(keys, shift, out=tops)
        match = _compare(operator.eq, tops, prefix)
        return _select(keys, match if live is None else match.logical_and_(live))


def _value_of(key: int, dtype: torch.dtype) -> float:
    integer = torch.int64 if dtype == torch.float64 else torch.int32
    bits = key if key >= 0 else key ^ torch.iinfo(integer).max
    return float(torch.tensor(bits, dtype=integer).view(dtype))


def _check_for_nan(scores: Sequence[Tensor], names: Sequence[str]) -> None:
    for index, score in enumerate(scores):
        if score.numel() and bool(score.amax().isnan()):
            raise _nan_error(index, names)


def _nan_error(index: int, names: Sequence[str]) -> NonFiniteError:
    name = repr(names[index]) if names else f"tensor {index}"
    return NonFiniteError(
        f"The scores of {name} hold a NaN, so they can't be ranked. "
        "Look for a diverged loss or a learning rate that is too high."
    )
